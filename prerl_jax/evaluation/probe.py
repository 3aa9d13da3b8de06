"""The probe before a run: a verifier must accept the problems' own answers, or the run could not learn.

Each problem's own answer is written as a response, in the format that its source asks for, and verified. If none of a
source is accepted, no response of a policy would be either, such as where prompts ask for "####" and the verifier reads
a box: the probe refuses the run before anything compiles.
"""

from __future__ import annotations

import dataclasses
import re
import time
from collections.abc import Callable, Iterator, Sequence

from prerl_jax.data import Example
from prerl_jax.data.problems import Problem
from prerl_jax.evaluation.answer_formats import AFTER_THOUGHT, FORMATS, Written, bare_answer, filled, write_answer
from prerl_jax.evaluation.quoted import quoted
from prerl_jax.evaluation.verification import Verify
from prerl_jax.verify import AfterThinking, BatchVerifier, CombinedReward, Judgement, Verifier, WritesAnswers, written
from prerl_jax.verify.batch import asked_by, leaves_of

SECONDS = 10.0
"""After this time the probe of a source verifies no further answers."""
FIRST, MOST = 8, 512
"""The probe verifies this many answers together: first few, in case the verifier is slow, then more."""
OF_BATCHES = 64
"""The answers of a source that a `BatchVerifier`, which may be costly, gets."""
SHOWN = 200
"""A message shows this many characters of a text, at most."""


@dataclasses.dataclass(frozen=True)
class Probed:
    """The verdicts on the own answers of a source's problems.

    Attributes:
        answers: the answers as responses, of the problems that were probed.
        judgements: the best judgement on each.
        empty: the judgement on an empty response to the first problem.
    """

    answers: tuple[Written, ...]
    judgements: tuple[Judgement, ...]
    empty: Judgement

    def where(self, verdict: str) -> list[int]:
        """The numbers of the problems with this verdict."""
        return [number for number, judgement in enumerate(self.judgements) if judgement.verdict == verdict]

    @property
    def tells_nothing(self) -> bool:
        """Whether no known verdict differs from that on an empty response, which is wrong."""
        known = [judgement for judgement in self.judgements if judgement.verdict != "unknown"]
        like_empty = all((j.verdict, j.reward) == ("wrong", self.empty.reward) for j in known)
        return like_empty and self.empty.verdict == "wrong"


def probe(
    examples: Sequence[Example], split: str, verifier: Verifier, verify: Verify, decode: Callable, unknown_limit: float
) -> tuple[str, ...]:
    """Checks that the verifier accepts the own answers of each source's problems.

    Args:
        examples: the problems with their prompt tokens.
        split: "train" or "evaluation", for the messages.
        verifier: the verifier of the config.
        verify: the same, opened.
        decode: turns token ids into text.
        unknown_limit: the largest share of unknown verdicts, in [0, 1).

    Returns:
        Notes for the log: what is not accepted, is unknown, or could not be checked.

    Raises:
        ValueError: no problem's own answer of a source is accepted, or too many verdicts are unknown.
        VerifierError: the verifier raised an exception, or returned what is no judgement.
    """
    by_source = _by_source(examples)
    notes: list[str] = []
    for source, members in by_source.items():
        where = f"data.{split}" + (f", source {source!r}" if len(by_source) > 1 else "")
        members = [example for example in members if _has_text(verifier, example.problem)]
        if not members:
            notes.append(f"{where}: no right response is known, so it is not checked that the verifier accepts one.")
            continue
        found = probe_source(members, verifier, verify, decode)
        notes += _report(where, [member.problem for member in members], verifier, verify, found, unknown_limit)
    return tuple(notes)


def require_truncated_is_worst(examples: Sequence[Example], verify: Verify, truncated_reward: float) -> None:
    """Raises ValueError if a truncated response is worth more than an empty one to a source, which is wrong."""
    first = {source: members[0].problem for source, members in _by_source(examples).items()}
    judgements = _verified(verify, list(first.values()), [""] * len(first))
    wrong = {source: j.reward for source, j in zip(first, judgements, strict=True) if j.verdict == "wrong"}
    source = min(wrong, key=wrong.__getitem__, default="")
    if wrong and wrong[source] < truncated_reward:
        of = f" to a problem of source {source!r}" if len(first) > 1 else ""
        raise ValueError(
            f"data.verifier gives an empty response{of} {wrong[source]:g}, and a truncated one gets "
            f"data.truncated_reward = {truncated_reward:g}: a response that never ends would be worth more than a "
            f"wrong one. Set data.truncated_reward={wrong[source]:g}."
        )


