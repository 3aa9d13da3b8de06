"""Verifiers that ask others: by source, after a thought, several rewards in one."""

import dataclasses

import numpy as np
import pytest

from prerl_jax import TrainConfig
from prerl_jax.config.io import load_config, render
from prerl_jax.data import Problem
from prerl_jax.verify import (
    AfterThinking,
    Avoids,
    BoxedAnswer,
    BySource,
    CodeTests,
    CombinedReward,
    ExactMatch,
    GSM8KAnswer,
    InProcessVerifier,
    IntegerAnswer,
    Judgement,
    NoVerifierError,
    VerifierError,
    VerifierTraits,
    Weighted,
    traits_of,
    unused_sources,
    usable,
    written,
)
from prerl_jax.verify.batches import batches, deadlines

BOX, LINE = Problem("a", "7", "math"), Problem("b", "7", "gsm8k")


@dataclasses.dataclass(frozen=True)
class Fixed:
    """Returns one answer."""

    answer: object = None
    traits = VerifierTraits(needs_workers=True, imports=("json",))

    def __call__(self, problem, response):
        return self.answer

    def write(self, problem):
        return f"is {problem.answer}"


@dataclasses.dataclass(frozen=True)
class Long:
    """A batch verifier; it accepts responses of 3 characters or more."""

    batch_size: int | None = None

    def verify_batch(self, problems, responses):
        return [float(len(response) > 2) for response in responses]


def judgements(verifier, responses, problems=None):
    problems = problems or [BOX] * len(responses)
    return InProcessVerifier(verifier)(problems, responses, [False] * len(responses)).judgements


def rewards(verifier, responses, problems=None):
    return [judgement.reward for judgement in judgements(verifier, responses, problems)]


# --- by source


def test_each_source_has_its_verifier():
    verifier = BySource({"math": BoxedAnswer(), "gsm8k": GSM8KAnswer()})
    texts = [r"\boxed{7}", r"\boxed{7}", "#### 7", "#### 7"]
    assert rewards(verifier, texts, [BOX, LINE, BOX, LINE]) == [1, 0, 0, 1]
    assert BySource((("math", BoxedAnswer()), ("gsm8k", GSM8KAnswer()))) == verifier
    assert hash(verifier) == hash(BySource(dict(verifier.verifiers)))


def test_other_sources_have_the_default():
    verifier = BySource({"math": BoxedAnswer()}, default=GSM8KAnswer())
    assert rewards(verifier, ["#### 7", r"\boxed{7}"], [Problem("c", "7"), BOX]) == [1, 1]


def test_a_source_without_a_verifier_ends_a_run_before_it_starts():
    verifier = AfterThinking(BySource({"math": BoxedAnswer(), "aime": BoxedAnswer()}))
    with pytest.raises(NoVerifierError, match="'gsm8k' has no verifier; there are verifiers for 'math', 'aime'"):
        usable(verifier, [BOX, LINE])


@pytest.mark.parametrize(
    "build",
    [
        lambda value: BySource({"a": value}),
        lambda value: BySource({"a": BoxedAnswer()}, default=value),
        AfterThinking,
        Weighted,
        lambda value: CombinedReward((Weighted(BoxedAnswer()),), gates=(value,)),
    ],
)
def test_what_is_no_verifier_is_refused(build):
    for value in ("BoxedAnswer()", 1.0):
        with pytest.raises(ValueError, match="which is no verifier: it has no __call__ and no verify_batch"):
            build(value)
    with pytest.raises(
        ValueError, match=r"is the class BoxedAnswer; make a verifier of it, with BoxedAnswer\(\.\.\.\)"
    ):
        build(BoxedAnswer)


def test_no_verifier_is_no_verifier():
    with pytest.raises(ValueError, match="verifier of the source 'a' is None, which is no verifier"):
        BySource({"a": None})


def test_sources_that_no_problem_has():
    verifier = AfterThinking(BySource({"gsmk8": GSM8KAnswer(), "math": BoxedAnswer()}, default=BoxedAnswer()))
    assert unused_sources(verifier, [BOX, LINE]) == ("gsmk8",)
    assert unused_sources(verifier, [BOX, Problem("c", "7", "gsmk8")]) == ()
    assert unused_sources(BoxedAnswer(), [BOX]) == ()


