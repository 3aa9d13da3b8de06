r"""Golds: plain, in dollars, in a list, in a box, after a marker, with a unit, zero-padded; and what is refused."""

from __future__ import annotations

from decimal import Decimal

import pytest

from prerl_jax.data.golds import (
    AllGold,
    AnyGold,
    BoxedGold,
    LetterGold,
    MarkedGold,
    NumberGold,
    PlainGold,
    last_box,
    parts,
    unit_text,
)


@pytest.mark.parametrize(
    ("value", "accepted"),
    [
        ("5", ("5",)),
        (27.0, ("27",)),
        (Decimal("1.50"), ("1.5",)),
        (Decimal("100"), ("100",)),
        ("$5$", ("5",)),
        (" $$x^2$$ ", ("x^2",)),
        (r"\(x\)", ("x",)),
        (r"\[x\]", ("x",)),
        (r"$\$5$", (r"\$5",)),
        (r"\$5", (r"\$5",)),
        ("$5", ("$5",)),
        ("$x$ and $y$", ("$x$ and $y$",)),
        ("$$", ()),
        (" ", ()),
        (None, ()),
        (r'["\\frac{1}{2}"]', (r"\frac{1}{2}",)),
        ('["34", "$34$", "35"]', ("34", "35")),
        ("['34']", ("34",)),
        ('["a", 2]', ('["a", 2]',)),  # ends in no text: not a list of texts
        ("[1, 2]", ("[1, 2]",)),  # an interval, or a vector
        ("[]", ()),
        ("[null, null]", ()),
        ('["a"', ('["a"',)),
    ],
)
def test_plain(value, accepted):
    assert PlainGold()(value).accepted == accepted


@pytest.mark.parametrize(
    "value",
    [
        ["5"],
        {"a": 1},
        True,
        b"5",
        float("inf"),
        r'["\frac{1}{2}"]',
        r'["\text{yes}"]',
        r'["\nu"]',
        r'["\tau"]',
        '["a"] x ["b"]',
    ],
)
def test_plain_refuses(value):
    with pytest.raises(ValueError, match=r"ground truth|list"):
        PlainGold()(value)


def test_any_of():
    assert AnyGold()(["$1$", "1", None, "2"]).accepted == ("1", "2")
    assert AnyGold()('["1", "2"]').accepted == ("1", "2")
    assert AnyGold()(3).accepted == ("3",)
    assert AnyGold()([]).accepted == ()


@pytest.mark.parametrize(
    ("text", "accepted"),
    [("[13]", ("13",)), ("[1, 2]", ("1", "2")), ('["1", 2]', ("1", "2")), ("[null]", ()), ("[x, y]", ("[x, y]",))],
)
def test_any_list_in_a_text(text, accepted):
    assert AnyGold()(text).accepted == accepted


def test_an_interval_stays_one_where_it_may_be_one():
    assert AnyGold(in_text=False)("[0, 1]").accepted == ("[0, 1]",)
    assert AnyGold(in_text=False)(["[0, 1]"]).accepted == ("[0, 1]",)


def test_thousands_are_one_number():
    assert AllGold()(["$1,234$"]).accepted == ("1,234",)


@pytest.mark.parametrize(
    ("value", "answer"),
    [
        (["$69$,$84$"], "69, 84"),
        (["$(1,8,19), (2,7,13), (4,5,7)$"], "(1,8,19), (2,7,13), (4,5,7)"),
        (["$221,$8$"], "221, 8"),
        (["69", "84"], "69, 84"),
        (["$x$."], "x"),
        (r"$\{1,2\}$", r"\{1,2\}"),
        (["$1{,}000$"], "1{,}000"),
        ([r"\$5"], r"\$5"),
    ],
)
def test_all_of(value, answer):
    assert AllGold()(value).accepted == (answer,)


@pytest.mark.parametrize(
    ("answer", "split"),
    [
        ("3, 5, 7", ("3", "5", "7")),
        ("(1,2), [3,4)", ("(1,2)", "[3,4)")),
        (r"\left(1, 2\right), \{3, 4\}", (r"\left(1, 2\right)", r"\{3, 4\}")),
        (r"1\,000, 2", (r"1\,000", "2")),
        (r"\frac{1,5}{2}", (r"\frac{1,5}{2}",)),
        ("]0,1[", ("]0,1[",)),
        ("(1,2", ("(1,2",)),
        ("", ("",)),
    ],
)
def test_parts(answer, split):
    assert parts(answer) == split


@pytest.mark.parametrize(
    ("value", "accepted"),
    [
        ("004", ("4", "004")),
        ("1,234", ("1234", "1,234")),
        ("-3", ("-3",)),
        ("\N{MINUS SIGN}3", ("-3", "\N{MINUS SIGN}3")),
        ("142.0", ("142", "142.0")),
        (142.0, ("142",)),
        ("$5$", ("5",)),
        ("$1,000.50", ("1000.5", "$1,000.50")),
        ("-0.0", ("0", "-0.0")),
        ("9" * 60, ("9" * 60,)),
        ("", ()),
    ],
)
def test_a_number_in_its_shortest_form(value, accepted):
    assert NumberGold()(value).accepted == accepted


@pytest.mark.parametrize("value", ["x", "1/2", "1,23", "5 cm", "1e5", "\N{ARABIC-INDIC DIGIT FIVE}", "1 2"])
def test_not_a_number(value):
    with pytest.raises(ValueError, match="not a number"):
        NumberGold()(value)


@pytest.mark.parametrize(
    ("text", "box"),
    [
        (r"a \boxed{\frac{1}{2}} b", r"\frac{1}{2}"),
        (r"\boxed{1} and \boxed{2}", "2"),
        (r"\boxed{1} and \fbox{2}", "2"),
        (r"\boxed{a\}b}", r"a\}b"),
        (r"$\boxed 5$.", "5"),
        (r"\boxed {5}", "5"),
        (r"\boxed{}", ""),
        (r"\boxed{3", None),
        (r"\boxed", None),
        ("no box", None),
    ],
)
def test_last_box(text, box):
    assert last_box(text) == box


def test_a_solution_without_an_answer_says_why():
    assert BoxedGold()(r"\boxed{ }").reason == r"no filled \boxed in the solution"
    assert MarkedGold()("no marker").reason == "no '####' with an answer after it"
    assert MarkedGold()("#### 5\nmore").accepted == ("5",)
    assert MarkedGold("Answer:", NumberGold())("Answer: 1\nAnswer: 007").accepted == ("7", "007")
    with pytest.raises(ValueError, match="marker is empty"):
        MarkedGold("")


def test_letters():
    assert [LetterGold()(value).accepted for value in ("(B)", "b", "B.", "")] == [("B",), ("B",), ("B",), ()]
    with pytest.raises(ValueError, match="not the letter of an option"):
        LetterGold()("yes")


def test_units_without_latex():
    assert [unit_text(unit) for unit in ("$cm^2$", r"^{\circ}", "km/h", "%")] == ["cm^2", "degrees", "km/h", "%"]
