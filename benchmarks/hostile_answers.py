r"""Answers that are made to hang, to crash or to fool a verifier, through its workers: what one must survive in a run.

    python benchmarks/hostile_answers.py [--verifier "MathAnswer()"] [--answers 10000] [--workers 2] [--timeout 2]

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
from collections.abc import Callable, Iterator

import prerl_jax as pj
from prerl_jax.verify import VerifierError, VerifierPool

Case = tuple[str, str]
"""(the ground truth, the answer in the box)"""
CHUNK = 500
"""Answers of one call."""
SLACK = 60.0
"""Seconds that a call may take in addition to the deadlines of its answers."""


def nested(draw: random.Random) -> Case:
    """Groups in groups."""
    depth = draw.choice([10, 100, 1_000, 20_000])
    opening, closing = draw.choice(
        [("{", "}"), ("(", ")"), (r"\frac{1}{", "}"), (r"\sqrt{", "}"), (r"\left(", r"\right)"), ("[", "]"), ("|", "|")]
    )
    return "7", opening * depth + "7" + closing * (depth - draw.choice([0, 0, 1]))


def digits(draw: random.Random) -> Case:
    """Long numbers, right and wrong."""
    number = draw.choice("123456789") * draw.choice([20, 4_301, 100_000])
    return draw.choice([number, "7"]), draw.choice(["", "-", "0" * 1000, "0.", "."]) + number


def powers(draw: random.Random) -> Case:
    """Towers of powers, and numbers with absurd exponents."""
    height, base = draw.choice([2, 4, 8, 64]), draw.choice(["9", "10", "x", "2.5", "i", "e"])
    tower = f"{base}^{{" * height + "9" * draw.choice([1, 9]) + "}" * height
    return "7", draw.choice(
        [tower, "1e999999999", "10^{10^{10}}", "9**9**9**9", "2^{-10^9}", "0^{0^{0}}", f"({tower})^{{1/2}}"]
    )


def factorials(draw: random.Random) -> Case:
    """Factorials, binomials, sums, products and integrals that nobody should compute."""
    n = draw.choice(["20", "99999", "10^9"])
    forms = [
        f"{n}!",
        f"{n}!!!!",
        r"((((9!)!)!)!)",
        rf"\binom{{{n}}}{{{n}/2}}",
        rf"\sum_{{k=1}}^{{{n}}} \frac{{1}}{{k!}}",
    ]
    forms += [
        rf"\prod_{{k=1}}^{{{n}}} k^k",
        rf"\int_0^{{\infty}} e^{{-x^{{{n}}}}} dx",
        rf"\lim_{{x\to 0}} \frac{{\sin^{{{n}}} x}}{{x}}",
    ]
    return "7", draw.choice(forms)


def large(draw: random.Random) -> Case:
    """Matrices, sets, polynomials and systems of many elements."""
    n = draw.choice([3, 30, 300, 3_000])
    row = " & ".join(map(str, range(n)))
    sets = [",".join(map(str, range(n, 0, -1))), ",".join(f"x_{{{i}}}" for i in range(n))]
    forms = [rf"\begin{{pmatrix}} {(row + chr(92) * 2) * min(n, 100)} \end{{pmatrix}}", rf"\{{{draw.choice(sets)}\}}"]
    forms += [f"({'+'.join(f'x_{i}' for i in range(n))})^{{{n}}}", "+".join(rf"\sqrt{{{i}}}" for i in range(n))]
    forms += [" < ".join(f"x_{i}" for i in range(n)), r"\cup".join(f"({i},{i + 1})" for i in range(n)), "(x+y+z)^{500}"]
    return draw.choice([rf"\{{{','.join(map(str, range(1, n + 1)))}\}}", "7"]), draw.choice(forms)


def unicode(draw: random.Random) -> Case:
    """Digits of other scripts, directions, combining characters, lone surrogates and NUL."""
    strange = [
        "\x00",
        "\u202e7",
        "7" + "\u0301" * 10_000,
        "\u0667",
        "\uff17",
        "\U0001d7ff",
        "\ud800",
        "7\ufeff",
        "\u22127",
    ]
    strange += [
        "\u00bd",
        "\u2460",
        "\u4e03",
        "\u200b7\u200b",
        "\x1b[31m7",
        "\u2028" * 1_000,
        "7\r\n\x0b\x0c",
        "\ufdfa" * 1_000,
    ]
    return "7", "".join(draw.choice(strange) for _ in range(draw.choice([1, 3])))


def megabytes(draw: random.Random) -> Case:
    """One text again and again."""
    piece = draw.choice(["$", "\\", "{", "}", "a", " ", "7", r"\boxed{", r"\frac", r"\\", "\n", "-", "(", r"\text{ "])
    return "7", piece * (draw.choice([10_000, 300_000, 1_000_000]) // len(piece))


def boxes(draw: random.Random) -> Case:
    """Many answers in one response."""
    count = draw.choice([2, 100, 20_000])
    return "7", draw.choice(
        [r"7}\boxed{8" * count, r"7} or \boxed{" * count, r"\boxed{" * count + "7", "7," * count, "7=" * count]
    )


def code(draw: random.Random) -> Case:
    """Python and SymPy in place of mathematics."""
    forms = [
        "__import__('os')._exit(0)",
        "exit()",
        "().__class__.__base__.__subclasses__()",
        "lambda: 7",
        "7 if 1 else 8",
    ]
    forms += [
        "Integer(7)",
        "factorint(2**1024-1)",
        "integrate(exp(x**x),x)",
        "x.__class__",
        "eval('7')",
        "S('7')",
        "oo*0",
    ]
    forms += [
        "[7]*10**10",
        "'7'*10**10",
        "9**9**9",
        "solve(x**100+x+1)",
        "N(pi, 10**9)",
        "while 1: pass",
        "zoo",
        "nan",
        "True",
    ]
    return draw.choice(["7", "True", "nan"]), draw.choice(forms)


def bait(draw: random.Random) -> Case:
    """Texts on which regular expressions with nested repetitions take ages."""
    n = draw.choice([30, 1_000, 50_000])
    forms = [
        "1," * n + "x",
        "a" * n + "!",
        "1 " * n + "%",
        r"\frac" * n,
        "(((" * n + "7",
        "0" * n + "x",
        "\\text{" + " " * n,
        ",000" * n,
    ]
    forms += [
        "^" * n,
        "_" * n,
        "=" * n,
        "-" * n + "7",
        "+" * n + "7",
        r"\left" * n,
        r"\sqrt" * n,
        "1/" * n + "1",
        "." * n,
    ]
    return "7", draw.choice(forms)


def algebra(draw: random.Random) -> Case:
    """Right and wrong answers that take a simplification to compare."""
    n = draw.choice([2, 5, 12])
    angles = "+".join(rf"\sin^{{{k}}}({k}x)" for k in range(1, n + 1))
    golds = [
        angles,
        rf"\sqrt{{{'2+' * n}2}}",
        f"(x+1)^{{{n}}}",
        rf"\frac{{1}}{{{'1+' * n}x}}",
        r"\sqrt[3]{2+\sqrt{5}}+\sqrt[3]{2-\sqrt{5}}",
    ]
    gold = draw.choice(golds)
    return gold, draw.choice([gold + "+0", "1", f"({gold})^2/({gold})", rf"\log(e^{{{gold}}})", gold.replace("x", "y")])


def plain(draw: random.Random) -> Case:
    """What most responses are."""
    number = draw.randrange(10_000)
    return str(number), draw.choice([f"{number}", f"{number + 1}", rf"\frac{{{2 * number}}}{{2}}", f"{number}.0", "x"])


KINDS: dict[str, Callable[[random.Random], Case]] = {
    kind.__name__: kind
    for kind in (nested, digits, powers, factorials, large, unicode, megabytes, boxes, code, bait, algebra, plain)
}


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
    p.add_argument("--timeout", type=float, default=2.0, help="seconds for one answer (default: 2)")
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
