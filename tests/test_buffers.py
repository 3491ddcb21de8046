"""Ring and reservoir: what is kept, where, and with what probability."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lra.memory.buffers import Reservoir, Ring, reservoir_places
from lra.problem import Batch


def numbered(first: int, n: int) -> Batch:
    """Images and logits that carry their number."""
    numbers = torch.arange(first, first + n).float()
    return Batch(numbers.view(-1, 1, 1, 1).expand(n, 1, 2, 2), numbers.view(-1, 1).expand(n, 3))


def numbers(batch: Batch) -> list[int]:
    assert torch.equal(batch.images[:, 0, 0, 0], batch.logits[:, 0]), "an image has lost its logits"
    return batch.logits[:, 0].int().tolist()


def contents(buffer: Ring | Reservoir) -> list[int]:
    return numbers(buffer.read(torch.arange(len(buffer))))


def test_a_ring_overwrites_its_oldest_slot() -> None:
    ring = Ring(slots=3, slot_size=2)
    for push in range(5):
        ring.add(numbered(10 * push, 4))
    assert contents(ring) == [30, 31, 40, 41, 20, 21]
    assert len(ring) == 6


def test_a_ring_replays_whole_slots_and_all_of_them() -> None:
    torch.manual_seed(0)
    ring = Ring(slots=3, slot_size=2)
    ring.add(numbered(0, 2))
    ring.add(numbered(10, 2))
    seen = {tuple(numbers(ring.sample(2))) for _ in range(40)}
    assert seen == {(0, 1), (10, 11)}
    assert len(numbers(ring.sample(5))) == 5
    assert len(numbers(ring.sample(1))) == 1


def test_batches_smaller_than_a_slot_share_one() -> None:
    torch.manual_seed(0)
    ring = Ring(2, 4)
    ring.add(numbered(0, 3))
    assert set(numbers(ring.sample(4))) == {0, 1, 2}
    for push in range(1, 4):
        ring.add(numbered(10 * push, 3))
    assert contents(ring) == [22, 30, 31, 32, 11, 12, 20, 21]
    seen = {tuple(numbers(ring.sample(4))) for _ in range(40)}
    assert seen == {(22, 30, 31, 32), (11, 12, 20, 21)}


def test_what_is_stored_is_a_copy_without_a_graph() -> None:
    images = torch.zeros(2, 1, 2, 2, requires_grad=True)
    ring = Ring(1, 2)
    ring.add(Batch(images * 1, torch.zeros(2, 3)))
    with torch.no_grad():
        images += 1
    stored = ring.sample(2).images
    assert not stored.requires_grad
    assert not stored.any()


@pytest.mark.parametrize("buffer", [Ring(2, 2), Reservoir(4)])
def test_an_empty_buffer_says_so(buffer: Ring | Reservoir) -> None:
    with pytest.raises(IndexError, match="empty"):
        buffer.read(torch.tensor([0]))


def test_memory_is_taken_once() -> None:
    reservoir = Reservoir(8)
    reservoir.add(numbered(0, 3))
    assert reservoir.images is not None
    place = reservoir.images.data_ptr()
    for i in range(20):
        reservoir.add(numbered(i, 5))
    assert reservoir.images.data_ptr() == place
    assert len(reservoir) == 8


@given(st.integers(0, 60), st.integers(1, 40), st.integers(1, 30), st.integers(0, 10_000))
def test_places_are_those_of_one_by_one(seen: int, n: int, capacity: int, seed: int) -> None:
    """A batch ends as if its images had come singly, in order: Vitter's algorithm R with the same random numbers."""
    torch.manual_seed(seed)
    places, chosen = reservoir_places(seen, n, capacity)
    torch.manual_seed(seed)
    serial: dict[int, int] = {}
    for newcomer, random in enumerate(torch.rand(n)):
        order = seen + newcomer
        where = order if order < capacity else int((random * (order + 1)).long())
        if where < capacity:
            serial[where] = newcomer
    assert dict(zip(places.tolist(), chosen.tolist(), strict=True)) == serial


def test_every_image_stays_with_probability_capacity_over_seen() -> None:
    """Chi-squared of inclusion counts: 400 runs, 60 images in unequal batches, capacity 12, each expected 80 times."""
    torch.manual_seed(0)
    runs, images, capacity = 400, 60, 12
    counts = torch.zeros(images)
    for _ in range(runs):
        reservoir, offered = Reservoir(capacity), 0
        for size in (5, 20, 1, 17, 17):
            reservoir.add(numbered(offered, size))
            offered += size
        kept = contents(reservoir)
        assert len(set(kept)) == capacity
        counts[kept] += 1
    p = capacity / images
    deviations = (counts - runs * p) / (runs * p * (1 - p)) ** 0.5
    # Sum of squares of 60 standard normals with one constraint: mean 59, sd 10.9.
    assert 59 - 4 * 10.9 < float((deviations**2).sum()) * (images - 1) / images < 59 + 4 * 10.9
    # Early, middle and late images are treated alike.
    for part in counts.split(20):
        assert float(part.mean()) == pytest.approx(runs * p, rel=0.05)


@pytest.mark.parametrize("make", [lambda: Ring(3, 2), lambda: Reservoir(6)], ids=["ring", "reservoir"])
@pytest.mark.parametrize("pushes", [0, 1, 5])
def test_a_buffer_goes_on_from_its_state(make: type, pushes: int) -> None:
    torch.manual_seed(0)
    buffer = make()
    for i in range(pushes):
        buffer.add(numbered(10 * i, 4))
    copy = make()
    copy.load_state_dict(buffer.state_dict())
    outcomes = []
    for each in (buffer, copy):
        torch.manual_seed(1)
        each.add(numbered(100, 4))
        outcomes.append((contents(each), numbers(each.sample(4))))
    assert outcomes[0] == outcomes[1]


def test_a_state_that_does_not_fit_is_refused() -> None:
    big = Reservoir(8)
    big.add(numbered(0, 8))
    with pytest.raises(ValueError, match="does not fit a capacity of 4"):
        Reservoir(4).load_state_dict(big.state_dict())
