"""The table and the pictures of a study of two arms and two seeds, whose numbers are worked out by hand."""

import numpy as np
import pytest

from prerl_jax.analysis.curves import phase_spans
from prerl_jax.analysis.study_figures import COLOURS, STYLES, study_figure
from prerl_jax.analysis.study_markdown import flops_text, interval_text, markdown
from prerl_jax.analysis.study_table import study_table


def lines(accuracies, cost, warmup=0, every=2):
    """A run evaluated every two steps, with a given number of FLOPs in each step."""
    records = []
    for step in range(every * (len(accuracies) - 1) + 1):
        phase = "base" if step == 0 else "warmup" if step <= warmup else "rl"
        record = {"step": step, "phase": phase}
        if step:
            record |= {"train/flops": cost, "train/sampler_logprob": -0.1 * step, "train/length": 20.0}
        if step % every == 0:
            value = accuracies[step // every]
            record |= {"eval/avg@2": value, "eval/avg@2_stderr": 0.01, "eval/pass@1": value, "eval/pass@2": 1.0}
            record |= {"eval/reflections": 0.1 * step, "eval/length": 20.0}
        records.append(record)
    return records


ARMS = {
    "plain": {0: lines([0.2, 0.4, 0.6], 100.0), 1: lines([0.2, 0.5, 0.8], 100.0)},
    "warmed": {0: lines([0.2, 0.2, 0.7], 50.0, warmup=2), 1: lines([0.2, 0.4, 1.0], 50.0, warmup=2)},
    "unfinished": {},
}
HOW = {"accuracy": "eval/avg@2", "targets": (0.5, 0.7), "baselines": {"warmed": "plain"}}
T1 = 12.706204736432095


@pytest.fixture(scope="module")
def table():
    return study_table("tiny", ARMS, **HOW)


def test_the_end_of_an_arm(table):
    assert list(table["arms"]) == ["plain", "warmed"]
    row = table["arms"]["plain"]
    assert row["seeds"] == [0, 1]
    assert row["steps"]["mean"] == 4
    assert row["compute"]["mean"] == 400
    assert row["accuracy_by_seed"] == {"0": 0.6, "1": 0.8}
    end = row["end"]["eval/avg@2"]  # s / sqrt(2) = 0.1
    assert (end["mean"], end["low"], end["high"]) == pytest.approx((0.7, 0.7 - 0.1 * T1, 0.7 + 0.1 * T1))
    assert "eval/avg@2_stderr" not in row["end"]
    assert "against" not in row


def test_differences_at_equal_steps_and_at_equal_compute(table):
    against = table["arms"]["warmed"]["against"]
    assert against["baseline"] == "plain"
    assert against["equal_steps"]["mean"] == pytest.approx(0.15)  # 0.1 and 0.2
    assert against["equal_steps"]["high"] == pytest.approx(0.15 + 0.05 * T1)
    # 200 FLOPs: all of a warmed run, and step 2 of a plain one: 0.7 - 0.4 and 1.0 - 0.5
    assert against["equal_compute"]["mean"] == pytest.approx(0.4)
    assert against["end"]["eval/pass@2"]["mean"] == 0


def test_reaching_an_accuracy(table):
    plain, warmed = (table["arms"][arm] for arm in ("plain", "warmed"))
    assert plain["reach"]["0.5"]["steps"]["mean"] == pytest.approx(2.5)  # 3 and 2
    assert plain["reach"]["0.5"]["compute"]["mean"] == pytest.approx(250)
    assert plain["reach"]["0.7"] == {"reached": 1, "seeds": 2}
    assert warmed["reach"]["0.7"]["steps"]["mean"] == pytest.approx(3.5)  # 4 and 3
    assert warmed["against"]["reach"]["0.5"]["steps"]["mean"] == pytest.approx((3.2 - 3 + 2 + 1 / 3 - 2) / 2)
    assert list(warmed["against"]["reach"]) == ["0.5"]


def test_the_end_of_each_phase(table):
    phases = table["arms"]["warmed"]["phases"]
    assert {name: (end["step"]["mean"], end["accuracy"]["mean"]) for name, end in phases.items()} == {
        "base": (0, 0.2),
        "warmup": (2, pytest.approx(0.3)),
        "rl": (4, 0.85),
    }


def test_markdown(table):
    written = markdown(table)
    differences = "+0.150 [-0.485, +0.785] | +0.400 [-0.871, +1.671] | +0.000 [+0.000, +0.000] | +0.000"
    assert f"| warmed | plain | {differences}" in written
    assert "| arm | baseline | accuracy, equal steps | accuracy, equal compute | pass@2 | reflections |" in written
    assert "| plain | 2.5 [-3.9, 8.9] | 250 | 1 of 2 seeds | - |" in written
    assert "| warmed | warmup | 2 | 0.300 [-0.971, 1.571] |" in written
    assert all(line.count("|") == 10 for line in written.splitlines() if line.startswith("| arm | seeds"))


def test_watched_metrics_are_averaged_over_phases(table):
    assert "each phase\n\n| arm | phase | train" not in markdown(table)
    found = study_table("tiny", ARMS, **HOW, watched=("train/flops", "train/never"))
    assert found["arms"]["warmed"]["watched"]["train/flops"]["rl"]["mean"] == 50
    assert found["arms"]["warmed"]["watched"]["train/never"] == {}
    assert "| warmed | warmup | 50.000 [50.000, 50.000] | - |" in markdown(found)


def test_what_guards_did_stands_at_the_end(table):
    assert "Guards" not in markdown(table)
    said = {"warmed": {0: [], 1: ["warmup: ended by a guard at step 1"]}, "plain": {0: []}}
    guarded = study_table("tiny", ARMS, **HOW, guards=said)
    assert guarded["arms"]["plain"]["guards"] == {}
    assert guarded["arms"]["warmed"]["guards"] == {"1": ["warmup: ended by a guard at step 1"]}
    assert markdown(guarded).endswith("| warmed | 1 | warmup: ended by a guard at step 1 |\n")


@pytest.mark.parametrize(
    ("value", "expected"), [(0, "0"), (999, "999"), (12_345, "12.3 k"), (3.1e12, "3.1 T"), (5e21, "5 Z")]
)
def test_flops(value, expected):
    assert flops_text(value) == expected


def test_intervals_in_words():
    assert interval_text(None) == "-"
    assert interval_text({"mean": 0.5, "low": float("nan"), "high": float("nan"), "count": 1}) == "0.500"
    assert interval_text({"mean": 0.5, "low": 0.25, "high": 0.75, "count": 3}, 2, sign=True) == "+0.50 [+0.25, +0.75]"


def test_a_picture_shows_every_arm_against_steps_and_compute():
    arms = {name: runs for name, runs in ARMS.items() if runs}
    figure = study_figure(arms, "eval/avg@2", {"plain": 0, "warmed": len(COLOURS)})
    steps, compute, passed, entropy, *_ = figure.axes
    plain, warmed = (next(line for line in steps.lines if line.get_label() == name) for name in arms)
    assert plain.get_xdata().tolist() == [0, 2, 4]
    assert warmed.get_ydata() == pytest.approx([0.2, 0.3, 0.85])
    assert (plain.get_color(), plain.get_linestyle()) == (COLOURS[0], "-")
    assert warmed.get_color() == COLOURS[0]
    assert warmed.get_linestyle() != "-" == STYLES[0]
    assert compute.lines[0].get_xdata() == pytest.approx([0, 2e-7, 4e-7])
    assert [line.get_xdata()[0] for line in steps.lines if len(line.get_xdata()) == 2] == [2]  # where rl begins
    assert entropy.lines[0].get_ydata() == pytest.approx([0.1, 0.2, 0.3, 0.4])
    assert list(passed.get_xticks()) == [1, 2]
    assert phase_spans(ARMS["warmed"][0])[1] == ("rl", 2, 4)
    with pytest.raises(ValueError, match="unfinished"):
        study_figure(ARMS, "eval/avg@2")


def test_intervals_are_drawn_within_what_a_share_can_be():
    """Student's t of two seeds reaches far beyond [0, 1]."""
    arms = {name: runs for name, runs in ARMS.items() if runs}
    steps, compute, passed, entropy, *_ = study_figure(arms, "eval/avg@2").axes
    ends = [path.vertices[:, 1] for axes in (steps, compute) for path in axes.collections[1].get_paths()]
    ends += [np.array(segment)[:, 1] for segment in passed.containers[1].lines[2][0].get_segments()]
    assert {(end.min(), end.max()) for end in ends} == {(0.0, 1.0)} | {(1.0, 1.0)}
    assert entropy.collections[1].get_paths()[0].vertices[:, 1].max() > 0.39
