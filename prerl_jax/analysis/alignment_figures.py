"""Figures of token alignment: cosine and marginal gap by probability and position, and heat maps of responses.

The marginal gap of a token is log P(y_t|x, y_<t) - log P(y_t|y_<t): what the prompt adds to its log-probability. As in
`curves`, drawing uses `matplotlib.figure.Figure` alone.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import ArrayLike

from prerl_jax.alignment.buckets import Bucketed
from prerl_jax.analysis.curves import new_figure

INK, FAINT, BAR = "#333333", "#d9d9d9", "#dfe6ef"
LINES = {"post": "#2a7f62", "pre": "#d1495b", "position": "#2a7f62"}
LABELS = {
    "post": "P(y_t | x, y_<t) of the token",
    "pre": "P(y_t | y_<t) of the token",
    "position": "position in the response",
}


@dataclasses.dataclass(frozen=True)
class Quantity:
    """A quantity that `alignment_figure` shows, in one row of panels.

    Attributes:
      key: its name in the tables.
      label: the label of its axes.
      colours: the name of the colormap of its heat maps.
      signed: whether it may have either sign. If so, its heat maps are symmetric around 0; if not, it is at most 1.
    """

    key: str
    label: str
    colours: str
    signed: bool

    def limits(self, means: np.ndarray) -> tuple[float, float]:
        """The range to draw: it covers the means and 0, and 1 if the quantity is not signed.

        Args:
          means: f[n], the means that are drawn, finite.
        """
        return min(0.0, float(means.min())), max(1e-3 if self.signed else 1.0, float(means.max()))


QUANTITIES = (
    Quantity("cosine", "cosine of the gradients", "viridis", signed=False),
    Quantity("marginal_gap", "log P(y|x) - log P(y), nats a token", "RdBu", signed=True),
)
WIDTH, FONT = 96, 9
"""The width of a heat map's lines, in characters, and its font size, in points."""
SPACING = 1.75
"""The distance between a heat map's lines, in font sizes."""


def alignment_figure(tables: Mapping[str, Bucketed], names: Mapping[str, Sequence[str]], title: str = "") -> Figure:
    """Draws the cosine and the marginal gap by the probability of the tokens in both spaces and by their position.

    Args:
      tables: the tables "cosine" and "marginal_gap" of `alignment.buckets.bucketed`, on the host.
      names: axis -> the names of its buckets, as from `Buckets.names`.
      title: the title of the figure.

    Returns:
      A figure with a row of panels for each quantity.

    Raises:
      ValueError: no bucket has a token.
    """
    positions = np.flatnonzero(tables["cosine"].count("position"))
    if not positions.size:
        raise ValueError("there is nothing to draw: no bucket has a token")
    last = int(positions[-1]) + 1  # later positions, which no response reached, are left out
    names = {**names, "position": names["position"][:last]}
    picture = new_figure(19.5, 8, padding=0.12)
    picture.suptitle(title, fontsize=12, color=INK, x=0.01, ha="left", parse_math=False)
    for row, quantity in enumerate(QUANTITIES):
        table = tables[quantity.key]
        panels = [picture.add_subplot(2, 4, 4 * row + column + 1) for column in range(4)]
        _draw_means(panels[0], names["post"], table, ("post", "pre"), quantity)
        _draw_means(panels[1], names["position"], table, ("position",), quantity)
        _draw_map(picture, panels[2], names, table, ("post", "position"), quantity)
        _draw_map(picture, panels[3], names, table, ("post", "pre"), quantity)
    return picture


