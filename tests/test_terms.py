"""Synthesis terms in float64 against closed forms; what each leaves alone."""

import copy
import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lra.distances import from_recovered, js, js_reversed, kl, kl_reversed, l1, recovered
from lra.problem import Teacher
from lra.synthesis.online import OnlineGenerator, SharedLatents
from lra.synthesis.terms import (
    L2,
    Activation,
    Adversarial,
    Balance,
    BNStat,
    CoupledMaps,
    OneHot,
    PriorFeature,
    Smoothness,
    SoftLabelKL,
    SquaredGap,
    Term,
    TotalVariation,
    ZerothOrder,
    total,
)
from lra.synthesis.terms.priors import blurred
from lra.view import View

pytestmark = pytest.mark.kernels

pytestmark = pytest.mark.usefixtures("double")

CLASSES = 5


class Logits(nn.Module):
    """Images (n, 1, 1, K), passed on as logits."""

    def __init__(self, weight: float = 1.0):
        super().__init__()
        self.linear = nn.Linear(CLASSES, CLASSES, bias=False)
        with torch.no_grad():
            self.linear.weight.copy_(torch.eye(CLASSES) * weight)

    def forward(self, images: Tensor) -> Tensor:
        return self.linear(images.flatten(1))


def logits_view(logits: Tensor, labels: Tensor | None = None, weight: float = 2.0) -> View:
    """A view whose teacher says ``logits`` and whose student says ``weight`` times as much."""
    return View(logits[:, None, None, :], Teacher(Logits()), Logits(weight), labels)


@pytest.fixture
def logits() -> Tensor:
    return (3 * torch.randn(7, CLASSES, generator=torch.Generator().manual_seed(0))).requires_grad_()


def gradient(term: Term, view: View, wanted: Tensor) -> Tensor:
    loss, _ = total([term], view)
    return torch.autograd.grad(loss, wanted)[0]


def test_a_sum_reports_raw_and_weighted_values_and_skips_what_has_no_weight(logits: Tensor) -> None:
    loss, values = total([OneHot(0.5), Balance(2.0), Activation(0.0)], logits_view(logits))
    assert set(values) == {"one_hot", "balance"}
    assert values["one_hot"].weighted == 0.5 * values["one_hot"].raw
    assert torch.isclose(loss, sum((v.weighted for v in values.values()), torch.zeros(())))


def test_one_hot_sends_no_gradient_through_the_label(logits: Tensor) -> None:
    found = gradient(OneHot(1.0), logits_view(logits), logits)
    wanted = (logits.softmax(dim=1) - F.one_hot(logits.argmax(dim=1), CLASSES)) / len(logits)
    torch.testing.assert_close(found, wanted)


def test_one_hot_of_mixed_labels_is_mixed(logits: Tensor) -> None:
    first, second = torch.arange(7) % CLASSES, torch.arange(7).flip(0) % CLASSES
    share = torch.tensor([0.0, 1.0, 0.25, 0.5, 0.75, 0.0, 1.0])
    soft = F.one_hot(first, CLASSES).double().lerp(F.one_hot(second, CLASSES).double(), share[:, None])
    losses = [F.cross_entropy(logits, labels, reduction="none") for labels in (first, second)]
    wanted = ((1 - share) * losses[0] + share * losses[1]).mean()
    torch.testing.assert_close(OneHot(1.0)(logits_view(logits, soft)), wanted)


def test_the_reversed_divergence_sums_over_the_students_answer(logits: Tensor) -> None:
    p, q = logits.softmax(dim=1), (2 * logits).softmax(dim=1)
    torch.testing.assert_close(kl_reversed(2 * logits, logits), (q * (q.log() - p.log())).sum(dim=1))


