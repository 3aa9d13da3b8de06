"""Generated problems: right golds, recomputed from the text alone; splits that never meet; the sample files."""

from __future__ import annotations

import itertools
import re

import pytest
from made_samples import FOLDER, SAMPLES

from prerl_jax import FiveWayWordProblems, LogicalDeduction, MultipleChoice, WordProblems, layouts
from prerl_jax.data import Instructions
from prerl_jax.data.logical_deduction import DEDUCTION_SHOTS, SCENES
from prerl_jax.data.word_problems import FIVE_WAY_SHOTS, WORD_PROBLEM_SHOTS

BARE = Instructions()
KINDS = (WordProblems, FiveWayWordProblems, LogicalDeduction)


# --- recomputing golds from the text

ORDINALS = {"first": 0, "second": 1, "third": 2, "fourth": 3}
FROM_FIRST = ("from the left", "oldest", "cheapest", "lightest")
FROM_LAST = ("from the right", "newest", "most expensive", "heaviest", "from last")
FIRST = ("leftmost", "finished first", "the oldest", "the cheapest", "the lightest")
LAST = ("rightmost", "finished last", "the newest", "the most expensive", "the heaviest")
BEFORE = (" is left of ", " finished ahead of ", " is older than ", " cost less than ", " is lighter than ")
AFTER = (" is right of ", " finished behind ", " is newer than ", " cost more than ", " is heavier than ")


def plain(name):
    return re.sub("^(the|an?) ", "", name.lower())


def holds(statement, order):
    """Whether a statement is true of an order, read from its text."""
    size = len(order)
    for phrases, sign in ((BEFORE, 1), (AFTER, -1)):
        for phrase in phrases:
            if phrase in statement:
                one, other = map(plain, statement.split(phrase))
                return (order.index(other) - order.index(one)) * sign > 0
    name = re.split(" (?:is|are|finished) ", statement)[0]
    does = statement[len(name) :]
    ordinal = next((index for word, index in ORDINALS.items() if re.search(rf"\b{word}\b", does)), None)
    if ordinal is None or does == " finished first":
        place = 0 if does.endswith(FIRST) else size - 1
        assert does.endswith((*FIRST, *LAST)), does
    else:
        place = size - 1 - ordinal if does.endswith(FROM_LAST) else ordinal
        assert does.endswith((*FROM_FIRST, *FROM_LAST)) or "finished" in does, does
    return order.index(plain(name)) == place


def parsed(prompt):
    """(objects, statements, options) of a question about an order."""
    head, options = prompt.split("\nWhich of these is true?\n")
    opening, *rest = head.split(". ")
    objects = [plain(name) for name in re.split(r", and |, ", opening.partition(": ")[2])]
    return objects, [text.rstrip(".") for text in rest], re.findall(r"\(([A-G])\) (.+)", options)


def orders_of(prompt):
    objects, statements, _ = parsed(prompt)
    return [o for o in itertools.permutations(objects) if all(holds(text, o) for text in statements)]


def result_of(story):
    """The result of a story, by its sentences and without the generator."""
    total = None
    for sentence in re.split(r"(?<=[.?]) ", story):
        numbers = [int(n) for n in re.findall(r"\d+", sentence)]
        if not numbers:
            continue
        if total is None:
            total = numbers[0] * (numbers[1] if len(numbers) > 1 else 1)
        elif re.search(r"more|another", sentence):
            total += numbers[0]
        elif re.search(r"gives|loses|takes", sentence):
            total -= numbers[0]
        elif re.search(r"dollars each|Each weighs", sentence):
            total *= numbers[0]
        else:
            assert re.search(r"bags|children", sentence), sentence
            assert total % numbers[0] == 0
            total //= numbers[0]
    return total


# --- logical deduction


