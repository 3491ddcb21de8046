"""Figures of one run or of several, as SVG text: plain numbers in, a string to place in a page out.

A missing value is None or NaN and leaves a gap. Functions that take curves take several, each with an
optional band, so that a sweep draws its seeds with the same functions. Configurations drawn as points are discs
numbered by their place in the ranking, so that crowded figures stay readable. `inspect.unwrap` gives the function
that returns the matplotlib figure itself. Widths are in inches.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator
from numpy.typing import NDArray

from lra.benchmarks.reports.curves import (
    LINE,
    Number,
    Series,
    curves,
    epoch_axis,
    floats,
    label_ends,
    lines,
    second_half,
    step_axis,
    style,
    wrapped,
)
from lra.benchmarks.reports.drawing import (
    MUTED,
    NARROW,
    PAGE,
    ROUND,
    RULE,
    WIDE,
    clean,
    colour_bar,
    log_axis,
    ordinal,
    svg_figure,
)

MOST_NAMES = 20
"""Most names of classes or layers written beside a map of them."""
DISC = 14.0
"""Least distance between numbered discs, in points."""

FEW_TENFOLD = 8
"""A cost axis that spans more than this factor is logarithmic."""


@dataclass(frozen=True)
class Ranked:
    """A configuration in a ranking.

    Attributes:
        place: from 1.
        style: index of its style, the same in all figures.
        mean: of the measure over seeds.
        low, high: ends of its interval; without one, both are the mean.
        values: of the measure, one for each seed.
    """

    place: int
    label: str
    style: int
    mean: float
    low: float
    high: float
    values: Sequence[float]


@dataclass(frozen=True)
class Point:
    """A configuration on two axes: the values of its seeds; place and style as in `Ranked`."""

    place: int
    style: int
    x: Sequence[float]
    y: Sequence[float]


@svg_figure("Accuracy against student steps")
def evolution(
    accuracy: Sequence[Series],
    *,
    forgetting: Sequence[Series] = (),
    teacher: float | None = None,
    title: str = "test accuracy (%)",
    epochs: Sequence[tuple[float, float]] = (),
    width: float = WIDE,
) -> Figure:
    """Accuracy against student steps with the teacher as a dashed line, its second half enlarged, and forgetting.

    The second half is beside the whole if ``width`` leaves room, otherwise beneath it.
    """
    later = second_half(accuracy)
    beside = bool(later) and width > NARROW
    figure = Figure((width, 1), layout="constrained")
    grid = figure.add_gridspec(1 + bool(later and not beside) + bool(forgetting), 1 + beside)
    first = figure.add_subplot(grid[0, 0])
    first.set_title(clean(title, 60) + ("" if teacher is None else f" · dashed: teacher {teacher:.1f}"))
    if teacher is not None:
        first.axhline(teacher, color=MUTED, linewidth=0.9, linestyle=(0, (4, 3)))
    ends = curves(first, accuracy)
    epoch_axis(first, epochs)
    labels, bottom = [] if beside else [(first, ends)], [first]
    if later:
        half = figure.add_subplot(grid[0, 1] if beside else grid[1, 0])
        curves(half, later, since_start=False)
        half.set_title("its second half")
        labels.append((half, ends))
        bottom = [first, half] if beside else [half]
    heights = [max(2.4, lines(ends) * LINE / 72)] * (grid.nrows - bool(forgetting))
    if forgetting:
        bottom = [figure.add_subplot(place) for place in (grid[-1, 0], grid[-1, -1])[: 1 + beside]]
        ends = curves(bottom[0], forgetting, named=False)
        if beside:
            curves(bottom[1], second_half(forgetting, few=1), since_start=False)
        for ax in bottom:
            ax.axhline(0, color=RULE, linewidth=0.7, zorder=0)
        bottom[0].set_title("forgetting of probes (points)")
        labels.append((bottom[-1], ends))
        heights.append(max(1.0, lines(ends) * LINE / 72))
    for ax in bottom:
        ax.set_xlabel("student steps")
    grid.set_height_ratios(heights)
    if beside:
        grid.set_width_ratios((3, 2))
    figure.set_figheight(0.4 + sum(heights) + 0.4 * len(heights))
    label_ends(figure, *labels)
    return figure


@svg_figure("Agreement of every checkpoint with the teacher on every frozen probe")
def forgetting_map(
    checkpoints: Sequence[float],
    probes: Sequence[float],
    agreement: Sequence[Sequence[Number]],
    titles: tuple[str, str, str] = (
        "probe, by the student step it was taken at",
        "checkpoint (student steps)",
        "agreement (%)",
    ),
) -> Figure:
    """Agreement A[c, e] in percent: checkpoints down, probes across, empty above the diagonal.

    For another matrix of this form, ``titles`` name what is across, what is down, and the values.
    """
    values = np.ma.masked_invalid(np.array(agreement, dtype=float).reshape(len(checkpoints), len(probes)))
    figure = Figure((NARROW, 3.9), layout="constrained")
    ax = figure.subplots()
    floor = min([90, *(10 * math.floor(v / 10) for v in values.compressed())])
    image = ax.imshow(values, aspect="auto", interpolation="nearest", vmin=floor, vmax=100)
    if values.size <= 80:
        for (row, column), value in np.ndenumerate(values):
            if np.isfinite(value):
                shade = "#ffffff" if value < (floor + 100) / 2 else "#000000"
                ax.text(column, row, f"{value:.0f}", ha="center", va="center", color=shade, fontsize=8)
    ordinal(ax.set_xticks, probes)
    ordinal(ax.set_yticks, checkpoints)
    ax.set_xlabel(titles[0])
    ax.set_title(titles[1])
    colour_bar(figure, image, ax, titles[2])
    return figure


@svg_figure("Cosine between the acquisition and the retention gradient against student steps")
def alignment(cosines: Sequence[Series]) -> Figure:
    """Gradient alignment against student steps: above the zero line the two gradients agree."""
    figure = Figure((NARROW, 3.0), layout="constrained")
    ax = figure.subplots()
    ax.axhline(0, color=MUTED, linewidth=0.9)
    known = _known(cosines)
    ax.set_ylim(min([-0.1, *1.1 * known]), max([0.1, *1.1 * known]))
    ends = curves(ax, cosines, pattern="{:+.2f}")
    ax.set_title("cos(acquisition gradient, retention gradient)")
    ax.set_xlabel("student steps")
    label_ends(figure, (ax, ends))
    return figure


@svg_figure("Losses against student steps, one panel each")
def loss_panels(panels: Mapping[str, Sequence[Series]], *, columns: int = 2) -> Figure:
    """Small multiples, one panel per title; a panel whose values span decades is logarithmic and says so."""
    columns = min(columns, len(panels))
    rows = math.ceil(len(panels) / columns)
    figure = Figure((NARROW, 0.45 + 1.45 * rows), layout="constrained")
    grid = figure.subplots(rows, columns, sharex=True, squeeze=False)
    for ax in grid.flat[len(panels) :]:
        ax.remove()
    labels = []
    for ax, (title, series) in zip(grid.flat, panels.items(), strict=False):
        known = _known(series)
        decades = known.size > 0 and known.min() > 0 and known.max() > 30 * known.min()
        if decades:
            log_axis(ax)
        labels.append((ax, curves(ax, series, pattern="{:.3g}")))
        ax.set_title(clean(title) + (" (log)" if decades else ""))
    for ax in grid.flat[len(panels) - columns : len(panels)]:
        ax.tick_params(labelbottom=True)
        step_axis(ax.xaxis, 5 if columns == 1 else 3)
        ax.set_xlabel("student steps")
    label_ends(figure, *labels)
    return figure


@svg_figure("Share of each class among the generated images against student steps")
def class_map(steps: Sequence[float], counts: Sequence[Sequence[float]], names: Sequence[str] = ()) -> Figure:
    """Share of every class, as the teacher sees it, in the experiences' last batches since the previous evaluation."""
    table = np.array(counts, dtype=float).T
    share = 100 * table / np.maximum(table.sum(axis=0, keepdims=True), 1)
    shown = range(0, len(names), math.ceil(max(1, len(names)) / MOST_NAMES))
    figure = Figure((NARROW, max(3.0, 0.9 + 0.17 * len(shown))), layout="constrained")
    ax = figure.subplots()
    edges = np.concatenate([[min(0.0, steps[0] - 1)], steps])
    image = ax.pcolormesh(edges, np.arange(len(table) + 1) - 0.5, share, rasterized=True, vmin=0)
    if names:
        ax.set_yticks(shown, [clean(names[place], 16) for place in shown])
    else:
        ax.yaxis.set_major_locator(MaxNLocator(10, integer=True))
    step_axis(ax.xaxis)
    ax.set_title("class")
    ax.set_xlabel("student steps")
    colour_bar(figure, image, ax, "share (%)")
    return figure