@pytest.mark.parametrize("verifiers", [{}, (("a", BoxedAnswer()), ("a", GSM8KAnswer()))])
def test_sources_that_cannot_be(verifiers):
    with pytest.raises(ValueError, match="BySource needs a verifier for 1 source or more, and one for each"):
        BySource(verifiers)


# --- after a thought


@pytest.mark.parametrize(
    ("response", "free", "required"),
    [
        (r"<think>\boxed{7}</think> The answer is 3.", 0, 0),
        (r"<think>\boxed{3}</think> \boxed{7}", 1, 1),
        (r"\boxed{3}</think>\boxed{7}</think>", 0, 0),
        (r"a</think>b</think>\boxed{7}", 1, 1),
        (r"\boxed{7}", 1, 0),
        (r"<think>\boxed{7}", 1, 0),
        ("", 0, 0),
    ],
)
def test_only_what_follows_the_last_marker_counts(response, free, required):
    assert rewards(AfterThinking(BoxedAnswer()), [response]) == [free]
    assert rewards(AfterThinking(BoxedAnswer(), required=True), [response]) == [required]


def test_a_thought_without_an_end_is_wrong_and_the_others_keep_their_places():
    verifier = AfterThinking(Fixed(Judgement(0.5, "right")), marker="|", required=True)
    wrong = Judgement(0.0, "wrong", format_ok=False)
    assert judgements(verifier, ["a", "a|b", "a", "|"]) == [wrong, Judgement(0.5, "right")] * 2


def test_a_marker_that_cannot_be():
    with pytest.raises(ValueError, match="marker is empty"):
        AfterThinking(BoxedAnswer(), marker="")


# --- several rewards


def test_a_weighted_sum_with_the_first_part_s_verdict_and_answer():
    right = Judgement(1.0, "right", "7", True)
    verifier = CombinedReward((Weighted(Fixed(right), 2.0), Weighted(Fixed(-4.0), 0.25), Weighted(Long(), -0.5)))
    assert judgements(verifier, ["abc", "a"]) == [
        Judgement(0.5, "right", "7", True),
        Judgement(1.0, "right", "7", True),
    ]


@pytest.mark.parametrize(
    ("parts", "gates", "judgement"),
    [
        ([1.0, None], [], Judgement(0.0, "unknown")),
        ([None, 1.0], [], Judgement(0.0, "unknown")),
        ([1.0, 1.0], [1.0], Judgement(2.0, "right")),
        ([0.0, 1.0], [1.0, 1.0], Judgement(1.0, "wrong")),
        ([1.0, 1.0], [1.0, 0.5], Judgement(-1.0, "wrong")),
        ([1.0, None], [0.0], Judgement(-1.0, "wrong")),
        ([1.0, 1.0], [None, 0.0], Judgement(-1.0, "wrong")),
        ([1.0, 1.0], [1.0, None], Judgement(0.0, "unknown")),
    ],
)
def test_unknown_parts_and_gates(parts, gates, judgement):
    verifier = CombinedReward(
        tuple(Weighted(Fixed(part)) for part in parts), tuple(Fixed(gate) for gate in gates), gated_reward=-1.0
    )
    assert judgements(verifier, ["x"]) == [judgement]


def test_the_parts_see_only_what_passes_the_gates():
    seen = []

    def part(problem, response):
        seen.append(response)
        return 1.0

    verifier = CombinedReward((Weighted(part),), gates=(Long(),))
    assert rewards(verifier, ["a", "abc", "b", "abcd"]) == [0, 1, 0, 1]
    assert seen == ["abc", "abcd"]


@pytest.mark.parametrize(("parts", "gates"), [([2.0], []), ([1.0], [2.0]), ([-1.0], [])])
def test_the_first_part_and_the_gates_must_say_what_is_right(parts, gates):
    verifier = CombinedReward(tuple(Weighted(Fixed(p)) for p in parts), tuple(Fixed(g) for g in gates))
    says = r"Fixed\(.* which is not in \[0, 1\].*\. The first part of a CombinedReward and its gates say which"
    for any_reward in (False, True):
        with pytest.raises(VerifierError, match=says) as found:
            InProcessVerifier(verifier, any_reward=any_reward)([BOX], ["x"], [False])
        assert "This run" not in str(found.value)