def test_features_of_a_class_prior_lie_on_its_line() -> None:
    """Those that say y with 0.9, for any constant: cosine 1; and no student is looked at."""
    torch.manual_seed(0)
    head = nn.Linear(9, CLASSES)
    with torch.no_grad():
        head.weight.mul_(10)
    labels, delta = torch.arange(CLASSES), math.log(0.9 * (CLASSES - 1) / 0.1)
    logits = delta * torch.eye(CLASSES) + torch.tensor([[3.0], [-2.0], [1.0], [0.5], [4.0]])
    features = ((logits - head.bias) @ torch.linalg.pinv(head.weight.T)).detach()
    teacher = Teacher(nn.Sequential(nn.Flatten(), head))
    said = teacher(features[:, None, None]).softmax(dim=1).diagonal()
    torch.testing.assert_close(said, torch.full((CLASSES,), 0.9))
    term = PriorFeature(1.0, head)
    view = View(features[:, None, None].requires_grad_(), teacher, None, labels).watching({"features"})
    torch.testing.assert_close(term(view), torch.ones(()))
    mixed = F.one_hot(labels, CLASSES).double().lerp(torch.full((CLASSES, CLASSES), 1 / CLASSES), 0.5)
    assert term(View(features[:, None, None], teacher, None, mixed).watching({"features"})) == 0


@pytest.mark.filterwarnings("error")
def test_a_last_layer_that_cannot_be_inverted_is_warned_of() -> None:
    with pytest.raises(UserWarning, match="cannot be inverted"):
        PriorFeature(1.0, nn.Linear(CLASSES - 1, CLASSES))
    with pytest.raises(ValueError, match="need a linear one"):
        PriorFeature(1.0, nn.Conv2d(1, 2, 1))


def test_coupled_maps_want_what_the_teacher_saw_with_real_statistics() -> None:
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(2)
    norm.running_mean.copy_(torch.tensor([1.0, -2.0]))
    norm.running_var.copy_(torch.tensor([4.0, 0.25]))
    teacher = Teacher(nn.Sequential(nn.Conv2d(1, 2, 3), norm, nn.Flatten(), nn.Linear(72, CLASSES)))
    images = torch.rand(6, 1, 8, 8)
    view = View(images, teacher).watching({"batchnorm"})
    term = CoupledMaps(1.0, [0], BNStat(1.0, 0.9))
    wanted = term.wanted(view, 0)
    torch.testing.assert_close(wanted.mean((0, 2, 3)), norm.running_mean)
    torch.testing.assert_close(wanted.var((0, 2, 3)), norm.running_var)
    maps = wanted.clone().requires_grad_()
    coupled = View(images, teacher, generator_maps=[maps]).watching({"batchnorm"})
    assert term(coupled) == 0
    other = copy.deepcopy(teacher)
    with torch.no_grad():
        other.network[0].weight.mul_(3)
        other.network[0].bias.mul_(3).add_(1)
    torch.testing.assert_close(term.wanted(View(images, other).watching({"batchnorm"}), 0), wanted)
    term.statistics.remembered = [(view.statistics[0].mean + 1, view.statistics[0].variance)]
    assert not torch.allclose(term.wanted(view, 0), wanted)


def test_probabilities_taken_for_logits_bound_the_cross_entropy() -> None:
    certain = 1e3 * torch.eye(CLASSES)
    right, wrong = (
        OneHot(1.0, double_softmax=True)(logits_view(certain, torch.arange(CLASSES).roll(n))) for n in (0, 1)
    )
    rest = math.e + CLASSES - 1
    assert right.item() == pytest.approx(math.log(rest) - 1)
    assert wrong.item() == pytest.approx(math.log(rest))


def test_the_squared_gap_goes_through_the_student_alone(logits: Tensor) -> None:
    # The student says twice what the teacher does, so the gap is the logits themselves.
    assert SquaredGap(1.0)(logits_view(logits)).item() == pytest.approx(-logits.square().mean().item())
    torch.testing.assert_close(gradient(SquaredGap(1.0), logits_view(logits), logits), -4 * logits / logits.numel())
    assert SquaredGap(1.0, True)(logits_view(logits)).item() == pytest.approx(-logits.square().mean().log().item())
    assert torch.isfinite(SquaredGap(1.0, True)(logits_view(logits, weight=1.0)))


def test_balance_is_the_negative_entropy_of_the_mean_prediction(logits: Tensor) -> None:
    for temperature in (1.0, 4.0):
        mean = (logits / temperature).softmax(dim=1).mean(dim=0)
        found = Balance(1.0, temperature)(logits_view(logits))
        torch.testing.assert_close(found, (mean * mean.log()).sum())