def _by_source(examples: Sequence[Example]) -> dict[str, list[Example]]:
    """The examples of each source."""
    by_source: dict[str, list[Example]] = {}
    for example in examples:
        by_source.setdefault(example.problem.source, []).append(example)
    return by_source


def probe_source(examples: Sequence[Example], verifier: Verifier, verify: Verify, decode: Callable) -> Probed:
    """Verifies the problems' own answers, until they or the time are over. Arguments as in `probe`."""
    answers: list[Written] = []
    judgements: list[Judgement] = []
    end = time.monotonic() + SECONDS
    in_batches = any(isinstance(leaf, BatchVerifier) for leaf in leaves_of(verifier, examples[0].problem))
    for part in _parts(examples[:OF_BATCHES] if in_batches else examples):
        problems, prompts = [example.problem for example in part], decode([list(example.tokens) for example in part])
        texts = [write_answer(problem, prompt, verifier) for problem, prompt in zip(problems, prompts, strict=True)]
        answers += texts
        tries = [_tries(verifier, *of) for of in zip(problems, texts, strict=True)]
        judgements += _best(verify, problems, tries)
        if time.monotonic() > end:
            break
    return Probed(tuple(answers), tuple(judgements), _verified(verify, [examples[0].problem], [""])[0])


def _parts(examples: Sequence[Example]) -> Iterator[Sequence[Example]]:
    start, size = 0, FIRST
    while start < len(examples):
        yield examples[start : start + size]
        start, size = start + size, min(2 * size, MOST)


def _has_text(verifier: Verifier, problem: Problem) -> bool:
    """Whether no verifier that writes answers says that it cannot write this one, such as a program's tests."""
    leaves = leaves_of(verifier, problem)
    return all(written(leaf, problem) is not None for leaf in leaves if isinstance(leaf, WritesAnswers))


def _tries(verifier: Verifier, problem: Problem, answer: Written) -> tuple[str, ...]:
    """The answer's texts; these after a thought; and the verifier's own text, if it ends with a format that is asked.

    Some verifiers read only what follows a thought, and a verifier may ask for more than the prompts say.
    """
    texts, own = answer.responses, written(verifier, problem)
    markers = [one.marker for one in asked_by(verifier, problem) if isinstance(one, AfterThinking)]
    thoughts = ("", AFTER_THOUGHT, "".join(markers))
    in_format = tuple(text for text in texts if text != bare_answer(problem.answer))
    more = (own,) if own is not None and own.endswith(in_format) else ()
    return tuple(dict.fromkeys((*(thought + text for thought in thoughts for text in texts), *more)))


def _best(verify: Verify, problems: Sequence[Problem], tries: Sequence[tuple[str, ...]]) -> list[Judgement]:
    """The judgement on the first response to each problem that is right; on the first response, if none is."""
    best = _verified(verify, problems, [texts[0] for texts in tries])
    for number in range(1, max(map(len, tries))):
        rows = [row for row, texts in enumerate(tries) if best[row].verdict == "wrong" and number < len(texts)]
        if rows:
            again = _verified(verify, [problems[row] for row in rows], [tries[row][number] for row in rows])
            best = [*best]
            for row, judgement in zip(rows, again, strict=True):
                best[row] = judgement if judgement.verdict == "right" else best[row]
    return best


def _verified(verify: Verify, problems: Sequence[Problem], responses: Sequence[str]) -> list[Judgement]:
    return list(verify(problems, responses, [False] * len(responses)).judgements)