@svg_figure("Which class the student takes for which")
def confusion(counts: Sequence[Sequence[float]], names: Sequence[str]) -> Figure:
    """Share of each class (down) taken for each class (across), for the `MOST_NAMES` classes with most mistakes."""
    table = np.array(counts, dtype=float)
    wrong = table.sum(axis=1) - table.diagonal()
    shown = np.sort(np.argsort(-wrong, kind="stable")[:MOST_NAMES])
    share = 100 * table / np.maximum(table.sum(axis=1, keepdims=True), 1)
    share, labels = share[np.ix_(shown, shown)], [clean(names[place], 14) for place in shown]
    figure = Figure((NARROW, 1.3 + 0.17 * max(len(shown), 12)), layout="constrained")
    ax = figure.subplots()
    image = ax.imshow(share, aspect="auto", interpolation="nearest", vmin=0, vmax=100)
    for (row, column), value in np.ndenumerate(share):
        if value >= 0.5:
            shade = "#ffffff" if value < 50 else "#000000"
            ax.text(column, row, f"{value:.0f}", ha="center", va="center", color=shade, fontsize=6.5)
    ax.set_xticks(range(len(shown)), labels, rotation=90 if max(map(len, labels)) > 2 else 0)
    ax.set_yticks(range(len(shown)), labels)
    ax.set_title("class")
    ax.set_xlabel("the student’s answer")
    colour_bar(figure, image, ax, "of the class (%)")
    return figure


