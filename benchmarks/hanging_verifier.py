"""`python benchmarks/hanging_verifier.py OUT`: trains under a verifier that hangs on every second right response.

The verifier is right about all other responses. Where it misses its deadline, the verdict is unknown. The command runs
a few steps of the lab in P(y) on wrong responses alone (NSR-PreRL), with a verifier that always answers, and with the
one that hangs. It prints what is trained on, and checks it: completions.jsonl has all responses, and as many have a
trained token as are known to be wrong in groups with a known right one. None of those is right.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
import zlib
from pathlib import Path

from prerl_jax import AlignmentSpec, FunctionVerifier, Judgement, Problem, TrainConfig, nsr_prerl
from prerl_jax.config.io import load_config
from prerl_jax.trainer.start import run
from prerl_jax.verify import right_or_wrong

PROMPTS, GROUP = 8, 4


def answers(problem: Problem, response: str) -> Judgement:
    """Right if the text after the last "#" is the answer, as in the lab."""
    found = response.rpartition("#")[2]
    return right_or_wrong(found == problem.answer, found)


def hangs(problem: Problem, response: str) -> Judgement:
    """The same, but it hangs on every second right response, chosen by a hash; on no problem's own answer."""
    judgement = answers(problem, response)
    if judgement.verdict == "right" and zlib.crc32(response.encode()) % 2 and "\n" in response:
        time.sleep(1000)
    return judgement


def config(name: str, steps: int) -> TrainConfig:
    """A run of a few steps with one of these functions as its verifier."""
    lab = load_config("lab")
    data = dataclasses.replace(
        lab.data,
        verifier=FunctionVerifier(f"hanging_verifier:{name}"),
        evaluation_verifier=lab.data.verifier,
        verify_workers=2,
        verify_timeout=0.5,
    )
    return dataclasses.replace(
        lab,
        name=name,
        data=data,
        phases=nsr_prerl(steps=steps),
        sampling=dataclasses.replace(lab.sampling, prompts_per_step=PROMPTS, group_size=GROUP),
        evaluation=dataclasses.replace(lab.evaluation, every=0),
        checkpoints=dataclasses.replace(lab.checkpoints, every=0, best=None),
        alignment=AlignmentSpec(),
        completions_per_step=PROMPTS * GROUP,
    )


def lines(path: Path) -> list[dict]:
    """The rows of a file of JSON lines."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def report(name: str, record: dict, rows: list[dict]) -> str:
    """One line about a step. Raises ValueError if other responses were trained on than wrong ones."""
    groups = [rows[start : start + GROUP] for start in range(0, len(rows), GROUP)]
    mixed = [group for group in groups if any(row["verdict"] == "right" for row in group)]
    wrong = [row for group in mixed for row in group if row["verdict"] == "wrong"]
    right = [row for row in wrong if row["response"].rpartition("#")[2] == row["answer"] and not row["truncated"]]
    trained = round(record["train/trained_fraction"] * len(rows))
    if right or trained != len(wrong):
        raise ValueError(
            f"{name}, step {record['step']}: {trained} responses have trained tokens, {len(wrong)} are known to be "
            f"wrong in mixed groups, and {len(right)} of them are right."
        )
    return (
        f"{name:<8} step {record['step']}  reward {record['train/reward']:.3f}  unknown {record['train/unknown']:.3f}  "
        f"trained tokens {record['train/tokens']:.0f} of {trained} wrong responses and no right one"
    )


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description="Trains under a verifier that hangs on every second right response.")
    parser.add_argument("out", type=Path, help="the folder of the two runs")
    parser.add_argument("--steps", type=int, default=2)
    args = parser.parse_args()
    printed = []
    for name in ("answers", "hangs"):
        run(config(name, args.steps), args.out / name)
        said = lines(args.out / name / "completions.jsonl")
        for record in lines(args.out / name / "metrics.jsonl")[1:]:
            printed.append(report(name, record, [row for row in said if row["step"] == record["step"]]))
    print("\n".join(printed))


if __name__ == "__main__":
    main()