def test_balance_is_lowest_at_log_k_and_its_gradient_raises_the_entropy(logits: Tensor) -> None:
    even = torch.eye(CLASSES) * 50
    torch.testing.assert_close(Balance(1.0)(logits_view(even)), torch.tensor(-math.log(CLASSES)))
    step = logits - 0.1 * gradient(Balance(1.0), logits_view(logits), logits)
    assert Balance(1.0)(logits_view(step)) < Balance(1.0)(logits_view(logits))


def test_balance_stays_finite_where_a_class_underflows() -> None:
    sure = torch.tensor([[1e4, 0, 0, 0, 0.0]] * 3, requires_grad=True)
    found = gradient(Balance(1.0), logits_view(sure), sure)
    assert found.isfinite().all()


def test_soft_labels_are_a_divergence_at_a_temperature(logits: Tensor) -> None:
    labels = torch.softmax(torch.randn(7, CLASSES), dim=1)
    log_q = (logits / 3).log_softmax(dim=1)
    wanted = 9 * (labels * (labels.log() - log_q)).sum(dim=1).mean()
    torch.testing.assert_close(SoftLabelKL(1.0, 3.0)(logits_view(logits, labels)), wanted)
    with pytest.raises(ValueError, match="soft labels"):
        SoftLabelKL(1.0)(logits_view(logits))


def test_the_adversary_is_minus_the_distance(logits: Tensor) -> None:
    found = Adversarial(1.0, l1)(logits_view(logits))
    torch.testing.assert_close(found, -logits.abs().mean())
    through_both = gradient(Adversarial(1.0, l1), logits_view(logits), logits)
    through_student = gradient(Adversarial(1.0, l1, detach_teacher=True), logits_view(logits), logits)
    torch.testing.assert_close(through_both, -logits.sign() / logits.numel())
    torch.testing.assert_close(through_student, 2 * through_both)


def test_a_masked_adversary_sees_only_where_both_agree(logits: Tensor) -> None:
    agree = Adversarial(1.0, l1, mask="agree")
    torch.testing.assert_close(agree(logits_view(logits)), Adversarial(1.0, l1)(logits_view(logits)))
    disagree = logits_view(logits, weight=-1.0)
    assert agree(disagree) == 0
    assert not gradient(agree, logits_view(logits, weight=-1.0), logits).any()
    assert Adversarial(1.0, l1, mask="agree", over="masked")(disagree) == 0


def test_distances_have_their_closed_forms(logits: Tensor) -> None:
    student, teacher = logits.detach().flip(0), logits.detach()
    p, q = (teacher / 4).softmax(dim=1), (student / 4).softmax(dim=1)
    torch.testing.assert_close(kl(student, teacher, 4.0), 16 * (p * (p / q).log()).sum(dim=1))
    m = (p + q) / 2
    wanted = ((p * (p / m).log()).sum(dim=1) + (q * (q / m).log()).sum(dim=1)) / 2
    torch.testing.assert_close(js(student, teacher, 4.0), wanted)


def test_the_reversed_divergence_is_not_bounded_and_flat_where_clamped() -> None:
    sure = torch.tensor([[50.0, 0, 0, 0, 0]], requires_grad=True)
    other = torch.tensor([[0, 50.0, 0, 0, 0]])
    found = js_reversed(other, sure, 1.0)
    assert found.item() > math.log(2)
    assert torch.autograd.grad(found.sum(), sure)[0].abs().max() < 1e-12


def test_the_students_loss_has_no_gradient_for_the_teacher() -> None:
    teacher, student = Teacher(Logits()), Logits(2.0)
    kl(student(torch.rand(3, 1, 1, CLASSES)), teacher.label(torch.rand(3, 1, 1, CLASSES))).mean().backward()
    assert student.linear.weight.grad is not None
    assert all(p.grad is None for p in teacher.parameters())


def test_recovered_logits_are_the_true_ones_centred(logits: Tensor) -> None:
    torch.testing.assert_close(recovered(logits), logits - logits.mean(dim=1, keepdim=True))
    torch.testing.assert_close(from_recovered(kl)(2 * logits, logits), kl(2 * logits, logits))


def test_image_priors() -> None:
    ramp = torch.arange(4.0).expand(2, 1, 3, 4)
    view = View(torch.zeros(2, 1, 3, 4), Teacher(nn.Identity()), plain=ramp)
    assert TotalVariation(1.0)(view) == 3, "1 along rows, 0 along columns, 1 along each diagonal"
    torch.testing.assert_close(L2(1.0)(view), (ramp**2).sum().sqrt())


