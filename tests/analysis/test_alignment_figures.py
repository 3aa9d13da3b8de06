"""Pictures of token alignment: what is drawn, where text flows, and what is refused."""

import io

import numpy as np
import pytest

from prerl_jax.alignment.buckets import Bucketed, Buckets
from prerl_jax.analysis.alignment_figures import alignment_figure, gap_heat_map, lay_out

BUCKETS = Buckets(probability=(0.5,), position=(1, 2, 4))
NAMES = BUCKETS.names(8)
TOKENS = np.array([[[1, 0, 2, 0], [0, 0, 0, 0]], [[0, 3, 0, 0], [0, 0, 4, 0]]])  # by P(y|x), P(y) and position


def tables(cosine=0.5, gap=-0.25):
    return {name: Bucketed(TOKENS * value, TOKENS) for name, value in (("cosine", cosine), ("marginal_gap", gap))}


def drawn(figure):
    figure.savefig(file := io.BytesIO(), dpi=40)
    return file.getvalue()


def test_means_and_maps_of_both_quantities():
    figure = alignment_figure(tables(), NAMES, "a run")
    panels = [axes for axes in figure.axes if axes.get_xlabel()]
    assert len(panels) == 8
    probability, position, by_place, by_both = panels[:4]
    assert [line.get_label() for line in probability.lines] == [
        "P(y_t | x, y_<t) of the token",
        "P(y_t | y_<t) of the token",
    ]
    assert [text.get_text() for text in probability.get_xticklabels()] == ["0-0.5", "0.5-1"]
    assert list(position.lines[0].get_xdata()) == [0, 1, 2]  # nothing reached 4-7
    assert list(position.lines[0].get_ydata()) == [0.5, 0.5, 0.5]
    assert [text.get_text() for text in by_place.get_xticklabels()] == ["0", "1", "2-3"]
    assert len(by_place.texts) == 4  # cells with a token
    assert len(by_both.texts) == 3
    assert {text.get_text() for text in panels[6].texts} == {"-0.25"}
    assert drawn(figure).startswith(b"\x89PNG")


def test_refuses_when_no_bucket_has_a_token():
    empty = Bucketed(TOKENS * 0.0, TOKENS * 0)
    with pytest.raises(ValueError, match="no bucket has a token"):
        alignment_figure({"cosine": empty, "marginal_gap": empty}, NAMES)


@pytest.mark.parametrize(
    ("tokens", "boxes", "lines"),
    [
        (["ab", " c"], [("ab", 0, 0, 2), (" c", 2, 0, 2)], 1),
        (["abcd", "ef"], [("abcd", 0, 0, 4), ("ef", 0, 1, 2)], 2),
        (["a\n", "b"], [("a↵", 0, 0, 2), ("b", 0, 1, 1)], 2),
        (["a", "\n"], [("a", 0, 0, 1), ("↵", 1, 0, 1)], 1),
        (["abcdefg"], [("abcd…", 0, 0, 5)], 1),
        (["", "\x00", "\t"], [("·", 0, 0, 1), ("·", 1, 0, 1), ("→", 2, 0, 1)], 1),
    ],
)
def test_text_flows(tokens, boxes, lines):
    assert lay_out(tokens, width=5) == (boxes, lines)


def test_heat_map_of_any_text():
    tokens = ["Cost", " $", "5", "^", "{2", "_\n", "$x", "wait", "\n", "</s>"]
    figure = gap_heat_map(tokens, np.linspace(-3, 3, len(tokens)), "a $ in _the_ ^title\nsecond line")
    axes = figure.axes[0]
    assert [text.get_text() for text in axes.texts] == ["Cost", " $", "5", "^", "{2", "_↵", "$x", "wait", "↵", "</s>"]
    first, last = axes.patches[0].get_facecolor(), axes.patches[-1].get_facecolor()
    assert first[0] > 2 * first[2]  # red: less likely with the prompt
    assert last[2] > 2 * last[0]  # blue: likelier
    assert drawn(figure).startswith(b"\x89PNG")
    assert drawn(gap_heat_map(["a"], [0.0])).startswith(b"\x89PNG")


@pytest.mark.parametrize(("tokens", "gaps"), [([], []), (["a"], [1.0, 2.0])])
def test_heat_map_needs_a_gap_for_every_token(tokens, gaps):
    with pytest.raises(ValueError, match="a gap for every token"):
        gap_heat_map(tokens, gaps)
