"""Figures: told apart by anybody, labelled without overlap, and no further than what can be."""

import inspect
from collections.abc import Sequence
from itertools import combinations
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.text import Text

from lra.benchmarks.comparison.estimates import FEWEST, estimate, interval, paired
from lra.benchmarks.reports import figures
from lra.benchmarks.reports.curves import LINE, STYLES, Series, _apart, band, second_half, style
from lra.benchmarks.reports.drawing import DARK, NARROW, PALETTE, STYLE, WIDE
from lra.benchmarks.reports.figures import DISC, Point, Ranked, _spread
from lra.metrics.quantities import PERCENT, QUANTITIES

SIGHTS = {
    "usual": np.eye(3),
    "without red": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "without green": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
    "without blue": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.3039]],
}
"""What becomes of linear RGB (Machado, Oliveira and Fernandes, 2009, at severity 1)."""


def linear(colour: str) -> np.ndarray:
    """Linear RGB in [0, 1] of ``#rrggbb``."""
    value = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def luminance(colour: str) -> float:
    """Relative, as the WCAG has it."""
    return float(linear(colour) @ (0.2126, 0.7152, 0.0722))


def lab(rgb: np.ndarray) -> np.ndarray:
    """CIE L*a*b* of linear RGB under D65."""
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    x, y, z = np.cbrt(to_xyz @ np.clip(rgb, 0, 1) / (0.9505, 1, 1.089))
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize(("palette", "page"), [(PALETTE, "#ffffff"), (DARK, "#0f1318")])
def test_anybody_tells_colours_apart_and_reads_text_in_them(palette: Sequence[str], page: str) -> None:
    for colour in palette:
        light, dark = sorted((luminance(colour), luminance(page)), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 4.5, colour
    for sight, matrix in SIGHTS.items():
        seen = {colour: lab(np.array(matrix) @ linear(colour)) for colour in palette}
        for one, other in combinations(palette, 2):
            assert np.linalg.norm(seen[one] - seen[other]) > 15, (sight, one, other)


def test_as_many_styles_as_are_promised_and_neighbours_differ_without_colour() -> None:
    drawn = [style(index) for index in range(STYLES)]
    assert STYLES == 24
    assert len({(one.colour, str(one.dash)) for one in drawn}) == STYLES
    for first in range(STYLES - 6):
        assert len({one.marker for one in drawn[first : first + 7]}) == 7


def drawn(draw: object, *content: object, **options: object) -> Figure:
    """The matplotlib figure that a function of `lra.benchmarks.reports.figures` draws."""
    with rc_context(STYLE):
        return inspect.unwrap(draw)(*content, **options)


def beyond(figure: Figure) -> set[Text]:
    """Labels of ticks outside the limits of their axis, which are there but not drawn."""
    axes = [axis for ax in figure.axes for axis in (ax.xaxis, ax.yaxis)]
    sides = [(axis, sorted(axis.get_view_interval())) for axis in axes]
    ticks = [(tick, low, high) for axis, (low, high) in sides for tick in axis.get_major_ticks()]
    return {
        label for tick, low, high in ticks if not low <= tick.get_loc() <= high for label in (tick.label1, tick.label2)
    }


def assert_readable(figure: Figure) -> None:
    """Every text lies within the figure, and none over another."""
    with rc_context(STYLE):
        figure.draw_without_rendering()
        whole = figure.bbox
        texts = [
            t for t in figure.findobj(Text) if t.get_visible() and t.get_text().strip() and t not in beyond(figure)
        ]
        # Of an annotation the text alone, without the line to it.
        shown = [(text.get_text(), Text.get_window_extent(text)) for text in texts]
    for text, box in shown:
        inside = box.x0 > -1 and box.y0 > -1 and box.x1 < whole.x1 + 1 and box.y1 < whole.y1 + 1
        assert inside, f"{text!r} is cut"
    for (one, first), (other, second) in combinations(shown, 2):
        width = min(first.x1, second.x1) - max(first.x0, second.x0)
        height = min(first.y1, second.y1) - max(first.y0, second.y0)
        assert min(width, height) < 1.5, f"{one!r} and {other!r} overlap"


LONG = "predfkd, replay generative with {} updates an experience, student.lr=0.0{}, alpha learned"


def many(count: int) -> list[Series]:
    """Curves that all end at nearly the same accuracy, with long names."""
    steps = list(range(0, 2001, 50))
    rise = [98 - 88 * np.exp(-step / 300) for step in steps]
    return [
        Series(LONG.format(k, k), steps, [y + 0.01 * k for y in rise], [y - 1 for y in rise], [y + 1 for y in rise])
        for k in range(count)
    ]


@pytest.mark.parametrize("width", [NARROW, WIDE])
@pytest.mark.parametrize("count", [1, 8, 12])
def test_labels_of_many_curves_are_whole_and_apart(count: int, width: float) -> None:
    curves = many(count)
    epochs = [(float(step), step / 100) for step in curves[0].x]
    figure = drawn(figures.evolution, curves, forgetting=curves, teacher=99.2, epochs=epochs, width=width)
    assert_readable(figure)
    words = " ".join(text.get_text().replace("\n", " ") for text in figure.findobj(Text))
    assert all(LONG.format(k, k) in words for k in range(count))


def test_the_net_catches_labels_that_overlap_or_are_cut() -> None:
    figure = Figure((3, 2))
    figure.text(0.2, 0.5, "one")
    assert_readable(figure)
    figure.text(0.22, 0.5, "other")
    with pytest.raises(AssertionError, match="overlap"):
        assert_readable(figure)
    figure = Figure((3, 2))
    figure.text(0.9, 0.5, "too far right")
    with pytest.raises(AssertionError, match="cut"):
        assert_readable(figure)


def test_the_frontier_is_what_nothing_beats_in_cost_and_measure() -> None:
    found = [(1.0, 2.0), (2.0, 5.0), (3.0, 4.0), (2.0, 1.0), (4.0, 5.0), (5.0, 0.5)]
    assert figures.unbeaten(found) == [(1.0, 2.0), (2.0, 5.0)]
    assert figures.unbeaten(found, better=-1) == [(1.0, 2.0), (2.0, 1.0), (5.0, 0.5)]


def test_other_figures_with_long_names_are_readable() -> None:
    ranked = [Ranked(k + 1, LONG.format(k, k), k, 90 - k, 89 - k, 91 - k, [90 - k]) for k in range(12)]
    assert_readable(drawn(figures.ranking, ranked, "accuracy, final (%)"))
    points = [Point(k + 1, k, [10.0 + 0.001 * k], [90.0]) for k in range(9)]
    assert_readable(drawn(figures.scatter, points, "σ², last half", "μ, last half (%)"))
    assert_readable(drawn(figures.frontier, [*points, Point(10, 9, [2e5], [95.0])], "teacher queries", "accuracy (%)"))
    names = [f"a class of a long name, number {k}" for k in range(100)]
    steps = list(range(10, 101, 10))
    assert_readable(drawn(figures.class_map, steps, [[1.0] * 100] * 10, names))
    assert_readable(drawn(figures.confusion, np.eye(100) * 50 + 1, names))
    assert_readable(drawn(figures.confusion, [[5, 0], [1, 4]], ["0", "1"]))
    assert_readable(drawn(figures.class_accuracy, names[:20], [99.0] * 20, [90.0, None] * 10))
    layers = {f"layer{k}.block.convolution.weight": [0.01 * (1 + k)] * 10 for k in range(60)}
    assert_readable(drawn(figures.rates, steps, layers))
    assert_readable(drawn(figures.rates, steps, {"one": [0.01] * 10}))
    panels = {f"term {k}": [Series("", steps, [10.0**-place for place in range(10)])] for k in range(7)}
    assert_readable(drawn(figures.loss_panels, panels))
    assert_readable(drawn(figures.forgetting_map, [10_000.0 * k for k in range(9)], [1.0, 2.0], [[50.0, None]] * 9))


def test_the_second_half_is_drawn_larger_if_there_is_enough_of_it() -> None:
    (whole,) = many(1)
    (half,) = second_half([whole])
    assert half.x == whole.x[20:]
    assert half.low == whole.low[20:]
    assert len(drawn(figures.evolution, [whole]).axes) == 2
    assert len(drawn(figures.evolution, [Series("short", [1, 2, 3, 4], [1, 2, 3, 4])]).axes) == 1


def test_labels_move_as_little_as_they_must_and_stay_within() -> None:
    assert _apart([0.2, 0.8], [0.1, 0.1]) == [0.2, 0.8]
    assert _apart([0.5, 0.5], [0.1, 0.3]) == pytest.approx([0.4, 0.6])
    high = _apart([1.0, 1.0, 1.0], [0.1, 0.1, 0.1])
    assert high == pytest.approx([0.75, 0.85, 0.95])
    full = _apart([0.0, 1.0, 1.0], [0.5, 0.5, 0.5])
    assert np.diff(full) == pytest.approx([0.5, 0.5]), "where there is no room for all they are still apart"
    assert _apart([], []) == []
    assert LINE > 9


def test_discs_at_one_place_part() -> None:
    places = _spread(np.array([[5.0, 5.0]] * 6 + [[200.0, 5.0]]))
    apart = [np.linalg.norm(a - b) for a, b in combinations(places, 2)]
    assert min(apart) > DISC - 0.5
    assert np.allclose(places[-1], [200, 5], atol=0.1), "one that is alone stays"


def seeds(count: int) -> list[tuple[list[float], list[float]]]:
    """Curves of seeds that differ so much that Student's t would go beyond 100 %."""
    return [([10.0, 20.0], [50.0 + 10 * seed, 99.9 - 20 * (seed % 2)]) for seed in range(count)]


def test_few_seeds_are_drawn_themselves_and_more_as_a_band_within_what_is_possible() -> None:
    few = band("a", seeds(FEWEST - 1), PERCENT)
    assert (few.low, few.high) == (None, None)
    assert [list(seed) for seed in few.seeds] == [y for _, y in seeds(FEWEST - 1)]
    enough = band("a", seeds(FEWEST), PERCENT)
    assert not enough.seeds
    assert enough.low is not None
    assert enough.high is not None
    assert all(low < mean < high <= 100 for low, mean, high in zip(enough.low, enough.y, enough.high, strict=True))
    alone = band("a", seeds(1), PERCENT)
    assert alone.low is None
    assert not alone.seeds
    svg = figures.evolution([few, enough], width=NARROW)
    words = {e.text for e in ElementTree.fromstring(svg).iter() if e.tag.endswith("text")}
    assert "a 89.9" in words
    assert svg.count("fill-opacity") == 1


def test_an_interval_ends_where_its_measure_does() -> None:
    values = [7.05, 88.2]
    low, high, how = interval(np.array(values))
    assert (how, low < 0, high > 100) == ("t", True, True)
    found = estimate(values, QUANTITIES["accuracy"].within)
    assert (found.low, found.high) == (0, 100)
    assert found.cut(PERCENT)
    assert not estimate([50.0, 51.0], PERCENT).cut(PERCENT)
    difference = paired({0: 99.0, 1: 1.0}, {0: 0.0, 1: 80.0}, PERCENT)
    assert difference is not None
    assert (difference.estimate.low, difference.estimate.high) == (-100, 100)
    assert QUANTITIES["seconds"].within[0] == 0
    assert QUANTITIES["alignment"].within == (-1, 1)
    assert QUANTITIES["forgetting"].within == (-100, 100)
