"""Curves: their styles, means over seeds, labels at their ends, and axes of student steps and epochs.

Curves differ in colour and marker, from the seventh on in dash too, so that they can be told apart without colour.
Each is labelled at its end; if there are several, a line leads to each label. Long names are wrapped, and labels that
would overlap are moved apart.
"""

import math
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from statistics import fmean
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator
from matplotlib.transforms import ScaledTranslation
from numpy.typing import NDArray

from lra.benchmarks.reports.drawing import PALETTE, ROUND, clean
from lra.metrics.quantities import ANY, Bounds

Number = float | None
Curve = tuple[Sequence[Number], Sequence[Number]]

LINE = 11.5
"""Height of a line of a label, in points."""
MOST_LINES = 5
WIDTH = 26
"""Most characters in a line of a label."""
FEW = 4
"""Fewest points for which a zoom is drawn."""
DASHES: tuple[Any, ...] = ("solid", (0, (5, 1.6)), (0, (1.2, 1.3)), (0, (7, 1.6, 1.2, 1.6)))
MARKERS = ("o", "s", "^", "D", "v", "P", "X")


class Style(NamedTuple):
    """How one of several curves is drawn."""

    colour: str
    dash: Any = "solid"
    marker: str = ""


STYLES = len(PALETTE) * len(DASHES)
"""Number of styles that differ in colour or dash."""


def style(index: int) -> Style:
    """The style of the ``index``-th curve: up to `STYLES` differ in colour or dash, and neighbours in the marker."""
    rounds, place = divmod(index, len(PALETTE))
    return Style(PALETTE[place], DASHES[rounds % len(DASHES)], MARKERS[index % len(MARKERS)])


@dataclass(frozen=True)
class Series:
    """One curve: `y` against `x` (student steps).

    Attributes:
        low, high: edges of a band around it.
        seeds: the curves it is the mean of, at the same `x`; drawn if they are too few for a band.
        place: index of its style; by default its position among the curves drawn with it.
    """

    label: str
    x: Sequence[Number]
    y: Sequence[Number]
    low: Sequence[Number] | None = None
    high: Sequence[Number] | None = None
    seeds: Sequence[Sequence[Number]] = ()
    place: int | None = None

    def since(self, step: float) -> "Series":
        """The part from ``step`` on."""
        kept = [place for place, x in enumerate(self.x) if x is not None and x >= step]

        def of(values: Sequence[Number]) -> list[Number]:
            return [values[place] for place in kept]

        low, high = (None if edge is None else of(edge) for edge in (self.low, self.high))
        return Series(self.label, of(self.x), of(self.y), low, high, [of(seed) for seed in self.seeds], self.place)


def band(label: str, runs: Sequence[Curve], within: Bounds = ANY, place: int | None = None) -> Series:
    """The mean curve of several runs, at the steps that all of them have.

    It has its 95 % interval as a band, which stays ``within`` what is possible; fewer than `FEWEST` runs are kept as
    ``seeds`` instead.
    """
    # Imports scipy, which takes a second; figures of one run do without it.
    from lra.benchmarks.comparison.estimates import FEWEST, interval

    curves = [{x: y for x, y in zip(xs, ys, strict=True) if x is not None and y is not None} for xs, ys in runs]
    curves = [curve for curve in curves if curve]
    steps = sorted(set.intersection(*map(set, curves))) if curves else []
    table = np.array([[curve[step] for curve in curves] for step in steps], dtype=np.float64)
    means = [float(values.mean()) for values in table]
    if len(curves) < FEWEST:
        return Series(label, list(steps), means, seeds=table.T.tolist() if len(curves) > 1 else (), place=place)
    bounds = [interval(values, within)[:2] for values in table]
    return Series(label, list(steps), means, [low for low, _ in bounds], [high for _, high in bounds], place=place)


def second_half(series: Sequence[Series], few: int = FEW) -> list[Series]:
    """Each curve from half of the last step on; none if no curve has ``few`` points there."""
    last = max((x for one in series for x in one.x if x is not None), default=0.0)
    later = [one.since(last / 2) for one in series]
    return later if max((len(one.x) for one in later), default=0) >= few else []


def floats(values: Sequence[Number]) -> NDArray[np.float64]:
    """Numbers as an array, with NaN for those that are missing or infinite."""
    array = np.array([math.nan if v is None else v for v in values], dtype=float)
    array[~np.isfinite(array)] = math.nan
    return array


class End(NamedTuple):
    """A label to the right of the axes, at the height of a value."""

    value: float
    text: str
    style: Style

    @property
    def lines(self) -> int:
        """Number of lines."""
        return self.text.count("\n") + 1


def wrapped(text: object, width: int = WIDTH) -> str:
    """A user's string as a label of at most `MOST_LINES` lines, cut if it is longer."""
    return "\n".join(textwrap.wrap(clean(text, MOST_LINES * width), width)[:MOST_LINES])