def gap_heat_map(tokens: Sequence[str], gaps: ArrayLike, title: str = "") -> Figure:
    """Draws the text of a response, each token coloured by its marginal gap.

    Tokens that are more likely with the prompt are blue, those that are less likely are red.

    Args:
      tokens: the text of each of T tokens; a line break begins a new line.
      gaps: f[T], the marginal gaps, finite.
      title: the text above the map; it may have several lines.

    Raises:
      ValueError: there is no token, or the number of gaps differs from that of tokens.
    """
    values = np.asarray(gaps, np.float64)
    if not len(tokens) or values.shape != (len(tokens),):
        raise ValueError(f"a heat map needs a gap for every token: {values.shape} gaps, {len(tokens)} tokens")
    limit = max(float(np.quantile(np.abs(values), 0.98)), 1e-3)  # a few extreme values must not make all others pale
    scale = ScalarMappable(Normalize(-limit, limit), colormaps["RdBu"])
    boxes, lines = lay_out(tokens)
    char, line = 0.602 * FONT / 72, SPACING * FONT / 72  # inches
    above = 0.2 + 0.17 * len(title.splitlines())
    width, height = WIDTH * char + 0.5, lines * line + above + 0.75
    picture = Figure(figsize=(width, height))
    axes = picture.add_axes((0.25 / width, 0.7 / height, WIDTH * char / width, lines * line / height))
    axes.set(xlim=(0, WIDTH), ylim=(lines, 0))
    axes.axis("off")
    for (text, x, y, size), gap in zip(boxes, values, strict=True):
        colour = scale.cmap(scale.norm(gap))
        axes.add_patch(Rectangle((x, y + 0.04), size, 0.92, facecolor=colour, edgecolor="white", linewidth=0.6))
        place: dict[str, Any] = {"family": "monospace", "fontsize": FONT, "va": "center", "parse_math": False}
        axes.text(x, y + 0.5, text, color=_ink(colour), **place)
    picture.text(0.25 / width, 1 - 0.1 / height, title, fontsize=9, color=INK, va="top", parse_math=False)
    bar = picture.add_axes((0.25 / width, 0.45 / height, min(4.0, width - 0.5) / width, 0.12 / height))
    picture.colorbar(scale, cax=bar, orientation="horizontal", extend="both")
    bar.tick_params(labelsize=8, labelcolor=INK)
    bar.set_xlabel("log P(y_t | x, y_<t) - log P(y_t | y_<t), nats", fontsize=8, color=INK)
    return picture


def lay_out(tokens: Sequence[str], width: int = WIDTH) -> tuple[list[tuple[str, int, int, int]], int]:
    """Arranges tokens in lines. A token that does not fit into a line begins the next one.

    Line breaks and tabs are shown as arrows, other characters that cannot be printed as dots. A token that is longer
    than a line is cut.

    Args:
      tokens: the text of each token.
      width: characters of a line.

    Returns:
      ([(shown text, column, line, characters) of each token], the number of lines).
    """
    boxes: list[tuple[str, int, int, int]] = []
    x, y = 0, 0
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
    """Draws the means by each axis of `by` as lines, and the share of tokens by the first axis as bars behind them."""
    places = np.arange(len(names))
    shares = np.asarray(table.count(by[0]))[: len(names)]
    behind = axes.twinx()
    behind.bar(places, shares / shares.sum(), color=BAR, width=0.8)
    behind.set_ylim(0, 1)
    behind.set_ylabel("share of tokens (bars)", fontsize=8, color="#8899aa")
    behind.tick_params(labelsize=8, labelcolor="#8899aa", color=FAINT)
    axes.set_zorder(behind.get_zorder() + 1)
    axes.patch.set_visible(False)
    drawn: list[float] = []
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
    picture: Figure,
    axes: Axes,
    names: Mapping[str, Sequence[str]],
    table: Bucketed,
    by: tuple[str, str],
    quantity: Quantity,
) -> None:
    """Draws the means by both axes as a heat map, with the number in each cell; empty cells stay white."""
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


def _ink(colour: tuple[float, ...] | np.ndarray) -> str:
    """The colour of text that is legible on this colour."""
    return "white" if np.dot(colour[:3], (0.3, 0.6, 0.1)) < 0.5 else INK
