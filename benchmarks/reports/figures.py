"""Figures of a run, or of several, as SVG text: plain numbers in, a string to place in a page out.

A missing value is None or NaN and leaves a gap. Functions that take curves take several, each with an
optional band, so that a sweep draws its seeds with the same functions. Where configurations are points, each is a
numbered disc, by its place in the ranking, so that crowded figures stay readable. `inspect.unwrap` gives the function
that returns the matplotlib figure itself.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator
from numpy.typing import NDArray

from lra.benchmarks.reports.drawing import (
    MUTED,
    NARROW,
    PAGE,
    PALETTE,
    ROUND,
    RULE,
    WIDE,
    Number,
    Series,
    clean,
    colour_bar,
    curves,
    epoch_axis,
    floats,
    log_axis,
    ordinal,
    step_axis,
    svg_figure,
)

MOST_NAMES = 20
"""Most names of classes that are written beside a map of them."""

FEW_TENFOLD = 8
"""A cost axis that spans more than this factor is logarithmic."""


@dataclass(frozen=True)
class Ranked:
    """A configuration in a ranking.

    Attributes:
        place: from 1.
        colour: index into the palette, the same in all figures.
        mean, low, high: of the measure and its interval; without one, low and high are the mean.
        values: of each seed.
    """

    place: int
    label: str
    colour: int
    mean: float
    low: float
    high: float
    values: Sequence[float]


@dataclass(frozen=True)
class Point:
    """A configuration on two axes: its seeds, and their means."""

    place: int
    colour: int
    x: Sequence[float]
    y: Sequence[float]


def band(label: str, runs: Sequence[tuple[Sequence[float | None], Sequence[float | None]]]) -> Series:
    """The mean curve of several runs at the steps that all of them have, and its 95 % interval."""
    # Of scipy, which takes a second to import; figures of one run do without.
    from lra.benchmarks.comparison.estimates import interval

    curves = [{x: y for x, y in zip(xs, ys, strict=True) if x is not None and y is not None} for xs, ys in runs]
    curves = [curve for curve in curves if curve]
    steps = sorted(set.intersection(*map(set, curves))) if curves else []
    table = np.array([[curve[step] for curve in curves] for step in steps], dtype=np.float64)
    bounds = [interval(values)[:2] for values in table]
    many = len(curves) > 1
    return Series(
        label,
        list(steps),
        [float(values.mean()) for values in table],
        [low for low, _ in bounds] if many else None,
        [high for _, high in bounds] if many else None,
    )


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
    """Accuracy over student steps, the teacher as a thin line, and forgetting beneath on the same axis."""
    figure = Figure((width, 4.4 if forgetting else 3.2), layout="constrained")
    ratios = {"height_ratios": (3, 1)} if forgetting else {}
    panels = figure.subplots(len(ratios) + 1, 1, sharex=True, squeeze=False, gridspec_kw=ratios)[:, 0]
    line = []
    if teacher is not None:
        panels[0].axhline(teacher, color=MUTED, linewidth=0.9, linestyle=(0, (4, 3)))
        line = [(teacher, f"teacher {teacher:.1f}", MUTED)]
    curves(panels[0], accuracy, extra=line)
    panels[0].set_title(clean(title, 60))
    epoch_axis(panels[0], epochs)
    if forgetting:
        panels[1].axhline(0, color=RULE, linewidth=0.7, zorder=0)
        curves(panels[1], forgetting)
        panels[1].set_title("forgetting of probes (points)")
    panels[-1].set_xlabel("student steps")
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

    Or another matrix of that form; ``titles`` are of what is across, of what is down, and of the values.
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
    """Gradient alignment over student steps: above the zero line the two gradients agree."""
    figure = Figure((NARROW, 3.0), layout="constrained")
    ax = figure.subplots()
    ax.axhline(0, color=MUTED, linewidth=0.9)
    known = _known(cosines)
    ax.set_ylim(min([-0.1, *1.1 * known]), max([0.1, *1.1 * known]))
    curves(ax, cosines, pattern="{:+.2f}")
    ax.set_title("cos(acquisition gradient, retention gradient)")
    ax.set_xlabel("student steps")
    return figure


@svg_figure("Losses against student steps, one panel each")
def loss_panels(panels: Mapping[str, Sequence[Series]], *, columns: int = 2) -> Figure:
    """Small multiples, one panel per title; a panel whose values span decades is logarithmic and says so."""
    columns = min(columns, len(panels))
    rows = math.ceil(len(panels) / columns)
    figure = Figure((NARROW, 0.45 + 1.45 * rows), layout="constrained")
    grid = figure.subplots(rows, columns, sharex=True, squeeze=False)
    for ax in grid.flat[len(panels) :]:
        ax.set_axis_off()
    for ax, (title, series) in zip(grid.flat, panels.items(), strict=False):
        known = _known(series)
        decades = known.size > 0 and known.min() > 0 and known.max() > 30 * known.min()
        if decades:
            log_axis(ax)
        curves(ax, series, pattern="{:.3g}")
        ax.set_title(clean(title) + (" (log)" if decades else ""))
    for ax in grid[-1]:
        step_axis(ax.xaxis, 5 if columns == 1 else 3)
        ax.set_xlabel("student steps")
    return figure


@svg_figure("Share of each class among the generated images against student steps")
def class_map(steps: Sequence[float], counts: Sequence[Sequence[float]], names: Sequence[str] = ()) -> Figure:
    """Share of every class (as the teacher sees it) among the images generated up to each step."""
    table = np.array(counts, dtype=float).T
    share = 100 * table / np.maximum(table.sum(axis=0, keepdims=True), 1)
    figure = Figure((NARROW, 3.0), layout="constrained")
    ax = figure.subplots()
    edges = np.concatenate([[min(0.0, steps[0] - 1)], steps])
    image = ax.pcolormesh(edges, np.arange(len(table) + 1) - 0.5, share, rasterized=True, vmin=0)
    if names:
        shown = range(0, len(names), math.ceil(len(names) / MOST_NAMES))
        ax.set_yticks(shown, [clean(names[place], 16) for place in shown])
    else:
        ax.yaxis.set_major_locator(MaxNLocator(10, integer=True))
    step_axis(ax.xaxis)
    ax.set_title("class")
    ax.set_xlabel("student steps")
    colour_bar(figure, image, ax, "share (%)")
    return figure


def _known(series: Sequence[Series]) -> NDArray[np.float64]:
    """Every finite value of the curves."""
    values = np.concatenate([floats(s.y) for s in series])
    return values[np.isfinite(values)]


@svg_figure("Configurations ranked by their mean, with intervals and every seed")
def ranking(ranked: Sequence[Ranked], title: str) -> Figure:
    """One row for each configuration, the best on top."""
    figure = Figure((NARROW, 0.75 + 0.3 * len(ranked)), layout="constrained")
    ax = figure.subplots()
    for row, one in enumerate(ranked):
        colour = PALETTE[one.colour % len(PALETTE)]
        ax.plot([one.low, one.high], [row, row], color=colour, linewidth=1.8, solid_capstyle="butt")
        ax.plot(one.values, [row] * len(one.values), linestyle="", marker="o", markersize=2.6, color=colour, alpha=0.5)
        ax.plot([one.mean], [row], marker="o", markersize=6, color=colour)
    ax.set_yticks(range(len(ranked)), [f"{one.place}  {clean(one.label, 34)}" for one in ranked])
    ax.tick_params(axis="y", length=0)
    ax.set_ylim(len(ranked) - 0.4, -0.6)
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


@svg_figure("Accuracy against cost, and which configurations no other beats in both")
def frontier(points: Sequence[Point], x_title: str, y_title: str) -> Figure:
    """A scatter, with a line through the configurations to which no other is both cheaper and better."""
    figure = _discs(points, x_title, y_title)
    ax = figure.axes[0]
    means = sorted((float(np.mean(p.x)), float(np.mean(p.y))) for p in points)
    best = [m for i, m in enumerate(means) if not any(y >= m[1] for _, y in means[:i])]
    ax.plot(*zip(*best, strict=True), color=MUTED, linewidth=1, drawstyle="steps-post", zorder=1)
    costs = [cost for point in points for cost in point.x if cost > 0]
    if costs and max(costs) > FEW_TENFOLD * min(costs):
        ax.set_xscale("log")
        ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=8))
        ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v / 1000:,g}k" if v >= 1e4 else f"{v:,g}"))
    return figure


def _discs(points: Sequence[Point], x_title: str, y_title: str) -> Figure:
    figure = Figure((NARROW, 3.3), layout="constrained")
    ax = figure.subplots()
    for point in sorted(points, key=lambda p: -p.place):
        colour = PALETTE[point.colour % len(PALETTE)]
        x, y = float(np.mean(point.x)), float(np.mean(point.y))
        ax.plot(point.x, point.y, linestyle="", marker="o", markersize=2.6, color=colour, alpha=0.5)
        ax.plot([x], [y], marker="o", markersize=12, color=colour)
        ax.text(x, y, str(point.place), color=PAGE, ha="center", va="center_baseline", fontsize=8)
    ax.margins(0.09)
    ax.set_xlabel(clean(x_title, 60))
    ax.set_title(clean(y_title, 60))
    ax.xaxis.set_major_locator(MaxNLocator(5, steps=ROUND))
    return figure