@svg_figure("Accuracy of teacher and student on each class")
def class_accuracy(names: Sequence[str], teacher: Sequence[Number], student: Sequence[Number]) -> Figure:
    """A row for each class, in the given order: a hollow square for the teacher, a disc for the student."""
    figure = Figure((NARROW, 0.9 + 0.19 * max(len(names), 6)), layout="constrained")
    ax = figure.subplots()
    rows = range(len(names))
    ours, theirs = floats(student), floats(teacher)
    own, other = style(0), style(1)
    ax.hlines(rows, ours, theirs, color=RULE, linewidth=1.2, zorder=0)
    ax.plot(theirs, rows, "s", markersize=5, markerfacecolor="none", color=other.colour)
    ax.plot(ours, rows, "o", markersize=5, color=own.colour)
    ax.set_yticks(rows, [clean(name, 24) for name in names])
    ax.tick_params(axis="y", length=0)
    ax.set_ylim(len(names) - 0.4, -0.6)
    ax.set_xlabel("accuracy (%): filled student, hollow teacher")
    return figure


@svg_figure("Learned rate of every layer against student steps")
def rates(steps: Sequence[float], layers: Mapping[str, Sequence[Number]]) -> Figure:
    """α of each parameter, the first layer on top, on one logarithmic colour scale."""
    table = np.ma.masked_invalid(np.array([floats(values) for values in layers.values()]))
    shown = range(0, len(table), math.ceil(len(table) / MOST_NAMES))
    figure = Figure((NARROW, max(2.4, 0.9 + 0.17 * len(shown))), layout="constrained")
    ax = figure.subplots()
    edges = np.concatenate([[min(0.0, steps[0] - 1)], steps])
    low, high = float(table.min()), float(table.max())
    norm = LogNorm(low, max(high, 1.01 * low))
    image = ax.pcolormesh(edges, np.arange(len(table) + 1) - 0.5, table, rasterized=True, norm=norm)
    names = list(layers)
    ax.set_yticks(shown, [clean(names[place], 22) for place in shown])
    ax.invert_yaxis()
    step_axis(ax.xaxis)
    ax.set_xlabel("student steps")
    bar = colour_bar(figure, image, ax, "α")
    bar.locator = MaxNLocator(4) if high < 10 * low else LogLocator(numticks=5)
    bar.formatter = FuncFormatter(lambda value, _: f"{value:.2g}")
    bar.minorlocator = NullLocator()
    return figure


def _known(series: Sequence[Series]) -> NDArray[np.float64]:
    """Every finite value of the curves."""
    values = np.concatenate([floats(s.y) for s in series])
    return values[np.isfinite(values)]