class Normed(nn.Module):
    """A BatchNorm layer, then a mean over pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        return self.norm(images).mean(dim=(2, 3))


def norm_view(images: Tensor) -> tuple[View, nn.BatchNorm2d]:
    network = Normed()
    network.norm.running_mean = torch.linspace(-1, 1, CLASSES)
    network.norm.running_var = torch.linspace(0.5, 2, CLASSES)
    return View(images, Teacher(network)), network.norm


def test_statistics_as_remembered_cost_nothing() -> None:
    images = torch.randn(8, CLASSES, 3, 3)
    view, norm = norm_view(images)
    norm.running_var, norm.running_mean = torch.var_mean(images, (0, 2, 3), correction=0)
    for gap in ("l2", "mse", "kl"):
        loss, _ = total([BNStat(1.0, gap=gap)], view)
        assert loss.abs() < 1e-12


def test_statistics_are_compared_by_norms_that_are_not_squared() -> None:
    images = torch.randn(8, CLASSES, 3, 3)
    view, norm = norm_view(images)
    variance, mean = torch.var_mean(images, (0, 2, 3), correction=0)
    loss, _ = total([BNStat(3.0)], view)
    torch.testing.assert_close(loss, 3 * ((variance - norm.running_var).norm() + (mean - norm.running_mean).norm()))


def test_momentum_at_the_running_statistics_scales_value_and_gradient() -> None:
    images = torch.randn(8, CLASSES, 3, 3, requires_grad=True)
    view, norm = norm_view(images)
    plain, _ = total([BNStat(1.0)], view)
    term = BNStat(1.0, momentum=0.9)
    term.remembered = [(norm.running_mean, norm.running_var)]
    slow, _ = total([term], view)
    torch.testing.assert_close(slow, 0.1 * plain)
    wanted = torch.autograd.grad(plain, images, retain_graph=True)[0]
    torch.testing.assert_close(torch.autograd.grad(slow, images)[0], 0.1 * wanted)


def test_momentum_starts_plain_and_remembers_the_last_batch_of_each_experience() -> None:
    first, second = torch.randn(8, CLASSES, 3, 3), torch.randn(8, CLASSES, 3, 3)
    term = BNStat(1.0, momentum=0.9)
    loss, _ = total([term], norm_view(first)[0])
    torch.testing.assert_close(loss, total([BNStat(1.0)], norm_view(first)[0])[0])
    term.settle()
    total([term], norm_view(first)[0])
    total([term], norm_view(second)[0])
    term.settle()
    again = BNStat(1.0, momentum=0.9)
    again.load_state_dict(copy.deepcopy(term.state_dict()))
    assert again.remembered is not None
    mean, _ = again.remembered[0]
    torch.testing.assert_close(mean, 0.9 * first.mean((0, 2, 3)) + 0.1 * second.mean((0, 2, 3)))


def quadratic(student: Tensor, teacher: Tensor) -> Tensor:
    return ((student - teacher) ** 2).sum(dim=1)


def test_zeroth_order_estimates_the_gradient_without_a_graph(logits: Tensor) -> None:
    exact = gradient(Adversarial(1.0, quadratic), logits_view(logits), logits)
    torch.manual_seed(0)
    many = ZerothOrder(1.0, quadratic, directions=20000, step=1e-4, chunk=501)
    found = gradient(many, logits_view(logits), logits)
    assert F.cosine_similarity(found.flatten(), exact.flatten(), dim=0) > 0.999
    assert (found.norm() / exact.norm() - 1).abs() < 0.05


def test_zeroth_order_asks_about_every_point_whatever_the_chunk(logits: Tensor) -> None:
    found = []
    for chunk in (1000, 7, 3, 1):
        torch.manual_seed(0)
        view = logits_view(logits)
        found.append(gradient(ZerothOrder(1.0, quadratic, directions=3, chunk=chunk), view, logits))
        assert view.teacher.queries == 7 * 4
        torch.testing.assert_close(found[-1], found[0])
    torch.manual_seed(0)
    summed = gradient(ZerothOrder(1.0, quadratic, directions=3, reduction="sum"), logits_view(logits), logits)
    torch.testing.assert_close(summed, 7 * found[0])


def source(terms: list[Term], kind: type[OnlineGenerator] = OnlineGenerator, **settings: object) -> OnlineGenerator:
    torch.manual_seed(0)
    generator = nn.Sequential(nn.Linear(3, 64), nn.BatchNorm1d(64), nn.Sigmoid(), nn.Unflatten(1, (1, 8, 8)))
    optimiser = torch.optim.SGD(generator.parameters(), lr=0.5)
    teacher = Teacher(nn.Sequential(nn.Flatten(), nn.Linear(64, CLASSES)))
    return kind(generator, optimiser, terms, teacher, latent=3, batch_size=6, **settings)


def test_synthesis_leaves_the_student_as_it_was(student: nn.Module) -> None:
    network = nn.Sequential(student, nn.Linear(10, CLASSES)).train()
    before = copy.deepcopy(network.state_dict())
    found = source([Adversarial(1.0, kl, mask="agree"), Adversarial(1.0, l1)], steps=2)
    found.step(network)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in network.parameters())
    assert network.training


def test_shared_latents_show_the_student_what_the_generator_was_trained_on(student: nn.Module) -> None:
    found = source([OneHot(1.0)], SharedLatents, steps=2)
    found.step(student)
    assert torch.equal(found.latents(6), found.latents(6))
    assert torch.equal(found.draw(4), found.draw(4))
    assert torch.equal(found.latents(9)[:6], found.latents(6))
    before = found.latents(6)
    found.step(student)
    assert not torch.equal(found.latents(6), before)


def test_the_generators_gradient_can_be_clipped(student: nn.Module) -> None:
    moved = []
    for clip in (None, 1e-3):
        found = source([OneHot(1.0)], clip=clip)
        before = [p.detach().clone() for p in found.generator.parameters()]
        found.step(student)
        pairs = zip(found.generator.parameters(), before, strict=True)
        moved.append(sum(((a - b) ** 2).sum() for a, b in pairs) ** 0.5)
    assert moved[1] <= 0.5 * 1e-3 * (1 + 1e-6) < moved[0]


def test_the_order_of_the_divergence_of_statistics_can_be_chosen() -> None:
    images = torch.randn(8, CLASSES, 3, 3)
    view, norm = norm_view(images)
    variance, mean = torch.var_mean(images, (0, 2, 3), correction=0)
    seen = torch.distributions.Normal(mean, variance.sqrt())
    running = torch.distributions.Normal(norm.running_mean, norm.running_var.sqrt())
    for order, pair in {"batch": (seen, running), "running": (running, seen)}.items():
        loss, _ = total([BNStat(1.0, gap="kl", order=order)], view)
        expected = torch.distributions.kl_divergence(*pair).mean()
        torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-6)


def test_one_hot_can_be_asked_at_a_temperature() -> None:
    torch.manual_seed(0)
    view, _ = norm_view(torch.randn(8, CLASSES, 3, 3))
    loss, _ = total([OneHot(1.0, 1000.0)], view)
    logits = view.teacher_logits
    expected = F.cross_entropy(logits / 1000, logits.argmax(dim=1))
    torch.testing.assert_close(loss, expected)
    assert abs(loss - math.log(CLASSES)) < 0.01, "which is nearly that of a uniform answer"


def test_a_smooth_image_is_its_own_blur() -> None:
    spot = torch.zeros(1, 1, 9, 9, dtype=torch.float64)
    spot[0, 0, 4, 4] = 1
    kernel = torch.tensor([[math.exp(-((i - 2) ** 2 + (j - 2) ** 2) / 4) for j in range(5)] for i in range(5)])
    expected = torch.zeros(9, 9, dtype=torch.float64)
    expected[2:7, 2:7] = kernel / kernel.sum()
    assert torch.allclose(blurred(spot)[0, 0], expected, atol=1e-7)
    drawn = spot * 2 + torch.eye(9)
    mirrored = F.conv2d(F.pad(drawn, (2, 2, 2, 2), mode="reflect"), (kernel / kernel.sum())[None, None].double())
    assert torch.allclose(blurred(drawn), mirrored, atol=1e-7)
    flat = torch.full((2, 3, 5, 2), 0.7)
    assert torch.allclose(blurred(flat), flat), "a side of two pixels has nothing to mirror"
    assert torch.allclose(Smoothness(1.0)(View(spot, Teacher(Normed()))), (spot - blurred(spot)).square().mean())
