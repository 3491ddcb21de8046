"""What images are worth (after SSD-KD; ours): to a pool of fixed size, and to synthesis; the method made of both."""

import copy

import pytest
import torch
from short_runs import experiment, small_teacher
from torch import Tensor, nn
from torch.nn import functional as F

from lra.benchmarks.errors import UsageError
from lra.distances import kl
from lra.images import unit
from lra.memory.buffers import ImagePool
from lra.memory.usefulness import Modulation, Usefulness
from lra.options import PoolOptions
from lra.problem import Teacher
from lra.strategies.replay import PoolReplay
from lra.synthesis.terms import Adversarial, OneHot
from lra.view import View


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


class Says(nn.Module):
    """Answers this, whatever it sees."""

    def __init__(self, logits: Tensor):
        super().__init__()
        self.logits = logits

    def forward(self, images: Tensor) -> Tensor:
        return self.logits


def seen(teacher: Tensor, student: Tensor | None = None, labels: Tensor | None = None) -> View:
    """A view of images whose answers are these."""
    learner = None if student is None else Says(student)
    return View(torch.zeros(len(teacher), 1, 2, 2), Teacher(Says(teacher)), learner, labels)


def test_images_count_in_synthesis_by_what_they_are_worth_beside_what_is_held() -> None:
    made = Modulation(3, focus=2.0)
    made.count(torch.tensor([0, 0, 0, 1]))
    view = seen(answers([0, 1, 2], [0.5, 0.5, 0.4]).requires_grad_())
    phi = torch.tensor([7 / 12 * 0.25, 7 / 6 * 0.25, 7 / 3 * 0.36])
    found = made(view)
    torch.testing.assert_close(found, phi / phi.mean())
    assert not found.requires_grad


def test_equal_classes_without_focus_and_a_teacher_that_is_certain_of_all_count_alike() -> None:
    view = seen(answers([0, 1, 2, 2], [0.5, 0.7, 0.9, 0.4]))
    made = Modulation(3, focus=0.0)
    assert made(view).tolist() == [1, 1, 1, 1], "nothing is held"
    made.count(torch.arange(3).repeat(5))
    assert made(view).tolist() == [1, 1, 1, 1], "of each class as much"
    sure = Modulation(3)(seen(torch.eye(3) * 1e4))
    torch.testing.assert_close(sure, torch.ones(3))


@pytest.mark.parametrize("mask", ["none", "agree"])
def test_terms_of_single_images_are_weighed_before_their_mean(mask: str) -> None:
    torch.manual_seed(0)
    teacher, student, labels = torch.randn(6, 4).double(), torch.randn(6, 4).double(), torch.randint(4, (6,))
    view, weights = seen(teacher, student, labels), torch.rand(6).double()
    one_hot = F.cross_entropy(teacher, labels, reduction="none")
    torch.testing.assert_close(OneHot(1.0, weigh=lambda _: weights)(view), (weights * one_hot).mean())
    agree = (teacher.argmax(1) == student.argmax(1)).double() if mask == "agree" else torch.ones(6).double()
    wanted = -(weights * agree * kl(student, teacher)).mean()
    torch.testing.assert_close(Adversarial(1.0, kl, mask, weigh=lambda _: weights)(view), wanted)
    for term in (OneHot, lambda weight, **more: Adversarial(weight, kl, mask, **more)):
        torch.testing.assert_close(term(1.0, weigh=lambda _: torch.ones(6).double())(view), term(1.0)(view))


def test_ssd_keeps_its_pool_small_and_knows_what_is_in_it() -> None:
    built = experiment("ssd", "replay.capacity=24", "replay.priority=0.5", experiences=4)
    (own,) = (plugin for plugin in built.strategy.plugins if isinstance(plugin, PoolReplay))
    assert own.pool.policy == "useful"
    assert own.pool.priorities is not None
    assert own.pool.priorities.exponent == 0.5
    one_hot, adversary = (t for t in built.stream.synthesizer.terms if isinstance(t, (OneHot, Adversarial)))
    modulation = one_hot.weigh
    assert isinstance(modulation, Modulation)
    assert adversary.weigh is modulation
    counted: list[list[int]] = []
    step = built.stream.synthesizer.step
    built.stream.synthesizer.step = lambda student: counted.append(modulation.counts.tolist()) or step(student)
    built.strategy.train(built.stream)
    assert [sum(each) for each in counted] == [0, 24, 24, 24]
    assert modulation.counts.tolist() == own.pool.usefulness.predicted.bincount(minlength=10).tolist()


@pytest.mark.parametrize(("replay", "held"), [("none", 0), ("generative", 0), ("memory", 4), ("reservoir", 24)])
def test_ssd_counts_what_any_replay_stores(replay: str, held: int) -> None:
    built = experiment("ssd", replay=replay, experiences=24 if held == 24 else 2)
    (one_hot,) = (term for term in built.stream.synthesizer.terms if isinstance(term, OneHot))
    built.strategy.train(built.stream)
    assert one_hot.weigh.counts.sum() == held == len(built.strategy.held())


def test_ssd_that_is_not_modulated_is_fast() -> None:
    ended = []
    for method, setting in (("ssd", "modulated: false"), ("fast", "renew_first_at: 0")):
        built = experiment(method, f"synthesis={{warmup: 0, {setting}}}", replay="none", experiences=2)
        built.strategy.train(built.stream)
        ended.append(built.stream.synthesizer.batch().images)
    assert torch.equal(*ended)
