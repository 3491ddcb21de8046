"""Estimates over seeds, against values worked out by hand or by enumerating every resample."""

import itertools

import numpy as np
import pytest
from scipy.stats import norm, t

from lra.benchmarks.comparison.estimates import estimate, holm, paired, sign_flip


def exact_bca(x: np.ndarray) -> tuple[float, float]:
    """Efron's BCa interval of a mean from all n^n resamples, its acceleration in closed form."""
    means = np.sort([np.mean(choice) for choice in itertools.product(x, repeat=len(x))])
    below = (np.sum(means < x.mean()) + np.sum(means <= x.mean())) / (2 * len(means))
    z0 = norm.ppf(below)
    d = x - x.mean()
    acceleration = (d**3).sum() / (6 * (d**2).sum() ** 1.5)
    z = z0 + norm.ppf([0.025, 0.975])
    return tuple(np.quantile(means, norm.cdf(z0 + z / (1 - acceleration * z))))


@pytest.mark.parametrize(
    "values", [[94.0, 96.5, 97.0, 96.1, 95.2], [1.0, 1.1, 1.3, 1.9, 9.0], [10.0, 52.0, 104.0, 146.0, 46.0, 30.0]]
)
def test_interval_is_bca(values: list[float]) -> None:
    found = estimate(values)
    assert found.how == "bca"
    assert (found.low, found.high) == pytest.approx(exact_bca(np.array(values)), abs=0.04 * np.std(values))
    assert found.low < found.mean < found.high


def test_bca_leans_to_where_the_long_tail_is() -> None:
    skewed = estimate([1.0, 1.1, 1.3, 1.9, 2.2, 9.0])
    assert skewed.high - skewed.mean > 1.5 * (skewed.mean - skewed.low)


def test_few_values_take_students_t() -> None:
    found = estimate([1.0, 2.0, 6.0])
    half = t.ppf(0.975, 2) * np.std([1, 2, 6], ddof=1) / np.sqrt(3)
    assert (found.low, found.high, found.how) == (pytest.approx(3 - half), pytest.approx(3 + half), "t")


def test_one_value_has_no_interval() -> None:
    found = estimate([5.0])
    assert (found.mean, found.sd, found.low, found.high, found.how) == (5, None, None, None, "single")


@pytest.mark.parametrize("values", [[0.1 + 0.2, 0.3, 0.3, 0.3, 0.3], [100 * 356 / 360] * 3])
def test_equal_values_have_an_interval_without_width_at_their_mean(values: list[float]) -> None:
    found = estimate(values)
    assert found.how == "equal"
    assert found.low == found.mean == found.high == pytest.approx(values[1])


def test_no_values_are_an_error() -> None:
    with pytest.raises(ValueError, match="at least one"):
        estimate([])


def test_estimates_do_not_change_from_call_to_call() -> None:
    assert estimate([1.0, 2.0, 4.0, 8.0, 9.0]) == estimate([1.0, 2.0, 4.0, 8.0, 9.0])


@pytest.mark.parametrize(("values", "iqm"), [([1, 2, 3, 4, 100], 3), ([4, 1, 3, 2], 2.5), ([1, 2, 6], 3)])
def test_interquartile_mean(values: list[float], iqm: float) -> None:
    assert estimate(values).iqm == iqm


@pytest.mark.parametrize(
    ("differences", "p"),
    [
        ([1, 2, 3], 2 / 8),  # only +++ and --- are as far from zero
        ([3, 2, -1], 4 / 8),  # sums 6 4 2 0 0 -2 -4 -6: four of them at least 4 from zero
        ([1, 2, -3], 1.0),  # the sum seen is 0
        ([1, 1, -1], 1.0),  # ties count
        ([0, 0], 1.0),
        ([0.1, 0.1, 0.1, 0.1, 0.1], 2 / 32),
        ([-0.1, -0.2, -0.3, -0.4, -0.5, 0.05], 4 / 64),
    ],
)
def test_sign_flips_by_hand(differences: list[float], p: float) -> None:
    assert sign_flip(differences) == p


def test_many_pairs_are_sampled() -> None:
    assert sign_flip([1.0] * 30) == pytest.approx(1e-4)
    balanced = [1.0, -1.0] * 12
    assert sign_flip(balanced) == 1.0


def test_differences_are_paired_by_seed() -> None:
    found = paired({0: 90.0, 1: 95.0, 2: 97.0, 7: 50.0}, {2: 96.0, 1: 93.0, 0: 91.0, 9: 0.0})
    assert found is not None
    assert (found.estimate.n, found.estimate.mean) == (3, pytest.approx(2 / 3))
    assert found.p == sign_flip([-1.0, 2.0, 1.0])


def test_one_pair_has_no_p_and_no_pair_no_difference() -> None:
    single = paired({0: 1.0}, {0: 3.0})
    assert single is not None
    assert (single.estimate.mean, single.p) == (-2, None)
    assert paired({0: 1.0}, {1: 3.0}) is None


def test_holm_corrects_for_the_number_of_tests() -> None:
    # m = 4: 0.01 counts four times, 0.02 three times, 0.03 twice but as much as 0.02, 0.5 once.
    assert holm([0.5, 0.01, 0.03, 0.02]) == pytest.approx([0.5, 0.04, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([0.03]) == [0.03]
    assert holm([]) == []
