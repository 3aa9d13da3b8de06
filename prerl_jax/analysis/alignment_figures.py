"""Pictures of token alignment: the cosine by confidence and by place in the response, and what the prompt adds.

`matplotlib.figure.Figure` alone is used, so drawing neither picks a backend nor touches pyplot's global state.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from prerl_jax.alignment.buckets import Bucketed

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, FAINT, BAR = "#333333", "#d9d9d9", "#dfe6ef"
LINES = {"post": "#2a7f62", "pre": "#d1495b", "position": "#2a7f62"}
LABELS = {
    "post": "P(y_t | x, y_<t) of the token",
    "pre": "P(y_t | y_<t) of the token",
    "position": "place in the response",
}


@dataclasses.dataclass(frozen=True)
class Quantity:
    """What a row of `alignment_figure` shows."""

    key: str
    label: str
    colours: str
    """A colormap."""
    signed: bool
    """Whether it is seen against 0 on both sides; otherwise against 1."""

    def limits(self, means: np.ndarray) -> tuple[float, float]:
        """The range that is drawn: that of the means, and 0, and, where 1 is the most, 1."""
        return min(0.0, float(means.min())), max(1e-3 if self.signed else 1.0, float(means.max()))


QUANTITIES = (
    Quantity("cosine", "cosine of the gradients", "viridis", signed=False),
    Quantity("marginal_gap", "log P(y|x) - log P(y), nats a token", "RdBu", signed=True),
)
WIDTH, FONT = 96, 9
"""Of a heat map's lines: characters, and points."""
SPACING = 1.75
"""Of a heat map's lines, in font sizes."""


def alignment_figure(tables: Mapping[str, Bucketed], names: Mapping[str, Sequence[str]], title: str = "") -> Figure:
    """Two rows, cosine and marginal gap, by the tokens' probabilities with and without the prompt and by position.

    Args:
      tables: "cosine" and "marginal_gap", each as `core.token_buckets.bucketed` makes it, on the host.
      names: of the buckets, as `Buckets.names` has them.
      title: of the whole picture.

    Raises ValueError where no bucket has a token.
    """
    from matplotlib.figure import Figure

    positions = np.flatnonzero(tables["cosine"].count("position"))
    if not positions.size:
        raise ValueError("there is nothing to draw: no bucket has a token")
    last = int(positions[-1]) + 1  # what no response reached is left out
    names = {**names, "position": names["position"][:last]}
    picture = Figure(figsize=(19.5, 8), layout="constrained")
    picture.get_layout_engine().set(w_pad=0.12, h_pad=0.12)
    picture.suptitle(title, fontsize=12, color=INK, x=0.01, ha="left", parse_math=False)
    for row, quantity in enumerate(QUANTITIES):
        table = tables[quantity.key]
        panels = [picture.add_subplot(2, 4, 4 * row + column + 1) for column in range(4)]
        _draw_means(panels[0], names["post"], table, ("post", "pre"), quantity)
        _draw_means(panels[1], names["position"], table, ("position",), quantity)
        _draw_map(picture, panels[2], names, table, ("post", "position"), quantity)
        _draw_map(picture, panels[3], names, table, ("post", "pre"), quantity)
    return picture


def gap_heat_map(tokens: Sequence[str], gaps: Sequence[float], title: str = "") -> Figure:
    """A response's text, each token on the colour of what the prompt adds to it: blue, likelier with it; red, less so.

    Args:
      tokens: the text of each token; a line break begins a new line.
      gaps: log P(y_t|x, ..) - log P(y_t|..), f[tokens], finite.
      title: what stands above it, several lines if it has them.

    Raises ValueError where there is no token, or not one gap a token.
    """
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    gaps = np.asarray(gaps, np.float64)
    if not len(tokens) or gaps.shape != (len(tokens),):
        raise ValueError(f"a heat map needs a gap for every token: {gaps.shape} gaps, {len(tokens)} tokens")
    limit = max(float(np.quantile(np.abs(gaps), 0.98)), 1e-3)  # a few extremes must not fade all the others
    scale = ScalarMappable(Normalize(-limit, limit), colormaps["RdBu"])
    boxes, lines = lay_out(tokens)
    char, line = 0.602 * FONT / 72, SPACING * FONT / 72  # inches
    above = 0.2 + 0.17 * len(title.splitlines())
    width, height = WIDTH * char + 0.5, lines * line + above + 0.75
    picture = Figure(figsize=(width, height))
    axes = picture.add_axes([0.25 / width, 0.7 / height, WIDTH * char / width, lines * line / height])
    axes.set(xlim=(0, WIDTH), ylim=(lines, 0))
    axes.axis("off")
    for (text, x, y, size), gap in zip(boxes, gaps, strict=True):
        colour = scale.to_rgba(gap)
        axes.add_patch(Rectangle((x, y + 0.04), size, 0.92, facecolor=colour, edgecolor="white", linewidth=0.6))
        place = {"family": "monospace", "fontsize": FONT, "va": "center", "parse_math": False}
        axes.text(x, y + 0.5, text, color=_ink(colour), **place)
    picture.text(0.25 / width, 1 - 0.1 / height, title, fontsize=9, color=INK, va="top", parse_math=False)
    bar = picture.add_axes([0.25 / width, 0.45 / height, min(4.0, width - 0.5) / width, 0.12 / height])
    picture.colorbar(scale, cax=bar, orientation="horizontal", extend="both")
    bar.tick_params(labelsize=8, labelcolor=INK)
    bar.set_xlabel("log P(y_t | x, y_<t) - log P(y_t | y_<t), nats", fontsize=8, color=INK)
    return picture


