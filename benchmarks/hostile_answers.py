r"""Answers that are made to hang, to crash or to fool a verifier, through its workers: what one must survive in a run.

    python benchmarks/hostile_answers.py [--verifier "MathAnswer()"] [--answers 10000] [--workers 2]

The answers are of many kinds, drawn with a seed: deep braces, numbers of 100,000 digits, towers of powers, factorials,
large matrices and sets, strange Unicode, megabytes of one character, code, and bait for regular expressions. Each is a
response with a \boxed answer. The table says what became of each kind. The last line is one JSON object with the number
of answers a second, the shares of verdicts, and the peak memory of the trainer and of its largest worker.

The exit status is 0 if every answer has got a verdict in the time that its deadline allows, and 1 if the verifier hung
or ended the run.
"""

from __future__ import annotations

import argparse
import ast
import json
import random
import resource
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator

from hostile_kinds import KINDS

import prerl_jax as pj
from prerl_jax.verify import VerifierError, VerifierPool

CHUNK = 500
"""Answers of one call."""
SLACK = 60.0
"""Seconds that a call may take in addition to the deadlines of its answers."""


def chunks(count: int, seed: int) -> Iterator[tuple[list[str], list[pj.Problem], list[str]]]:
    """(kinds, problems, responses), at most CHUNK of each at a time, `count` in all."""
    draw = random.Random(seed)
    for start in range(0, count, CHUNK):
        kinds = [draw.choice(list(KINDS)) for _ in range(min(CHUNK, count - start))]
        cases = [KINDS[kind](draw) for kind in kinds]
        responses = [rf"So the answer is $\boxed{{{answer}}}$." for _, answer in cases]
        yield kinds, [pj.Problem("?", gold) for gold, _ in cases], responses


def too_late(*_: object) -> None:
    """Ends a call that hangs."""
    raise TimeoutError("a call took longer than the deadlines of its answers allow")


def verify(pool: VerifierPool, arguments: argparse.Namespace) -> tuple[Counter[tuple[str, str]], dict[str, int], float]:
    """({(kind, verdict): answers}, {"timed out": answers, "died": workers}, seconds in the verifier)."""
    verdicts: Counter[tuple[str, str]] = Counter()
    ends = Counter({"timed out": 0, "died": 0})
    seconds = 0.0
    for kinds, problems, responses in chunks(arguments.answers, arguments.seed):
        signal.setitimer(signal.ITIMER_REAL, len(kinds) * (arguments.timeout + 1) / arguments.workers + SLACK)
        start = time.perf_counter()
        verified = pool(problems, responses, [False] * len(kinds))
        seconds += time.perf_counter() - start
        signal.setitimer(signal.ITIMER_REAL, 0)
        verdicts.update(zip(kinds, (judgement.verdict for judgement in verified.judgements), strict=True))
        ends.update({"timed out": int(verified.timed_out.sum()), "died": len(verified.deaths)})
        print(f"{verdicts.total()} answers, {seconds:.0f} s, {dict(ends)}", file=sys.stderr, flush=True)
    return verdicts, dict(ends), seconds


def parse(text: str) -> object:
    """The verifier that a text names, such as "MathAnswer()", with the public names of prerl_jax."""
    return eval(compile(ast.parse(text, mode="eval"), "--verifier", "eval"), {n: getattr(pj, n) for n in pj.__all__})


def peak_mib(who: int) -> float:
    """The peak memory of this process, or of the largest of those that it has started and that have ended."""
    return resource.getrusage(who).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def report(verdicts: Counter[tuple[str, str]], ends: dict[str, int], seconds: float) -> None:
    """Prints the table and the JSON line."""
    columns = ("right", "wrong", "unknown")
    print(f"{'kind':<12}" + "".join(f"{column:>9}" for column in columns))
    for kind in KINDS:
        print(f"{kind:<12}" + "".join(f"{verdicts[kind, column]:>9}" for column in columns))
    total = {column: sum(verdicts[kind, column] for kind in KINDS) for column in columns}
    print(f"{'all':<12}" + "".join(f"{total[column]:>9}" for column in columns))
    figures = {
        "answers_per_second": round(verdicts.total() / seconds, 1),
        **total,
        "timed_out": ends["timed out"],
        "died": ends["died"],
        "worker_peak_mib": round(peak_mib(resource.RUSAGE_CHILDREN)),
        "trainer_peak_mib": round(peak_mib(resource.RUSAGE_SELF)),
    }
    print(json.dumps(figures))


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    best = "MathAnswer()" if hasattr(pj, "MathAnswer") else "BoxedAnswer()"
    p.add_argument("--verifier", type=parse, default=best, help=f"an expression (default: {best})")
    p.add_argument("--answers", type=int, default=10_000, help="how many (default: 10000)")
    p.add_argument("--workers", type=int, default=2, help="worker processes (default: 2)")
    p.add_argument("--timeout", type=float, default=10.0, help="seconds for one answer (default: 10)")
    p.add_argument("--memory", type=float, default=1.0, help="GiB that a worker may allocate (default: 1)")
    p.add_argument("--seed", type=int, default=0, help="of the answers (default: 0)")
    p.add_argument("--quick", action="store_true", help="200 answers")
    return p


def main() -> int:
    """Runs the command line; returns the exit status."""
    arguments = parser().parse_args()
    if arguments.quick:
        arguments.answers = 200
    signal.signal(signal.SIGALRM, too_late)
    pool = VerifierPool(arguments.verifier, arguments.workers, arguments.timeout, memory=arguments.memory)
    try:
        results = verify(pool, arguments)
    except (TimeoutError, VerifierError) as error:
        print(f"failed: {error}", file=sys.stderr)
        return 1
    finally:
        pool.close()  # so that the workers have ended when their memory is asked for
    report(*results)
    return 0


if __name__ == "__main__":
    sys.exit(main())
