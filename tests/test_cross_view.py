"""CMI's term and its bank across batches; RGAL's student terms against their definitions."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lra.distances import l1
from lra.distillation.objective import Objective
from lra.distillation.terms import Channels, Gram, StudentTriplet, adapters_between
from lra.features import FeatureTap, Tap
from lra.options import BatchOptions
from lra.problem import Batch, Problem, Teacher
from lra.relations import TripletSampler, gram_masked, triplet_loss
from lra.synthesis.batches import BatchSynthesizer
from lra.synthesis.labels import uniform
from lra.synthesis.sources import Pixels
from lra.synthesis.terms import CrossView, FeatureBank, OneHot, description, projection_head
from lra.view import View

IMAGE = (1, 8, 8)


def network(width=6, classes=3):
    return nn.Sequential(
        nn.Sequential(nn.Conv2d(1, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()),
        nn.Sequential(nn.Conv2d(width, 2 * width, 3, 2, 1), nn.BatchNorm2d(2 * width), nn.ReLU()),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(2 * width, classes),
    )


def cross_view(teacher, capacity=24, layers="batchnorm", negatives=4096):
    head = projection_head(teacher, IMAGE, layers, 5)
    return CrossView(0.8, head, FeatureBank(capacity), lambda x: x.flip(3), 0.01, 0.1, negatives, layers)


@pytest.mark.parametrize("layers", ["batchnorm", "stages"])
def test_the_term_with_an_empty_bank_by_hand(layers):
    torch.manual_seed(0)
    teacher = Teacher(network())
    term = cross_view(teacher, layers=layers)
    images = torch.rand(5, *IMAGE)
    quantity = {"batchnorm"} if layers == "batchnorm" else {"maps"}
    describe = lambda x: description(View(x, teacher).watching(quantity), layers)  # noqa: E731
    local, whole = (F.normalize(term.head(describe(x)), dim=1) for x in (images.flip(3), images))
    expected = F.cross_entropy(local @ whole.T / 0.1, torch.arange(5))
    assert torch.isclose(term(View(images, teacher).watching(set(term.needs))), expected, atol=1e-5)


def test_the_global_view_gets_no_gradient_from_the_contrast():
    torch.manual_seed(0)
    teacher = Teacher(network())
    term = cross_view(teacher)
    plain = torch.rand(4, *IMAGE, requires_grad=True)
    whole = torch.rand(4, *IMAGE, requires_grad=True)
    term(View(whole, teacher, plain=plain).watching(set(term.needs))).backward()
    assert plain.grad.abs().sum() > 0
    assert whole.grad is None or whole.grad.abs().sum() == 0


@pytest.mark.parametrize("capacity", [8, 16, 20])
def test_the_bank_takes_the_kept_batches_and_never_gives_nan(capacity):
    torch.manual_seed(0)
    teacher = Teacher(network())
    term = cross_view(teacher, capacity)
    made = BatchSynthesizer(
        Pixels(Problem(IMAGE, 3, (0.4,), (0.3,)), 0.1),
        [OneHot(1.0), term],
        teacher,
        uniform(3),
        BatchOptions(images=8, steps=3, shift=1),
    )
    student = network()
    for step in range(4):
        before = copy.deepcopy(term.head.state_dict())
        values = made.step(student)
        assert values["cross_view"].raw.isfinite()
        assert len(term.bank) == min(capacity, 8 * (step + 1))
        assert not all(torch.equal(a, b) for a, b in zip(before.values(), term.head.state_dict().values(), strict=True))
    other = cross_view(teacher, capacity)
    other.load_state_dict(copy.deepcopy(term.state_dict()))
    rows = [each.bank.sample(100).sort(dim=0).values for each in (term, other)]
    assert torch.equal(*rows)


def test_only_so_many_negatives_come_from_the_bank():
    torch.manual_seed(0)
    teacher = Teacher(network())
    term = cross_view(teacher, capacity=24, negatives=2)
    term.bank.add(torch.randn(20, 2 * (6 + 12)))
    drawn = []
    sample = term.bank.sample
    term.bank.sample = lambda n: drawn.append(sample(n)) or drawn[-1]
    term(View(torch.rand(3, *IMAGE), teacher).watching(set(term.needs)))
    assert len(drawn[0]) == 2


def rgal(compared="global", gram=0.0):
    torch.manual_seed(0)
    student, teacher = network(4).train(), Teacher(network())
    adapters = adapters_between(student, teacher.network, IMAGE)
    triplet = StudentTriplet(0.3, TripletSampler(), compared)
    terms = [triplet, Channels(0.2, adapters), Gram(gram, adapters)]
    return student, teacher, Objective(l1, terms, teacher), adapters


@pytest.mark.parametrize("compared", ["global", "features", "logits"])
def test_the_objective_is_the_sum_of_its_terms(compared):
    student, teacher, objective, adapters = rgal(compared, gram=0.7)
    images = torch.rand(12, *IMAGE)
    batch = Batch(images, teacher.label(images))
    before = teacher.queries
    logits = student(images)
    torch.manual_seed(5)
    loss = objective(student, batch)
    assert teacher.queries == before + 12
    with FeatureTap(student, IMAGE) as tap, Tap(student, [student[0], student[1]], "output") as maps:
        student(images)
    with Tap(teacher.network, [teacher.network[0], teacher.network[1]], "output") as theirs:
        teacher(images)
    torch.manual_seed(5)
    found = TripletSampler()(logits.detach(), batch.logits.argmax(dim=1))
    e = {"global": tap.values, "features": maps.values[-1:], "logits": [logits]}[compared]
    channels = sum(
        F.mse_loss(a(s).mean(dim=(2, 3)), t.mean(dim=(2, 3)))
        for a, s, t in zip(adapters.adapters, maps.values, theirs.values, strict=True)
    )
    gram = gram_masked(adapters.adapted(maps.values), theirs.values)
    expected = l1(logits, batch.logits).mean() + 0.3 * triplet_loss(e, found) + 0.2 * channels + 0.7 * gram
    assert torch.isclose(loss, expected, rtol=1e-5)
    loss.backward()
    assert all(p.grad is not None for p in adapters.parameters())
    assert all(p.grad is None for p in teacher.parameters())


@pytest.mark.parametrize("classes", [1, 3])
def test_a_batch_without_triplets_is_fine(classes):
    student, _, objective, _ = rgal()
    images = torch.rand(1 if classes == 3 else 6, *IMAGE)
    logits = torch.zeros(len(images), 3)
    logits[:, 0] = 5
    loss = objective(student, Batch(images, logits))
    loss.backward()
    assert torch.isfinite(loss)


def test_adapters_match_stages_from_the_last_backwards():
    deep, shallow = network(), nn.Sequential(nn.Conv2d(1, 5, 3, 2, 1), nn.Flatten(), nn.Linear(80, 3))
    adapters = adapters_between(shallow, deep, IMAGE).adapters
    assert [(a.in_channels, a.out_channels) for a in adapters] == [(5, 12)]