@pytest.mark.parametrize(
    ("build", "says"),
    [
        (lambda: CombinedReward(()), "1 part or more"),
        (lambda: CombinedReward((Weighted(Long()),), gated_reward=float("nan")), "finite gated_reward"),
        (lambda: Weighted(Long(), float("inf")), "must be a finite number"),
    ],
)
def test_rewards_that_cannot_be(build, says):
    with pytest.raises(ValueError, match=says):
        build()


# --- all of them


def nested(part):
    """A verifier that asks others that ask others."""
    return BySource({"math": AfterThinking(CombinedReward((Weighted(part),), gates=(Long(),)))}, default=Fixed(0.0))


def test_traits_come_from_those_that_are_asked():
    assert traits_of(BoxedAnswer()) == VerifierTraits()
    assert not traits_of(AfterThinking(BySource({"a": BoxedAnswer()}))).needs_workers
    for verifier in (Avoids(("x",)), CodeTests(), AfterThinking(CodeTests())):
        assert traits_of(verifier) == VerifierTraits(reads_answer=False)
    assert traits_of(CombinedReward((Weighted(BoxedAnswer()),), gates=(Avoids(("x",)),))).reads_answer
    for verifier in (nested(BoxedAnswer()), AfterThinking(Fixed()), CombinedReward((Weighted(Long()),), (Fixed(),))):
        assert traits_of(verifier) == VerifierTraits(needs_workers=True, imports=("json",))


def test_right_responses_that_are_written():
    assert written(nested(Fixed()), BOX) == "</think>is 7"
    assert written(nested(Fixed()), LINE) == "is 7"
    assert written(nested(Long()), BOX) is None


def test_problems_are_checked_by_those_that_are_asked():
    bad = Problem("c", "seven", "gsm8k")
    line = GSM8KAnswer()
    for verifier in (
        line,
        AfterThinking(line),
        BySource({"gsm8k": line, "math": Fixed()}),
        CombinedReward((Weighted(Fixed()), Weighted(line))),
        CombinedReward((Weighted(Fixed()),), gates=(line,)),
    ):
        kept, dropped = usable(verifier, [BOX, bad, LINE])
        assert kept == (BOX, LINE)
        assert [line.partition(": the ground truth is not a number")[0] for line in dropped] == [
            "problem 1 (counted from 0)"
        ]
        with pytest.raises(ValueError, match=r"cannot verify any of the 2 problems; problem 0 .*data\.verifier"):
            usable(verifier, [bad, bad])


def test_a_source_that_loses_all_its_problems_is_refused_by_name():
    lost = [Problem("c", r"\frac12", "aime"), Problem("d", "x", "aime")]
    says = r"any of the 2 problems of source 'aime'; problem 1 .*data\.evaluation_verifier for data\.evaluation\."
    verifier = BySource({"aime": IntegerAnswer()}, default=BoxedAnswer())
    with pytest.raises(ValueError, match=says):
        usable(verifier, [BOX, *lost])
    kept, dropped = usable(verifier, [BOX, *lost, Problem("e", "7", "aime")])
    assert (len(kept), len(dropped)) == (2, 2)


@dataclasses.dataclass(frozen=True)
class Raising:
    """Its check fails, and not because of the problem."""

    error: Exception

    def __call__(self, problem, response):
        return 0.0

    def check(self, problem):
        raise self.error


@pytest.mark.parametrize("error", [KeyError("it"), TypeError("it"), RuntimeError("it"), ZeroDivisionError("it")])
def test_a_check_that_fails_is_an_error_of_the_verifier(error):
    for verifier in (Raising(error), AfterThinking(BySource({"math": Raising(error)}))):
        with pytest.raises(VerifierError, match=rf"(?s)check of Raising.* on Problem.*{type(error).__name__}") as found:
            usable(verifier, [BOX])
        assert str(found.value).count(" failed on ") == 1


