"""The image pool: bytes there and back, three policies, growth, state."""

import pytest
import torch

from lra.images import to_bytes, unit
from lra.memory.buffers import ImagePool
from lra.options import PoolOptions


def filled(pool: ImagePool, experiences: int, n: int = 8, channels: int = 1) -> ImagePool:
    """A pool whose images all show their birth."""
    for birth in range(experiences):
        images = torch.full((n, channels, 5, 3), birth, dtype=torch.uint8)
        pool.add(images, torch.arange(n) % 3, birth)
    return pool


@pytest.mark.parametrize("rounding", ["nearest", "down"])
def test_bytes_there_and_back(rounding):
    images = torch.rand(7, 3, 9, 6) * 1.4 - 0.2
    stored = to_bytes(images, rounding)
    assert stored.dtype == torch.uint8
    off = (unit(stored) - images.clamp(0, 1)).abs().max()
    assert off <= (0.5 if rounding == "nearest" else 1) / 255 + 1e-6


def test_bytes_survive_another_round():
    levels = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    assert torch.equal(to_bytes(unit(levels)), levels)


def test_a_fresh_pool_is_empty():
    pool = ImagePool(PoolOptions())
    assert len(pool) == 0
    assert pool.contents() is None
    with pytest.raises(IndexError, match="empty"):
        pool.sample(1)


def test_unbounded_keeps_everything_with_births_and_labels():
    pool = filled(ImagePool(PoolOptions()), 5)
    assert len(pool) == 40
    held = pool.contents()
    assert torch.equal(held.births, torch.arange(5).repeat_interleave(8))
    assert torch.equal(held.images[:, 0, 0, 0].long(), held.births)
    assert torch.equal(held.labels, (torch.arange(8) % 3).repeat(5))


def test_unbounded_grows_by_doubling():
    pool = ImagePool(PoolOptions())
    sizes = []
    for birth in range(30):
        pool.add(torch.zeros(8, 1, 2, 2, dtype=torch.uint8), torch.zeros(8, dtype=torch.long), birth)
        sizes.append(len(pool._rows.images))
        assert len(pool) <= sizes[-1] <= 2 * len(pool)
    assert len(set(sizes)) <= 7


def test_fifo_keeps_the_latest():
    pool = filled(ImagePool(PoolOptions(policy="fifo", capacity=20)), 6)
    assert len(pool) == 20
    assert sorted(pool.contents().births.tolist()) == [3] * 4 + [4] * 8 + [5] * 8


def test_fifo_of_a_batch_that_is_too_large_keeps_its_end():
    pool = ImagePool(PoolOptions(policy="fifo", capacity=4))
    pool.add(torch.arange(10, dtype=torch.uint8).view(10, 1, 1, 1), torch.arange(10), 0)
    assert sorted(pool.contents().labels.tolist()) == [6, 7, 8, 9]


def test_reservoir_is_a_uniform_sample():
    torch.manual_seed(0)
    counts = torch.zeros(10)
    for _ in range(200):
        held = filled(ImagePool(PoolOptions(policy="reservoir", capacity=16)), 10).contents()
        assert len(held.labels) == 16
        assert torch.equal(held.images[:, 0, 0, 0].long(), held.births)
        counts += torch.bincount(held.births, minlength=10)
    expected = 200 * 16 / 10
    assert ((counts - expected).abs() < 5 * expected**0.5).all()


@pytest.mark.parametrize("policy", ["reservoir", "fifo"])
def test_never_more_than_the_capacity(policy):
    pool = filled(ImagePool(PoolOptions(policy=policy, capacity=21)), 9)
    assert len(pool) == len(pool._rows.images) == 21


def test_samples_are_what_was_stored():
    batch = filled(ImagePool(PoolOptions()), 4, channels=3).sample(50)
    assert batch.images.shape == (50, 3, 5, 3)
    assert torch.equal(batch.images[:, 0, 0, 0].long(), batch.births)
    assert set(batch.births.tolist()) == {0, 1, 2, 3}


@pytest.mark.parametrize("policy", ["unbounded", "reservoir", "fifo"])
@pytest.mark.parametrize("before", [0, 2, 5])
def test_a_restored_pool_goes_on_identically(policy, before):
    options = PoolOptions(policy=policy, capacity=19)
    pool, other = filled(ImagePool(options), before), ImagePool(options)
    other.load_state_dict(pool.state_dict())
    for each in (pool, other):
        torch.manual_seed(3)
        each.add(torch.full((8, 1, 5, 3), 99, dtype=torch.uint8), torch.zeros(8, dtype=torch.long), before)
    for left, right in zip(pool.contents(), other.contents(), strict=True):
        assert torch.equal(left, right)
    assert pool.seen == other.seen


def test_a_state_that_does_not_fit_is_refused():
    state = filled(ImagePool(PoolOptions()), 3).state_dict()
    with pytest.raises(ValueError, match="24 images does not fit a capacity of 5"):
        ImagePool(PoolOptions(policy="fifo", capacity=5)).load_state_dict(state)