def lay_out(tokens: Sequence[str], width: int = WIDTH) -> tuple[list[tuple[str, int, int, int]], int]:
    """([(what is shown, column, line, characters) of each token], lines): text as it flows, cut at `width` characters.

    A line break is shown as an arrow, a tab as another, what cannot be shown as a dot.
    """
    boxes, x, y = [], 0, 0
    for token in tokens:
        shown = "".join({"\n": "↵", "\t": "→"}.get(c, c if c.isprintable() else "·") for c in token)
        shown = (shown if len(shown) <= width else shown[: width - 1] + "…") or "·"
        if x and x + len(shown) > width:
            x, y = 0, y + 1
        boxes.append((shown, x, y, len(shown)))
        x += len(shown)
        if "\n" in token:
            x, y = 0, y + 1
    return boxes, y + 1 if x else y


def _draw_means(axes: Axes, names: Sequence[str], table: Bucketed, by: tuple[str, ...], quantity: Quantity) -> None:
    """A line of means for each of `by`, and behind them the share of tokens in the buckets of the first as bars."""
    places = np.arange(len(names))
    shares = np.asarray(table.count(by[0]))[: len(names)]
    behind = axes.twinx()
    behind.bar(places, shares / shares.sum(), color=BAR, width=0.8)
    behind.set_ylim(0, 1)
    behind.set_ylabel("share of tokens (bars)", fontsize=8, color="#8899aa")
    behind.tick_params(labelsize=8, labelcolor="#8899aa", color=FAINT)
    axes.set_zorder(behind.get_zorder() + 1)
    axes.patch.set_visible(False)
    drawn = []
    for axis in by:
        means, there = (np.asarray(x)[: len(names)] for x in (table.mean(axis), table.count(axis) > 0))
        axes.plot(places[there], means[there], color=LINES[axis], label=LABELS[axis], marker="o", markersize=5)
        drawn.extend(means[there])
    if len(by) > 1:
        axes.legend(fontsize=8, frameon=False)
    axes.set_xticks(places, names, rotation=45, ha="right")
    axes.set_xlabel(LABELS[by[0]] if len(by) == 1 else "probability of the token", fontsize=9, color=INK)
    axes.set_ylabel(quantity.label, fontsize=9, color=INK)
    low, high = quantity.limits(np.asarray(drawn))
    axes.set_ylim(low - 0.05 * (high - low) * (low < 0), high + 0.05 * (high - low))
    axes.grid(axis="y", color=FAINT, linewidth=0.6)
    axes.tick_params(labelsize=8, color="#999999", labelcolor=INK)
    for one in (axes, behind):
        one.spines[:].set_visible(False)
    axes.spines["bottom"].set_visible(True)


def _draw_map(
    picture: Figure, axes: Axes, names: Mapping[str, Sequence[str]], table: Bucketed, by: tuple, quantity: Quantity
) -> None:
    """Means by both axes, the number in each cell; empty cells stay white."""
    rows, columns = (names[axis] for axis in by)
    means = np.asarray(table.mean(*by))[: len(rows), : len(columns)]
    low, high = quantity.limits(means[np.isfinite(means)])
    if quantity.signed:
        low, high = -max(-low, high), max(-low, high)
    image = axes.imshow(
        np.ma.masked_invalid(means), cmap=quantity.colours, vmin=low, vmax=high, origin="lower", aspect="auto"
    )
    for k, n in itertools.product(range(len(rows)), range(len(columns))):
        if np.isfinite(means[k, n]):
            ink = _ink(image.cmap(image.norm(means[k, n])))
            axes.text(n, k, f"{means[k, n]:z.2f}", ha="center", va="center", fontsize=7, color=ink)
    axes.set_xticks(range(len(columns)), columns, rotation=45, ha="right")
    axes.set_yticks(range(len(rows)), rows)
    axes.set_ylabel(LABELS[by[0]], fontsize=9, color=INK)
    axes.set_xlabel(LABELS[by[1]], fontsize=9, color=INK)
    axes.tick_params(labelsize=8, color="#999999", labelcolor=INK)
    axes.spines[:].set_visible(False)
    picture.colorbar(image, ax=axes, fraction=0.05, pad=0.02).ax.tick_params(labelsize=8)


def _ink(colour: tuple[float, ...]) -> str:
    """What can be read on a colour."""
    return "white" if np.dot(colour[:3], (0.3, 0.6, 0.1)) < 0.5 else INK