def test_a_verifier_without_a_check_takes_any_problem():
    assert usable(lambda problem, response: 1.0, [Problem("q", "")]) == ((Problem("q", ""),), ())
    assert usable(BoxedAnswer(), []) == ((), ())


def test_rows_are_together_only_where_a_batch_verifier_is_asked():
    """So that a response that hangs takes none with it that another verifier verifies."""
    problems = [BOX, LINE, BOX, LINE, BOX, LINE]
    verifier = BySource({"math": Fixed(), "gsm8k": AfterThinking(Long(batch_size=2))})
    assert batches(verifier, problems, range(6)) == [[0], [1, 3], [2], [4], [5]]
    assert batches(AfterThinking(Fixed()), problems, [0, 5]) == [[0], [5]]
    assert batches(CombinedReward((Weighted(Fixed()), Weighted(Long()))), problems, range(4)) == [[0, 1, 2, 3]]
    assert deadlines(CombinedReward((Weighted(Fixed()), Weighted(Long()))), problems[:4]) == 4
    assert deadlines(CombinedReward((Weighted(Long()), Weighted(Long(2)))), problems[:4]) == 1
    assert deadlines(verifier, [LINE, LINE]) == deadlines(verifier, [BOX]) == 1
    two = BySource({"math": Long(), "gsm8k": Long(3)})
    assert batches(two, problems, range(6)) == [[0, 2, 4], [1, 3, 5]]
    assert rewards(two, ["abc", "a"] * 3, problems) == [1, 0] * 3


def test_a_saved_config_names_them(tmp_path):
    verifier = BySource(
        {
            "math": AfterThinking(BoxedAnswer(), required=True),
            "gsm8k": CombinedReward((Weighted(GSM8KAnswer()), Weighted(ExactMatch(), -0.5)), (BoxedAnswer(),), -1.0),
        },
        default=ExactMatch("Answer:"),
    )
    config = load_config("lab")
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, verifier=verifier))
    (tmp_path / "saved.py").write_text(render(config))
    loaded = load_config(tmp_path / "saved.py")
    assert isinstance(loaded, TrainConfig)
    assert loaded.data.verifier == verifier
    np.testing.assert_array_equal(rewards(loaded.data.verifier, [r"</think>\boxed{7}"]), [1])


class TestAcceptableAnswers:
    """A problem with several acceptable answers."""

    EITHER = Problem("a", "1/2", alternatives=("0.5", "50"))

    @pytest.mark.parametrize(("box", "right"), [("1/2", True), ("0.5", True), ("50", True), ("5", False)])
    def test_any_of_them_is_right(self, box, right):
        found = judgements(BoxedAnswer(), [rf"\boxed{{{box}}}"], [self.EITHER])[0]
        assert (found.verdict == "right") is right

    def test_it_reaches_verifiers_that_others_ask(self):
        asked = AfterThinking(BySource({"": BoxedAnswer()}))
        assert [j.verdict for j in judgements(asked, [r"</think>\boxed{50}"], [self.EITHER])] == ["right"]

    def test_an_unknown_verdict_on_one_is_no_wrong_one(self):
        @dataclasses.dataclass(frozen=True)
        class Unsure:
            def __call__(self, problem, response):
                return None if problem.answer == "0.5" else float(problem.answer == response)

        verdicts = [j.verdict for j in judgements(Unsure(), ["50", "7"], [self.EITHER] * 2)]
        assert verdicts == ["right", "unknown"]

    @pytest.mark.parametrize(("reads", "calls"), [(True, 3), (False, 1)])
    def test_a_verifier_that_reads_no_answer_is_asked_once(self, reads, calls):
        asked = []

        @dataclasses.dataclass(frozen=True)
        class Counts:
            traits = VerifierTraits(reads_answer=reads)

            def __call__(self, problem, response):
                asked.append(problem.answer)
                return 0.0

        judgements(AfterThinking(Counts()), ["x"], [self.EITHER])
        assert len(asked) == calls

    def test_answers_that_the_verifier_cannot_read_are_left_out(self):
        problem = Problem("a", "no number", alternatives=("7", "proof", "8"))
        kept, dropped = usable(GSM8KAnswer(), [problem])
        assert ([(p.answer, p.alternatives) for p in kept], dropped) == ([("7", ("8",))], ())
