"""Guards: when their conditions hold, for how long, and which guards are refused."""

import math

import pytest

import prerl_jax as pj

NAN = math.nan
CONDITIONS = [
    # condition, measurements, whether it holds after each of them
    (pj.Below(0.5), [0.6, 0.5, 0.4, 0.7, NAN], "00100"),
    (pj.Above(2.0), [2.0, 2.1, NAN, math.inf, 1.0], "01010"),
    (pj.FellBy(0.1), [0.5, 0.41, 0.39, 0.6, 0.0], "00101"),
    (pj.RoseBy(0.1), [0.5, 0.59, 0.61, 0.5, 0.7], "00101"),
    (pj.FellBy(0.0), [0.5, 0.5, 0.499], "001"),
    (pj.FellToRatio(0.5), [8.0, 4.0, 3.9, 8.0], "0010"),
    (pj.RoseToRatio(2.0), [8.0, 16.0, 16.1, 8.0], "0010"),
    (pj.FellBy(0.1), [NAN, 0.5, 0.45, 0.3, NAN], "00010"),
    (pj.RoseBy(0.1), [NAN, NAN, 0.5, 0.55, 0.7], "00001"),
    (pj.FellToRatio(0.5), [NAN, 8.0, 4.0, 3.9], "0001"),
    (pj.RoseToRatio(2.0), [NAN, 8.0, 16.0, 16.1], "0001"),
    (pj.Plateau(2), [1.0, 2.0, 2.0, 2.0, 3.0, 2.5, 2.9, 0.9], "00010010"),
    (pj.Plateau(1, 0.5), [1.0, 1.5, 2.1, 1.0, 0.5, -0.1], "010110"),
    (pj.Plateau(2), [1.0, 0.0, 0.5, 0.5], "0001"),
    (pj.Plateau(2), [1.0, 2.0, NAN, NAN], "0000"),
    (pj.Plateau(1), [NAN, 1.0, 1.0, NAN], "0010"),
]


@pytest.mark.parametrize(("condition", "values", "expected"), CONDITIONS)
def test_conditions(condition, values, expected):
    assert "".join(str(int(condition(values[: n + 1]))) for n in range(len(values))) == expected


def test_how_long_a_condition_has_held():
    guard = pj.Guard("train/entropy", pj.Above(1.0))
    values = [2.0, 0.5, 1.5, 1.6, 1.7, 0.9]
    assert [guard.held(values[:n]) for n in range(7)] == [0, 1, 0, 1, 2, 3, 0]


@pytest.mark.parametrize(
    ("build", "says"),
    [
        (lambda: pj.Guard("time/step", pj.Above(1.0)), "watches 'time/step'; .*depends on time"),
        (lambda: pj.Guard("entropy", pj.Above(1.0)), "watches 'entropy'"),
        (lambda: pj.Guard("train/entropy", pj.Above(1.0), patience=0), "a patience of 0"),
        (lambda: pj.Above(NAN), "Above.value is nan"),
        (lambda: pj.FellToRatio(0.0), "FellToRatio.ratio is 0.0; it must be above 0"),
        (lambda: pj.Plateau(0), "Plateau.patience is 0"),
        (lambda: pj.Plateau(2, -0.1), "Plateau.min_delta is -0.1"),
        (lambda: pj.RollBack(-1), "RollBack.every is -1"),
    ],
)
def test_guards_that_make_no_sense_are_refused(build, says):
    with pytest.raises(ValueError, match=says):
        build()


def test_the_text_of_a_guard():
    assert str(pj.Guard("train/entropy", pj.Above(2.0))) == "train/entropy above 2.0"
    assert str(pj.Guard("eval/pass@8", pj.Plateau(3, 0.01))) == "eval/pass@8 plateau 3 0.01"