def _report(
    where: str,
    problems: Sequence[Problem],
    verifier: Verifier,
    verify: Verify,
    found: Probed,
    unknown_limit: float,
) -> list[str]:
    """What is to be said of a source; raises ValueError where its answers cannot be accepted."""
    probed, right, wrong, unknown = len(found.judgements), *(found.where(v) for v in ("right", "wrong", "unknown"))
    of_them = f"{probed} problems' own answers" + (" that were checked" if probed < len(problems) else "")
    notes = []
    if unknown:
        first = _shown(found, problems, unknown[0])
        notes.append(f"{where}: the verdicts on {len(unknown)} of the {of_them} are unknown; the first is {first}.")
    if len(unknown) > unknown_limit * probed:
        raise ValueError(
            f"{notes[0]} data.unknown_limit is {unknown_limit:g}. The verifier returned None, missed its deadline, or "
            "its process died: run it on this response by itself, or set data.probe=False."
        )
    if not wrong:
        return notes
    first, answer = _shown(found, problems, wrong[0]), found.answers[wrong[0]]
    if right:
        return [*notes, f"{where}: {len(wrong)} of the {of_them} are wrong; the first is {first}."]
    if not any(one.known for one in found.answers):
        how = "Set the source's answer_format, and the verifier is checked with answers in that format."
        return [*notes, f"warning: {where}: no problem's own answer is accepted. The first is {first}. {how}"]
    certain = found.tells_nothing and _looks_so(verifier, problems[wrong[0]], answer)
    so = ", and so it would call every right response" if certain else ""
    text = (
        f"{where}: no problem's own answer is accepted: {verifier} calls all of the {of_them} wrong{so}. "
        f"The first is {first}. {_remedy(problems[wrong[0]], answer, verifier, verify)}"
    )
    if certain:
        raise ValueError(text)
    return [*notes, f"warning: {text}"]


def _looks_so(verifier: Verifier, problem: Problem, answer: Written) -> bool:
    """Whether a right response surely looks like the answer that was written.

    Gates may ask for more, such as a length. A user's verifier that writes no answers may read what no prompt names.
    """
    asked = asked_by(verifier, problem)
    if any(isinstance(one, CombinedReward) and one.gates for one in asked):
        return False
    return not answer.guessed or written(verifier, problem) is not None


def _shown(found: Probed, problems: Sequence[Problem], number: int) -> str:
    """One of the answers, why it is written so, and what the verifier says, in one line."""
    written_as, judgement = found.answers[number], found.judgements[number]
    response, answer = written_as.responses[0], problems[number].answer
    of = "" if response == answer else f" for the answer {_short(answer)}"
    extracted = "" if judgement.answer is None else f"; it extracts {_short(judgement.answer)}"
    says = f"{judgement.verdict}, with reward {judgement.reward:g}{extracted}"
    return f"{_short(response)}{of}, since {written_as.because}: {says}"


def _remedy(problem: Problem, answer: Written, verifier: Verifier, verify: Verify) -> str:
    """What to do where no answer is accepted; it names a format that the verifier accepts, if one is found."""
    short = dataclasses.replace(problem, answer=bare_answer(problem.answer))
    texts = [text for one in FORMATS for text in filled(one.text, short.answer)]
    texts += [text for text in (written(verifier, short),) if text is not None]
    judgements = zip(texts, _verified(verify, [short] * len(texts), texts), strict=True)
    accepted = [text for text, judgement in judgements if judgement.verdict == "right"]
    shorten = "" if short.answer == problem.answer else f"shorten the answers, to {_short(short.answer)}, and "
    remedies = [f"{shorten}let the prompts ask for {_short(text)}, which the verifier accepts" for text in accepted[:1]]
    names = {type(one).__name__ for one in asked_by(verifier, problem)}
    if answer.format and not names & set(re.findall(r"(\w+)\(\)", answer.format.verifier)):
        form = quoted(answer.format.text.replace("{answer}", "..."))
        remedies.insert(0, f"choose a verifier that reads {form}, such as {answer.format.verifier}")
    do, example = "correct" if problem.answer_format else "set", "'<answer>{answer}</answer>'"
    remedies.append(f"if right responses look otherwise, {do} the source's answer_format, such as {example}")
    return f"What to do: {'; or '.join([*remedies, 'set data.probe=False if this is intended'])}."


def _short(text: str) -> str:
    """The text in quotes, in one line; only the end of a long one, where answers stand."""
    return quoted(text) if len(text) <= SHOWN else f"...{quoted(text[-SHOWN:])}"