@svg_figure("Configurations ranked by their mean, with intervals and every seed")
def ranking(ranked: Sequence[Ranked], title: str, width: float = NARROW) -> Figure:
    """A row for each configuration, in the given order, as high as its label."""
    names = [f"{one.place}  {wrapped(one.label, round(6.4 * width))}" for one in ranked]
    heights = [0.14 + 0.17 * (name.count("\n") + 1) for name in names]
    rows = [sum(heights[:i]) + height / 2 for i, height in enumerate(heights)]
    figure = Figure((width, 0.7 + sum(heights)), layout="constrained")
    ax = figure.subplots()
    for row, one in zip(rows, ranked, strict=True):
        own = style(one.style)
        ax.plot([one.low, one.high], [row, row], color=own.colour, linewidth=1.8, solid_capstyle="butt")
        ax.plot(one.values, [row] * len(one.values), "o", markersize=2.6, color=own.colour, alpha=0.5)
        ax.plot([one.mean], [row], marker=own.marker, markersize=6, color=own.colour)
    ax.set_yticks(rows, names)
    ax.tick_params(axis="y", length=0)
    ax.set_ylim(sum(heights), 0)
    ax.margins(x=0.04)
    ax.xaxis.set_major_locator(MaxNLocator(5, steps=ROUND))
    ax.grid(axis="x", color=RULE, linewidth=0.5, alpha=0.6)
    ax.spines["left"].set_visible(False)
    ax.set_xlabel(clean(title, 60))
    return figure


@svg_figure("Two measures of every configuration against each other")
def scatter(points: Sequence[Point], x_title: str, y_title: str) -> Figure:
    """Seeds as small dots, means as numbered discs."""
    return _discs(points, x_title, y_title)


@svg_figure("A measure against cost, and which configurations no other beats in both")
def frontier(points: Sequence[Point], x_title: str, y_title: str, better: int = 1) -> Figure:
    """A scatter, with a line through the configurations for which no other is both cheaper and better.

    Args:
        points: cost and measure.
        x_title: of the cost.
        y_title: of the measure.
        better: -1 if lower values of the measure are better.
    """
    figure = _discs(points, x_title, y_title, cost=True)
    best = unbeaten([(float(np.mean(p.x)), float(np.mean(p.y))) for p in points], better)
    figure.axes[0].plot(*zip(*best, strict=True), color=MUTED, linewidth=1, drawstyle="steps-post", zorder=1)
    return figure


def unbeaten(found: Sequence[tuple[float, float]], better: int = 1) -> list[tuple[float, float]]:
    """Those pairs of cost and measure to which no other is at most as dear and at least as good, the cheapest first."""
    side = -1 if better < 0 else 1
    ordered = sorted(found, key=lambda pair: (pair[0], -side * pair[1]))
    return [pair for i, pair in enumerate(ordered) if not any(side * y >= side * pair[1] for _, y in ordered[:i])]


def _discs(points: Sequence[Point], x_title: str, y_title: str, cost: bool = False) -> Figure:
    """Seeds where they are; numbered discs at the means or, where these are close, beside them."""
    figure = Figure((NARROW, 3.3), layout="constrained")
    ax = figure.subplots()
    for point in points:
        ax.plot(point.x, point.y, "o", markersize=2.6, color=style(point.style).colour, alpha=0.5)
    ax.margins(0.09)
    ax.set_xlabel(clean(x_title, 60))
    ax.set_title(clean(y_title, 60))
    ax.xaxis.set_major_locator(MaxNLocator(5, steps=ROUND))
    if cost:
        _cost_axis(ax, [value for point in points for value in point.x if value > 0])
    figure.draw_without_rendering()
    ax.autoscale(False)
    means = np.array([[np.mean(point.x), np.mean(point.y)] for point in points])
    unit = figure.dpi / 72
    for point, mean, place in zip(points, means, _spread(ax.transData.transform(means) / unit), strict=True):
        colour, at = style(point.style).colour, ax.transData.inverted().transform(place * unit)
        ax.plot(*zip(mean, at, strict=True), color=colour, linewidth=0.8, clip_on=False)
        ax.plot(*at[:, None], marker="o", markersize=12, color=colour, clip_on=False)
        ax.text(at[0], at[1], str(point.place), color=PAGE, ha="center", va="center_baseline", fontsize=8)
    return figure


def _cost_axis(ax: Any, costs: Sequence[float]) -> None:
    span = max(costs) / min(costs) if costs else 1
    if span > FEW_TENFOLD:
        ax.set_xscale("log")
        ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if span < 50 else (1,), numticks=6))
        ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v / 1000:,g}k" if v >= 1e4 else f"{v:,g}"))


def _spread(places: NDArray[np.float64]) -> NDArray[np.float64]:
    """Places (n, 2) in points, pushed apart to `DISC`."""
    found = places + 1e-3 * np.arange(len(places))[:, None] * (1, -1)  # equal ones must part in some direction
    for _ in range(200):
        apart = found[:, None] - found[None]
        distance = np.sqrt((apart**2).sum(-1)) + np.eye(len(found)) * DISC
        push = np.maximum(0, DISC - distance)[..., None] * apart / np.maximum(distance, 1e-9)[..., None] / 2
        if not push.any():
            break
        found = found + push.sum(axis=1)
    return found
