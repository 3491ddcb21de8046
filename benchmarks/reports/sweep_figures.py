"""Figures over the configurations of a sweep: a ranking, and two measures against each other.

A configuration is a numbered disc, by its place in the ranking, so that crowded figures stay readable.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from lra.benchmarks.reports.drawing import MUTED, NARROW, PAGE, PALETTE, ROUND, RULE, clean, svg_figure

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
    figure = Figure((NARROW, 3.3), layout="constrained")
    ax = figure.subplots()
    _discs(ax, points)
    ax.set_xlabel(clean(x_title, 60))
    ax.set_title(clean(y_title, 60))
    ax.xaxis.set_major_locator(MaxNLocator(5, steps=ROUND))
    return figure


@svg_figure("Accuracy against cost, and which configurations no other beats in both")
def frontier(points: Sequence[Point], x_title: str, y_title: str) -> Figure:
    """As `scatter`, with a line through the configurations that none is both cheaper and better than."""
    figure = Figure((NARROW, 3.3), layout="constrained")
    ax = figure.subplots()
    means = sorted((float(np.mean(p.x)), float(np.mean(p.y))) for p in points)
    best = [m for i, m in enumerate(means) if not any(y >= m[1] for _, y in means[:i])]
    ax.plot(*zip(*best, strict=True), color=MUTED, linewidth=1, drawstyle="steps-post", zorder=1)
    _discs(ax, points)
    costs = [cost for point in points for cost in point.x if cost > 0]
    if costs and max(costs) > FEW_TENFOLD * min(costs):
        ax.set_xscale("log")
        ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=8))
        ax.xaxis.set_minor_locator(NullLocator())
    else:
        ax.xaxis.set_major_locator(MaxNLocator(5, steps=ROUND))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v / 1000:,g}k" if v >= 1e4 else f"{v:,g}"))
    ax.set_xlabel(clean(x_title, 60))
    ax.set_title(clean(y_title, 60))
    return figure


def _discs(ax: Any, points: Sequence[Point]) -> None:
    for point in sorted(points, key=lambda p: -p.place):
        colour = PALETTE[point.colour % len(PALETTE)]
        x, y = float(np.mean(point.x)), float(np.mean(point.y))
        ax.plot(point.x, point.y, linestyle="", marker="o", markersize=2.6, color=colour, alpha=0.5)
        ax.plot([x], [y], marker="o", markersize=12, color=colour)
        ax.text(x, y, str(point.place), color=PAGE, ha="center", va="center_baseline", fontsize=8)
    ax.margins(0.09)
