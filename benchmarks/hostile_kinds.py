r"""The kinds of answers of `hostile_answers.py`: each function draws one (ground truth, answer in the box)."""

from __future__ import annotations

import random
from collections.abc import Callable

Case = tuple[str, str]
"""(the ground truth, the answer in the box)"""


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
