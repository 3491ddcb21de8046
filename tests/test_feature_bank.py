"""The feature bank at every filling: empty, partial, exactly full, over-full."""

import pytest
import torch

from lra.synthesis.terms import FeatureBank


def rows(first, n):
    return torch.arange(first, first + n, dtype=torch.float)[:, None].expand(n, 3)


@pytest.mark.parametrize(("batches", "held"), [(1, 4), (2, 8), (3, 12), (4, 12), (7, 12)])
def test_holds_the_latest_up_to_its_capacity(batches, held):
    bank = FeatureBank(12)
    for index in range(batches):
        bank.add(rows(4 * index, 4))
    assert len(bank) == held
    drawn = bank.sample(100)
    assert sorted(drawn[:, 0].tolist()) == list(range(4 * batches - held, 4 * batches))


def test_empty_says_so():
    bank = FeatureBank(5)
    assert len(bank) == 0
    with pytest.raises(IndexError, match="empty"):
        bank.sample(1)


def test_draws_without_repetition():
    bank = FeatureBank(40)
    bank.add(rows(0, 30))
    drawn = bank.sample(20)[:, 0]
    assert len(drawn.unique()) == 20


def test_wraps_around_where_the_batch_does_not_divide_it():
    bank = FeatureBank(10)
    for index in range(5):
        bank.add(rows(3 * index, 3))
    assert sorted(bank.sample(10)[:, 0].tolist()) == list(range(5, 15))


def test_a_batch_larger_than_the_bank_is_refused():
    with pytest.raises(ValueError, match="6 features do not fit a bank of 5"):
        FeatureBank(5).add(rows(0, 6))


def test_no_gradient_into_the_bank():
    bank = FeatureBank(5)
    bank.add(rows(0, 4).clone().requires_grad_(True))
    assert not bank.sample(4).requires_grad


@pytest.mark.parametrize("before", [0, 1, 3, 5])
def test_a_restored_bank_goes_on_identically(before):
    bank, other = FeatureBank(10), FeatureBank(10)
    for index in range(before):
        bank.add(rows(3 * index, 3))
    other.load_state_dict(bank.state_dict())
    for each in (bank, other):
        each.add(rows(100, 3))
    torch.manual_seed(0)
    first = bank.sample(5)
    torch.manual_seed(0)
    assert torch.equal(first, other.sample(5))


def test_a_state_that_does_not_fit_is_refused():
    bank = FeatureBank(10)
    bank.add(rows(0, 10))
    with pytest.raises(ValueError, match="10 features"):
        FeatureBank(4).load_state_dict(bank.state_dict())
