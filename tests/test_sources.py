"""Sources of optimised batches, and what is kept of them."""

import copy
import itertools

import pytest
import torch
from torch import nn

from lra.distances import l1
from lra.networks.composed import TwoLatentGenerator
from lra.networks.conditional import LabelGenerator
from lra.networks.generators import gen_s
from lra.options import BatchOptions, TripletOptions
from lra.problem import Problem, Teacher
from lra.synthesis import labels
from lra.synthesis.batches import BatchSynthesizer, Diverged
from lra.synthesis.sources import LatentSource, MetaSource, NoisyLayerSource, Pixels, RenewedSource
from lra.synthesis.terms import Adversarial, OneHot, SoftLabelKL, Term

SHAPES = [(1, 8, 8), (3, 9, 7)]


def network(image=(1, 8, 8), classes=4):
    convolution = nn.Conv2d(image[0], 6, 3, padding=1, bias=False)
    return nn.Sequential(
        convolution, nn.BatchNorm2d(6), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, classes)
    )


def problem(image=(1, 8, 8), classes=4):
    return Problem(image, classes, (0.4,) * image[0], (0.3,) * image[0])


def generator(image=(1, 8, 8)):
    return gen_s(6, image, width=8)


def sources(image=(1, 8, 8)):
    return {
        "pixels": lambda: Pixels(problem(image), lr=0.1),
        "chained": lambda: Pixels(problem(image), lr=0.1, restart=False),
        "latent": lambda: LatentSource(generator(image), 0.01),
        "fomaml": lambda: MetaSource(generator(image), 0.01, 0.02, 3),
        "reptile": lambda: MetaSource(generator(image), 0.01, 0.02, 3, "reptile"),
        "sequential": lambda: MetaSource(generator(image), 0.01, 0.02, 3, "none"),
        "noisy": lambda: NoisyLayerSource(LabelGenerator(4, image, 8, latent=6, width=8), 0.01, life=2),
        "renewed": lambda: RenewedSource(lambda: TwoLatentGenerator(6, image, width=8), 0.01, life=2),
    }


def synthesizer(source, options=None, terms=None, image=(1, 8, 8), views=1, plan=None):
    torch.manual_seed(1)
    teacher = Teacher(network(image))
    options = options or BatchOptions(images=8, steps=3, shift=1)
    return BatchSynthesizer(source, terms or [OneHot(1.0)], teacher, plan or labels.uniform(4), options, views=views)


@pytest.mark.parametrize("image", SHAPES)
@pytest.mark.parametrize("kind", sources())
def test_a_batch_is_bytes_and_draws_are_fresh_augmentations(kind, image):
    torch.manual_seed(0)
    made = synthesizer(sources(image)[kind](), image=image)
    student = network(image)
    values = made.step(student)
    assert values["one_hot"].raw.isfinite()
    assert made.batch().images.shape == (8, *image)
    assert made.batch().images.dtype == torch.uint8
    first, second = made.draw(8), made.draw(8)
    assert first.shape == (8, *image)
    assert 0 <= first.min() <= first.max() <= 1
    assert not torch.equal(first, second)
    assert not first.requires_grad
    assert (made.generator_steps, made.images_generated) == (3, 24)


@pytest.mark.parametrize("kind", sources())
def test_restored_it_goes_on_identically(kind):
    torch.manual_seed(0)
    student = network()
    made, other = synthesizer(sources()[kind]()), synthesizer(sources()[kind]())
    for _ in range(2):
        made.step(student)
    other.load_state_dict(copy.deepcopy(made.state_dict()))
    assert torch.equal(other.batch().images, made.batch().images)
    drawn = []
    for each in (made, other):
        torch.manual_seed(7)
        each.step(student)
        each.step(student)
        drawn.append(each.draw(5))
    assert torch.equal(*drawn)
    assert other.counters() == made.counters()


class Recorded(OneHot):
    """Cross-entropy that remembers its values."""

    def __init__(self):
        super().__init__(1.0)
        self.values = []

    def __call__(self, view):
        loss = super().__call__(view)
        self.values.append(loss.item())
        return loss


@pytest.mark.parametrize("kind", sources())
def test_optimising_lowers_the_loss(kind):
    torch.manual_seed(0)
    term = Recorded()
    made = synthesizer(sources()[kind](), BatchOptions(images=8, steps=25, shift=0, flip=False), [term])
    made.step(network())
    assert term.values[-1] < term.values[0]


