"""curves.png: which panels, lines and boundaries a set of records gives."""

import subprocess
import sys

import pytest

from prerl_jax.analysis import curves

ALL = {
    "train/accuracy": 0.5,
    "train/reward": 0.5,
    "train/length": 30.0,
    "train/entropy": 0.3,
    "alignment/objective": 0.9,
    "alignment/logprob": 0.2,
    "eval/avg@8": 0.5,
    "eval/avg@8_stderr": 0.02,
    "eval/pass@8": 0.9,
    "eval/reflections": 0.4,
}


def run(metrics=ALL, warmup=2, total=5):
    evaluation = {name: value for name, value in ALL.items() if name.startswith("eval/")}
    steps = [{"step": n, "phase": "nsr_prerl" if n <= warmup else "rl", **metrics} for n in range(1, total + 1)]
    return [{"step": 0, "phase": "base", **evaluation}, *steps]


def titles(figure):
    return [axes.get_title(loc="left") for axes in figure.axes]


def names_above(axes):
    return [text.get_text() for text in axes.texts]


def test_every_panel_with_its_lines_and_boundaries():
    figure = curves.figure(run())
    assert titles(figure) == [title for title, _, _ in curves.PANELS]
    accuracy, reward, *_, alignment = figure.axes
    assert [text.get_text() for text in accuracy.get_legend().get_texts()] == ["training samples", "evaluation, avg@8"]
    assert len(alignment.get_legend().get_texts()) == 2
    assert reward.get_legend() is None
    evaluation = next(line for line in accuracy.lines if "avg@8" in line.get_label())
    assert list(evaluation.get_xdata()) == [0, 1, 2, 3, 4, 5]  # the base model stands at step 0
    for axes in figure.axes:
        dashed = [line for line in axes.lines if line.is_dashed()]
        assert [line.get_xdata()[0] for line in dashed] == [2]
        assert names_above(axes) == ["nsr_prerl", "rl"]


def test_panels_without_metrics_are_left_out():
    metrics = {"train/reward": 0.5, "train/entropy": float("nan"), "train/length": None, "alignment/objective": 0.9}
    figure = curves.figure([record for record in run(metrics) if record["step"] > 0])
    assert titles(figure) == ["Reward", "Gradient alignment of P(y) and P(y|x)"]
    assert all(axes.get_legend() is None for axes in figure.axes)


def test_the_evaluation_alone_can_be_drawn():
    assert titles(curves.figure(run()[:1])) == ["Accuracy", "Reflections"]


@pytest.mark.parametrize(
    ("phases", "expected"),
    [
        (["base", "a", "a"], [("a", 0, 2)]),
        (["a", "a", "b", "b"], [("a", 0, 1), ("b", 1, 3)]),
        (["base", "a", "b", "a"], [("a", 0, 1), ("b", 1, 2), ("a", 2, 3)]),
        (["base"], []),
    ],
)
def test_phase_spans(phases, expected):
    assert curves.phase_spans([{"step": n, "phase": phase} for n, phase in enumerate(phases)]) == expected


def test_names_of_short_phases_do_not_overlap():
    figure = curves.figure(run(warmup=20, total=400))
    figure.canvas.draw()
    boxes = [text.get_window_extent() for text in figure.axes[0].texts]
    assert len(boxes) == 2
    assert not boxes[0].overlaps(boxes[1])


def test_draws_a_picture(tmp_path):
    curves.draw(run(), tmp_path / "curves.png")
    png = (tmp_path / "curves.png").read_bytes()
    assert png.startswith(b"\x89PNG")
    assert len(png) > 20_000


def test_refuses_when_there_is_nothing_to_draw(tmp_path):
    with pytest.raises(ValueError, match="none of the 1 records has any of train/accuracy"):
        curves.draw([{"step": 1, "phase": "rl", "time/sample": 1.0}], tmp_path / "curves.png")
    assert not (tmp_path / "curves.png").exists()


def test_pyplot_is_never_imported(tmp_path):
    program = (
        "import sys; from prerl_jax.analysis import alignment_figures, curves, study_figures;"
        f"curves.draw([{{'step': 1, 'phase': 'rl', 'train/reward': 1.0}}], {str(tmp_path / 'c.png')!r});"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