@pytest.mark.parametrize(("size", "count"), [(3, 60), (5, 12), pytest.param(7, 60, marks=pytest.mark.slow)])
def test_a_deduction_has_one_order_and_one_right_option(size, count):
    for problem in LogicalDeduction(count, sizes=(size,), instructions=BARE).load()[0]:
        objects, statements, options = parsed(problem.prompt)
        (order,) = orders_of(problem.prompt)
        assert order == tuple(map(plain, problem.metadata["order"]))
        right = [letter for letter, text in options if holds(text, order)]
        assert right == [problem.answer]
        assert len({text for _, text in options}) == len(objects) == size == problem.difficulty
        assert not {text for _, text in options} & set(statements)  # no statement is an option


def test_no_statement_can_be_left_out():
    for problem in LogicalDeduction(20, sizes=(3,), instructions=BARE).load()[0]:
        _, statements, _ = parsed(problem.prompt)
        for text in statements:
            assert len(orders_of(problem.prompt.replace(f" {text}.", "", 1))) > 1


def test_deductions_use_all_scenes_and_letters_about_equally():
    problems = LogicalDeduction(360).load()[0]
    for start in (scene.opening.split("{")[0] for scene in SCENES):
        assert 30 < sum(problem.prompt.startswith(start) for problem in problems) < 90
    of_seven = [problem.answer for problem in problems if problem.difficulty == 7]
    assert all(5 < of_seven.count(letter) < 35 for letter in "ABCDEFG")


def test_shots_of_deductions_are_right_and_about_other_objects():
    turns = DEDUCTION_SHOTS.few_shot
    for question, answer in zip(turns[::2], turns[1::2], strict=True):
        objects, _, options = parsed(question.content)
        (order,) = orders_of(question.content)
        (right,) = [letter for letter, text in options if holds(text, order)]
        assert answer.content.endswith(f"The answer is ({right}).")
        assert not set(objects) & {plain(name) for scene in SCENES for name in scene.objects}


# --- word problems


def test_word_problems_have_right_answers_and_solutions():
    problems = WordProblems(600, instructions=BARE).load()[0]
    for number, problem in enumerate(problems):
        assert int(problem.answer) == result_of(problem.prompt) > 1
        lines = problem.metadata["solution"].split("\n")
        assert len(lines) == problem.difficulty == number % 3 + 1
        for line in lines:
            left, right = line.split(" = ")
            assert eval(left) == int(right) > 0
    sentences = " ".join(problem.prompt for problem in problems)
    assert not re.search(r"[{}]", sentences)


def test_five_ways_have_five_distinct_positive_options_of_which_one_is_right():
    problems, ranks = FiveWayWordProblems(600, instructions=BARE).load()[0], []
    for problem in problems:
        story, *options = problem.prompt.split("\n")
        values = {option[1]: int(option[4:]) for option in options}
        assert "".join(values) == "ABCDE"
        assert len(set(values.values())) == 5
        assert min(values.values()) > 0
        assert [letter for letter, value in values.items() if value == result_of(story)] == [problem.answer]
        ranks.append(sorted(values.values()).index(result_of(story)))
    letters = [problem.answer for problem in problems]
    assert all(80 < ranks.count(rank) < 160 for rank in range(5))  # the size of an option does not tell
    assert all(80 < letters.count(letter) < 160 for letter in "ABCDE")


def test_shots_of_word_problems_are_right_and_never_asked():
    shown = [int(re.search(r"#### (\d+)", turn.content)[1]) for turn in WORD_PROBLEM_SHOTS.few_shot[1::2]]
    assert shown == [8 - 3, 4 * 3 + 2]
    for question, answer, value in zip(FIVE_WAY_SHOTS.few_shot[::2], FIVE_WAY_SHOTS.few_shot[1::2], shown, strict=True):
        letter = re.search(r"\((.)\)\.$", answer.content)[1]
        assert f"({letter}) {value}" in question.content.split("\n")
    both = (*WordProblems(300, steps=(1,)).load()[0], *WordProblems(60, "evaluation", steps=(1,)).load()[0])
    assert not [problem for problem in both if problem.metadata["solution"] == "8 - 3 = 5"]


# --- all


