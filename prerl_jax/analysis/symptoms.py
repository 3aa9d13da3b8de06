"""What shows that a run does not learn: conditions on the metrics of a step, each with a likely cause and a remedy.

A run warns while a condition holds for several steps in a row (`Watch`). Its table names at the end what held in most
steps of a phase (`lasting`), so short runs are covered too.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

Numbers = Mapping[str, Any]
"""The metrics of a step. A metric that is not finite may be NaN, or None as in metrics.jsonl."""
AGAIN = 10
"""A warning is repeated after this many steps, if its condition still holds."""


@dataclasses.dataclass(frozen=True)
class Symptom:
    """A condition on the metrics of a step.

    Attributes:
        what: what is wrong, as the beginning of a sentence.
        holds: whether it is so in a step.
        why: the likely cause, and what to do.
        patience: a run warns when it has held in this many steps in a row.
    """

    what: str
    holds: Callable[[Numbers], bool]
    why: Callable[[Numbers], str]
    patience: int = 3


def no_update(numbers: Numbers) -> bool:
    """Whether a step changed neither the policy nor the critic."""
    changed = numbers.get("train/update_norm") or numbers.get("train/critic_update_norm")
    return bool(numbers.get("train/skipped")) and not changed


def why_no_update(numbers: Numbers) -> str:
    """Why a step changed no parameter."""
    if numbers["train/tokens"]:
        return (
            "the loss or its gradient is not finite; a smaller learning rate or model.compute_dtype='float32' may help"
        )
    shares = {
        "groups all right": "solved_groups",
        "groups all wrong": "unsolved_groups",
        "responses truncated": "truncated",
        "verdicts unknown": "unknown",
    }
    of_responses = ", ".join(f"{name}: {numbers.get(f'train/{share}') or 0.0:.0%}" for name, share in shares.items())
    return f"the phase trains on none of the responses ({of_responses})"


def cut_off(numbers: Numbers) -> bool:
    """Whether most responses of a step reached the length limit."""
    return (numbers.get("train/truncated") or 0.0) > 0.5


SYMPTOMS = (
    Symptom("no update", no_update, why_no_update, patience=1),
    Symptom(
        "no response is right",
        lambda numbers: numbers.get("train/unsolved_groups") == 1 and not cut_off(numbers),
        lambda numbers: (
            "the problems are too hard for the model, or it does not answer in the format that data.verifier reads; "
            "compare responses and answers in completions.jsonl"
        ),
    ),
    Symptom(
        "every response is right",
        lambda numbers: numbers.get("train/solved_groups") == 1,
        lambda numbers: "the problems are too easy to learn from, or data.verifier accepts too much; use harder ones",
    ),
    Symptom(
        "most responses are cut off at sampling.max_new_tokens",
        cut_off,
        lambda numbers: (
            f"{numbers['train/truncated']:.0%} of them in the last step; they count as wrong. Raise "
            "sampling.max_new_tokens, or name the token that ends a turn in sampling.stop_tokens if the model writes "
            "on after its answer"
        ),
    ),
)


@dataclasses.dataclass(frozen=True)
class Watch:
    """For how many steps in a row each symptom has held.

    Attributes:
        phase: the phase of these steps; another phase begins anew.
        held: for each symptom, the number of steps.
        said: for each symptom, the step of the last warning; None: none in this phase.
    """

    phase: str = ""
    held: tuple[int, ...] = (0,) * len(SYMPTOMS)
    said: tuple[int | None, ...] = (None,) * len(SYMPTOMS)

    def after(self, step: int, phase: str, numbers: Numbers) -> tuple[Watch, list[str]]:
        """(the watch after a step of a phase with these metrics, the warnings that are due)."""
        before = self if phase == self.phase else Watch(phase)
        held = tuple(n + 1 if s.holds(numbers) else 0 for s, n in zip(SYMPTOMS, before.held, strict=True))
        said, warnings = list(before.said), []
        for index, symptom in enumerate(SYMPTOMS):
            last = said[index]
            if held[index] >= symptom.patience and (last is None or step >= last + AGAIN):
                said[index] = step
                row = f" for {held[index]} steps in a row" if held[index] > 1 else ""
                warnings.append(f"step {step}: {symptom.what}{row}: {symptom.why(numbers)}")
        return Watch(phase, held, tuple(said)), warnings


def lasting(records: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """The symptoms that held in more than half of the steps of a phase.

    Args:
        records: the lines of metrics.jsonl.

    Returns:
        Phase -> one sentence for each symptom.
    """
    found: dict[str, list[str]] = {}
    steps = [record for record in records if "train/tokens" in record]
    for phase in dict.fromkeys(record["phase"] for record in steps):
        members = [record for record in steps if record["phase"] == phase]
        for symptom in SYMPTOMS:
            held = [record for record in members if symptom.holds(record)]
            if 2 * len(held) > len(members):
                why = symptom.why(held[-1])
                found.setdefault(phase, []).append(f"{symptom.what} in {len(held)} of {len(members)} steps: {why}")
    return found