class Sequence(Term):
    """A loss that runs through given values and notes the images."""

    name = "sequence"

    def __init__(self, values):
        super().__init__(1.0)
        self.values, self.seen, self.kept = list(values), [], []

    def __call__(self, view):
        self.seen.append(view.plain.detach().clone())
        return view.images.sum() * 0 + view.images.mean() * 1e-3 + self.values[len(self.seen) - 1]

    def keep(self, where=True):
        if where:
            self.kept.append(len(self.seen) - 1)


@pytest.mark.parametrize("kind", ["pixels", "latent", "fomaml", "noisy"])
def test_the_best_iterate_is_kept_and_not_an_alias(kind):
    from lra.images import to_bytes

    term = Sequence([5.0, 3.0, 1.0, 4.0, 2.0])
    options = BatchOptions(images=8, steps=5, shift=0, flip=False)
    made = synthesizer(sources()[kind](), options, [term])
    made.step(network())
    assert torch.equal(made.batch().images, to_bytes(term.seen[2]))
    assert term.kept == [0, 1, 2]
    assert not torch.equal(term.seen[2], term.seen[4])


def test_the_last_iterate_is_that_after_the_last_step():
    term = Sequence([5.0, 3.0, 1.0, 4.0, 2.0])
    source = sources()["pixels"]()
    made = synthesizer(
        source, BatchOptions(images=8, steps=5, shift=0, flip=False, keep="last", rounding="down"), [term]
    )
    made.step(network())
    expected = (source.images().detach().clamp(0, 1) * 255).to(torch.uint8)
    assert torch.equal(made.batch().images, expected)
    assert term.kept == [4]


def test_a_loss_that_is_never_finite_is_refused():
    made = synthesizer(sources()["pixels"](), terms=[Sequence([float("nan")] * 3)])
    with pytest.raises(Diverged, match="never finite"):
        made.step(network())


def test_pixels_stay_in_the_image_space():
    source = Pixels(problem((3, 5, 6)), lr=5.0)
    source.begin(torch.zeros(4, dtype=torch.long))
    for _ in range(4):
        source.update(-source.images().sum())
        assert -1e-6 <= source.images().min() <= source.images().max() <= 1 + 1e-6
    assert source.images().min() > 0.9


def test_student_and_teacher_are_left_alone():
    torch.manual_seed(0)
    student = network().train()
    terms = [OneHot(1.0), Adversarial(1.0, l1, mask="agree"), TripletOptions(triplet=0.1).triplet_term()]
    made = synthesizer(sources()["latent"](), terms=terms)
    before = [t.clone() for t in (*student.state_dict().values(), *made.teacher.state_dict().values())]
    values = made.step(student)
    after = [*student.state_dict().values(), *made.teacher.state_dict().values()]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert student.training
    assert all(p.grad is None for p in [*student.parameters(), *made.teacher.parameters()])
    assert 0 <= values["triplet_fallback"].raw <= 1


def test_peek_leaves_no_trace():
    made = synthesizer(sources()["latent"]())
    made.step(network())
    torch.manual_seed(4)
    expected = made.draw(6)
    torch.manual_seed(4)
    counters = made.counters()
    made.peek(3)
    assert made.counters() == counters
    assert torch.equal(made.draw(6), expected)