def curves(
    ax: Any, series: Sequence[Series], *, pattern: str = "{:.1f}", named: bool = True, since_start: bool = True
) -> list[End]:
    """Draw ``series``; return their labels, of name and last value, for `label_ends`.

    Args:
        ax: the axes.
        series: what to draw.
        pattern: format of the value; "" leaves it out.
        named: whether labels include the name.
        since_start: whether the step axis starts at 0, as a run does.
    """
    ends = []
    if since_start:
        ax.update_datalim([(0, 0)], updatey=False)
    for index, one in enumerate(series):
        own = style(index if one.place is None else one.place)
        x, y = floats(one.x), floats(one.y)
        count = int(np.isfinite(y).sum())
        every = max(1, math.ceil(count / 12))
        ax.plot(
            x,
            y,
            color=own.colour,
            linestyle=own.dash,
            linewidth=0.8 if count > 500 else 1.5,
            marker=own.marker,
            markersize=3.4 if len(series) > 1 else 2.6,
            markevery=((index * every) // max(1, len(series)), every),
        )
        for seed in one.seeds:
            ax.plot(x, floats(seed), color=own.colour, linestyle=own.dash, linewidth=0.6, alpha=0.5)
        if one.low is not None and one.high is not None:
            ax.fill_between(x, floats(one.low), floats(one.high), color=own.colour, alpha=0.16, linewidth=0)
        if count:
            last = y[np.isfinite(y)][-1]
            value = pattern.format(last).replace("-", "−")
            ends.append(End(last, wrapped(f"{one.label} {value}" if named else value), own))
    step_axis(ax.xaxis)
    return ends


def lines(ends: Iterable[End]) -> int:
    """Number of lines of all labels."""
    return sum(end.lines for end in ends)


def label_ends(figure: Figure, *labels: tuple[Any, Sequence[End]]) -> None:
    """Write labels to the right of their axes, near their values' heights without overlap, once all else is drawn."""
    figure.draw_without_rendering()  # so that heights are known; labels do not change them
    for ax, ends in labels:
        height = ax.get_window_extent().height * 72 / figure.dpi
        ordered = sorted(ends, key=lambda end: end.value)
        place = ax.transData + ax.transAxes.inverted()
        at = [min(1.0, max(0.0, float(place.transform((1, end.value))[1]))) for end in ordered]
        sizes = [end.lines * LINE / height for end in ordered]
        told_apart = len(ends) > 1
        for end, true, y in zip(ordered, at, _apart(at, sizes), strict=True):
            colour = end.style.colour
            leader = {"arrowstyle": "-", "color": colour, "linestyle": end.style.dash, "linewidth": 0.9}
            ax.annotate(
                end.text,
                (1, true),
                (26 if told_apart else 5, (y - true) * height),
                xycoords="axes fraction",
                textcoords="offset points",
                color=colour,
                va="center",
                fontsize=9,
                linespacing=1.1,
                annotation_clip=False,
                arrowprops=leader | {"shrinkA": 7, "shrinkB": 2, "relpos": (0, 0.5)} if told_apart else None,
            )
            if told_apart and end.style.marker:
                beside = ax.transAxes + ScaledTranslation(20 / 72, 0, figure.dpi_scale_trans)
                ax.plot([1], [y], marker=end.style.marker, markersize=4, color=colour, transform=beside, clip_on=False)


def _apart(heights: Sequence[float], sizes: Sequence[float]) -> list[float]:
    """Ascending ``heights``, moved as little as possible (least squares) so that labels of these sizes do not overlap.

    They stay in [0, 1] as long as there is room.
    """
    if not heights:
        return []
    offsets = [0.0, *accumulate((one + other) / 2 for one, other in pairwise(sizes))]
    blocks: list[list[float]] = []
    for height, offset in zip(heights, offsets, strict=True):
        blocks.append([height - offset])
        while len(blocks) > 1 and fmean(blocks[-2]) > fmean(blocks[-1]):
            blocks[-2:] = [blocks[-2] + blocks[-1]]
    low, high = sizes[0] / 2, 1 - sizes[-1] / 2 - offsets[-1]
    middle = (low + high) / 2
    low, high = min(low, middle), max(high, middle)
    level = [min(high, max(low, fmean(block))) for block in blocks for _ in block]
    return [y + offset for y, offset in zip(level, offsets, strict=True)]


def step_axis(axis: Any, most: int = 5) -> None:
    """Few, round ticks; thousands are written as k if the axis reaches 10,000."""
    axis.set_major_locator(MaxNLocator(most, integer=True, steps=ROUND))

    def text(value: float, _: object) -> str:
        return f"{value / 1000:,g}k" if value and axis.get_view_interval()[1] >= 1e4 else f"{value:,.0f}"

    axis.set_major_formatter(FuncFormatter(text))


def epoch_axis(ax: Any, epochs: Sequence[tuple[float, float]]) -> None:
    """Epochs along the top, each at the step of the first evaluation in it; none if there are fewer than three."""
    first = {epoch: step for step, epoch in reversed(epochs)}
    if len(first) < 3:
        return
    shown = [e for e in MaxNLocator(6, integer=True).tick_values(min(first), max(first)) if e in first]
    top = ax.secondary_xaxis("top")
    names = [f"epoch {e:.0f}" if e == shown[0] else f"{e:.0f}" for e in shown]
    top.set_xticks([first[e] for e in shown], names)
    top.tick_params(length=2.5, pad=1)
    top.spines["top"].set_visible(False)
