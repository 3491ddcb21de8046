"""A pool of fixed size whose newcomers take the places of the least useful (after SSD-KD; ours)."""

import copy

import pytest
import torch
from short_runs import experiment, small_teacher
from torch import Tensor

from lra.benchmarks.errors import UsageError
from lra.images import unit
from lra.memory.buffers import ImagePool
from lra.memory.usefulness import Usefulness
from lra.options import PoolOptions
from lra.problem import Teacher
from lra.strategies.replay import PoolReplay


def answers(classes: list[int], surest: list[float], of: int = 3) -> Tensor:
    """Logits of images of these classes, with these largest probabilities."""
    p = torch.stack([torch.full((of,), (1 - each) / (of - 1)) for each in surest])
    p[torch.arange(len(classes)), torch.tensor(classes)] = torch.tensor(surest)
    return p.log()


def test_an_image_is_worth_what_the_formula_says() -> None:
    made = Usefulness(focus=2.0)
    made.places(answers([0, 0, 0, 1], [0.9, 0.8, 0.7, 0.6]), 10)
    found = made.worth(torch.tensor([0, 1, 2]), torch.tensor([0.25, 0.25, 1.0]))
    torch.testing.assert_close(found, torch.tensor([7 / (3 * 4) * 0.25, 7 / (3 * 2) * 0.25, 7 / 3]))
    made.judge(answers([0] * 400, [0.9] * 400))
    assert made.worth(torch.tensor([0, 1]), torch.ones(2)).tolist() == pytest.approx([403 / (3 * 401), 10.0])


def test_with_equal_classes_and_no_focus_all_are_worth_one_and_nobody_gives_way() -> None:
    made = Usefulness(share=1.0, focus=0.0)
    made.places(answers([0, 1, 2], [0.5, 0.7, 0.9]), 3)
    assert made.worth(torch.arange(3), torch.ones(3)).tolist() == [1, 1, 1]
    places, chosen = made.places(answers([0, 1, 2], [0.4, 0.6, 0.8]), 3)
    assert len(places) == len(chosen) == 0


def test_the_most_useful_newcomers_take_the_places_of_the_least_useful() -> None:
    made = Usefulness(share=0.5, focus=1.0)
    made.places(answers([0, 0, 1, 2], [0.99, 0.4, 0.9, 0.5]), 4)
    places, chosen = made.places(answers([1, 2, 1, 0], [0.5, 0.98, 0.4, 0.4]), 4)
    assert places.tolist() == [0, 2]
    assert chosen.tolist() == [2, 0]
    places, _ = made.places(answers([0, 1, 2, 1], [0.999] * 4), 4)
    assert not len(places), "nobody gives way to what is worth less"


def test_a_pool_holds_no_more_than_its_capacity_and_changes_no_more_than_its_share() -> None:
    pool = ImagePool(PoolOptions(policy="useful", capacity=20, useful_share=0.25))
    torch.manual_seed(0)
    before: set[bytes] = set()
    for birth in range(8):
        images = torch.randint(256, (12, 1, 3, 3), dtype=torch.uint8)
        pool.add(images, torch.zeros(12, dtype=torch.long), birth, 4 * torch.randn(12, 5))
        held = pool.contents()
        assert held is not None
        now = {bytes(image.flatten().tolist()) for image in held.images}
        assert len(now) == len(pool) == min(20, 12 * (birth + 1))
        if birth > 1:
            assert len(now - before) <= 3
        before = now
    with pytest.raises(ValueError, match="give add"):
        pool.add(images, torch.zeros(12, dtype=torch.long), 9)


def test_what_is_known_of_an_image_goes_with_it_and_a_new_teacher_judges_anew() -> None:
    built = experiment("predfkd", "replay={policy: useful, capacity: 24}", replay="pool", experiences=5)
    built.strategy.train(built.stream)
    (own,) = (plugin for plugin in built.strategy.plugins if isinstance(plugin, PoolReplay))
    held, known = own.pool.contents(), own.pool.usefulness.state_dict()
    other = experiment("predfkd", "replay={policy: useful, capacity: 24}", replay="pool")
    (later,) = (plugin for plugin in other.strategy.plugins if isinstance(plugin, PoolReplay))
    later.load_state_dict(own.state_dict())
    assert torch.equal(later.pool.usefulness.state_dict()["predicted"], known["predicted"])
    teacher = Teacher(copy.deepcopy(small_teacher(1).network))
    later.begin_with(own.state_dict(), teacher)
    predicted = teacher.label(unit(held.images)).argmax(dim=1)
    assert torch.equal(later.pool.usefulness.state_dict()["predicted"], predicted)


def test_a_pool_smaller_than_the_classes_is_refused_in_one_line() -> None:
    with pytest.raises(UsageError, match=r"replay\.capacity = 9: .* balances 10 classes") as refusal:
        experiment("predfkd", "replay={policy: useful, capacity: 9}", replay="pool")
    assert "\n" not in str(refusal.value)