@pytest.mark.parametrize(("n", "distinct"), [(8, 4), (16, 8), (7, 4), (40, 8)])
def test_two_views_of_every_image(n, distinct):
    made = synthesizer(sources()["pixels"](), BatchOptions(images=8, steps=1, shift=0, flip=False), views=2)
    made.step(network())
    drawn = made.draw(n)
    assert len(drawn) == n
    assert len(drawn.unique(dim=0)) == distinct
    half = -(-n // 2)
    assert torch.equal(drawn[:half][: n - half], drawn[half:])


def test_a_warm_up_comes_first_and_without_the_student():
    terms = [OneHot(1.0), Adversarial(1.0, l1)]
    made = synthesizer(sources()["fomaml"](), BatchOptions(images=8, steps=3, warmup=4, rounds=2), terms)
    values = made.step(network())
    assert len(made.batch().images) == 8 * 6
    assert "adversarial" in values
    assert made.source.batches == 6
    made.step(network())
    assert len(made.batch().images) == 8 * 2


def test_fomaml_with_one_step_is_the_plain_gradient():
    torch.manual_seed(0)
    g = generator().double()
    source = MetaSource(g, 0.01, 0.01, 1)
    source.begin(torch.zeros(4, dtype=torch.long))
    source._latents = source._latents.detach().double().requires_grad_(True)
    assert source.fast is not g
    assert not {p.data_ptr() for p in g.parameters()} & {p.data_ptr() for p in source.fast.parameters()}
    g.train()
    plain = torch.autograd.grad(g(source._latents).pow(2).sum(), list(g.parameters()))
    source.update(source.images().pow(2).sum())
    for parameter, gradient in zip(g.parameters(), plain, strict=True):
        assert torch.allclose(parameter.grad, gradient, rtol=1e-9, atol=1e-12)


def test_fomaml_sums_inner_gradients_and_steps_once():
    torch.manual_seed(0)
    source = MetaSource(generator(), 0.01, 0.01, 3)
    source.begin(torch.zeros(4, dtype=torch.long))
    before = [p.detach().clone() for p in source.generator.parameters()]
    sums = [torch.zeros_like(p) for p in before]
    for _ in range(3):
        source.update(source.images().pow(2).sum())
        sums = [s + p.grad for s, p in zip(sums, source.fast.parameters(), strict=True)]
        assert all(torch.equal(a, b) for a, b in zip(before, source.generator.parameters(), strict=True))
    assert all(torch.allclose(s, p.grad) for s, p in zip(sums, source.generator.parameters(), strict=True))
    source.end()
    assert not all(torch.equal(a, b) for a, b in zip(before, source.generator.parameters(), strict=True))
    assert source.outer.param_groups[0]["lr"] == pytest.approx(0.03)


def test_reptile_moves_towards_the_copy():
    source = MetaSource(generator(), 0.01, 0.01, 2, "reptile")
    source.begin(torch.zeros(4, dtype=torch.long))
    for _ in range(2):
        source.update(source.images().pow(2).sum())
    pairs = zip(source.generator.parameters(), source.fast.parameters(), strict=True)
    expected = [67 * (slow - fast).detach() for slow, fast in pairs]
    source.end()
    assert all(torch.allclose(p.grad, e) for p, e in zip(source.generator.parameters(), expected, strict=True))


@pytest.mark.parametrize(("scale", "mean"), [(1.0, 1.0), (0.0, 0.0)])
def test_the_first_layer_is_drawn_anew_at_its_batch(scale, mean):
    source = MetaSource(generator(), 0.01, 0.01, 1, "none", renew_first_at=2, renew_scale=scale)
    source.begin(torch.zeros(2, dtype=torch.long))
    first = source.generator.linear.weight.detach().clone()
    source.begin(torch.zeros(2, dtype=torch.long))
    assert not torch.equal(first, source.generator.linear.weight)
    assert source.generator.norm.weight.mean().item() == pytest.approx(mean, abs=0.05)


def test_a_noisy_generator_lives_so_many_batches():
    source = NoisyLayerSource(LabelGenerator(4, (1, 8, 8), 8, latent=6, width=8), 0.01, life=2)
    marks, noises = [], []
    for _ in range(5):
        source.begin(torch.arange(4))
        marks.append(source.generator.images.last.weight.detach().clone())
        noises.append(next(source.generator.noisy.children()).weight.detach().clone())
    same = [torch.equal(a, b) for a, b in itertools.pairwise(marks)]
    assert same == [True, False, True, False]
    assert len(torch.stack(noises).unique(dim=0)) == 5


def test_label_plans():
    torch.manual_seed(0)
    ordered = labels.uniform(3, ordered=True)(50)
    assert torch.equal(ordered, ordered.sort().values)
    sets = labels.full_sets(4)(11)
    assert torch.equal(sets[:8], torch.arange(4).repeat(2))
    assert len(sets) == 11
    assert sets.max() < 4


@pytest.mark.parametrize("classes", [2, 10])
def test_soft_labels_are_probabilities_that_a_source_can_match(classes):
    torch.manual_seed(0)
    teacher = Teacher(network(classes=classes))
    similarity = labels.class_similarity(teacher, (1, 8, 8))
    assert torch.allclose(similarity.diagonal(), torch.ones(classes))
    for plan in (labels.dirichlet(similarity), labels.gaussian(teacher, (1, 8, 8), 20.0)):
        soft = plan(30)
        assert soft.shape == (30, classes)
        assert torch.allclose(soft.sum(dim=1), torch.ones(30), atol=1e-5)
        assert torch.isfinite(soft).all()
    made = BatchSynthesizer(
        sources()["pixels"](), [SoftLabelKL(1.0, 20.0)], teacher, plan, BatchOptions(images=8, steps=2, shift=0)
    )
    assert made.step(network(classes=classes))["soft_label"].raw >= 0
    assert made.batch().labels.shape == (8,)


def test_soft_targets_need_a_layer_that_makes_the_features():
    flat = nn.Sequential(nn.Conv2d(1, 3, 3), nn.Flatten(), nn.Linear(3 * 36, 4))
    with pytest.raises(ValueError, match="as many inputs"):
        labels.gaussian(Teacher(flat), (1, 8, 8), 20.0)