@pytest.mark.parametrize("kind", KINDS)
def test_problem_i_depends_on_the_seed_and_not_on_the_count(kind):
    few, many = kind(20, seed=3).load()[0], kind(60, seed=3).load()[0]
    assert many[:20] == few
    assert len({problem.prompt for problem in many}) == 60
    assert kind(20, seed=4).load()[0] != few


def test_the_splits_share_no_calculation_whatever_the_seeds_names_and_kinds():
    fields = {"steps": (1, 2), "largest": 10}
    train = [p for seed in range(2) for p in WordProblems(150, "train", seed, **fields).load()[0]]
    held_out = [p for seed in range(2) for p in FiveWayWordProblems(40, "evaluation", seed, **fields).load()[0]]
    assert not {p.metadata["solution"] for p in train} & {p.metadata["solution"] for p in held_out}


def test_the_splits_share_no_deduction_whatever_the_order_of_statements():
    def asked(split):
        problems = (p for seed in range(2) for p in LogicalDeduction(120, split, seed, sizes=(3,)).load()[0])
        return {frozenset(parsed(problem.prompt)[1]) for problem in problems}

    assert not asked("train") & asked("evaluation")


def test_too_many_questions():
    with pytest.raises(ValueError, match=r"only \d+ distinct questions were found for evaluation; 500 were asked for"):
        WordProblems(500, "evaluation", steps=(1,)).load()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "fields",
    [{"count": 0}, {"count": "9"}, {"count": 1.5}, {"count": True}, {"count": 1, "split": "test"},
     {"count": 1, "split": None}, {"count": 1, "seed": 1.5}, {"count": 1, "seed": "a"}],
)  # fmt: skip
def test_bad_fields(kind, fields):
    with pytest.raises(ValueError, match=kind.__name__):
        kind(**fields)


@pytest.mark.parametrize("values", [(), (4,), (3, 3)])
def test_bad_sizes_and_steps(values):
    with pytest.raises(ValueError, match="sizes must be a tuple of distinct values"):
        LogicalDeduction(1, sizes=values)
    with pytest.raises(ValueError, match="steps must be a tuple of distinct values"):
        WordProblems(1, steps=values)


@pytest.mark.parametrize("values", [3, [3], ([3],), (3.0,), (True,), None])
def test_sizes_and_steps_of_another_type(values):
    with pytest.raises(ValueError, match=r"LogicalDeduction\.sizes: expected tuple\[int, \.\.\.\], got"):
        LogicalDeduction(1, sizes=values)
    with pytest.raises(ValueError, match=r"WordProblems\.steps: expected tuple\[int, \.\.\.\], got"):
        WordProblems(1, steps=values)


@pytest.mark.parametrize("largest", [9, 1001])
def test_bad_largest(largest):
    with pytest.raises(ValueError, match="largest must be from 10 to 1,000"):
        WordProblems(1, largest=largest)


# --- the sample files


@pytest.mark.parametrize("name", SAMPLES)
def test_the_sample_files_are_generated_problems_for_evaluation(name):
    assert (FOLDER / name).read_text("utf-8") == SAMPLES[name]()


def test_the_readers_of_published_data_sets_read_the_sample_files():
    words = layouts.gsm8k("package:prerl_jax/samples/word_problems.jsonl", BARE).load()[0]
    assert [int(problem.answer) for problem in words] == [result_of(problem.prompt) for problem in words]
    choices = layouts.mathqa("package:prerl_jax/samples/five_way.json", BARE).load()[0]
    for problem in choices:
        story, *options = problem.prompt.split("\n")
        assert f"({problem.answer}) {result_of(story)}" in options
    deductions = layouts.logical_deduction("package:prerl_jax/samples/deduction.json", BARE).load()[0]
    assert {len(parsed(problem.prompt)[2]) for problem in deductions} == {3, 5, 7}
    for problem in deductions:
        assert MultipleChoice()(problem, f"The answer is ({problem.answer}).").verdict == "right"
    assert (len(words), len(choices), len(deductions)) == (24, 24, 24)
