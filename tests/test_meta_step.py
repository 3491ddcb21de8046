"""The meta step: closed forms, the two engines against each other, buffers, masks, first and second order."""

import copy
from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import l1_loss, mse_loss

from lra.meta.checks import MetaStepError
from lra.meta.inner import InnerAdam
from lra.meta.lookahead import Forward, LookAhead, MetaStep, in_one_batch
from lra.meta.options import LookAheadOptions
from lra.meta.step import LookAheadStep

pytestmark = pytest.mark.kernels

TOLERANCE = 1e-9


class Residual(nn.Module):
    """Two 3x3 convolutions with batch norm and a shortcut, as in ResNet."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.body(x))


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attend = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(2).transpose(1, 2)
        return self.attend(tokens, tokens, tokens, need_weights=False)[0]


def lenet() -> nn.Module:
    head = nn.Sequential(nn.Flatten(), nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 5))
    return nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 6, 2), nn.ReLU(), *head)


def resnet() -> nn.Module:
    stem = nn.Sequential(nn.Conv2d(2, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6), nn.ReLU())
    return nn.Sequential(stem, Residual(6), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 5))


def wrn() -> nn.Module:
    first = nn.Sequential(nn.Conv2d(2, 6, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(6), nn.ReLU())
    second = nn.Sequential(nn.Dropout(0.3), nn.Conv2d(6, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU())
    return nn.Sequential(first, second, nn.AvgPool2d(2), nn.Flatten(), nn.Linear(8, 5))


def spectral() -> nn.Module:
    convolution = nn.utils.parametrizations.spectral_norm(nn.Conv2d(2, 4, 3))
    return nn.Sequential(convolution, nn.Tanh(), nn.Flatten(), nn.Linear(64, 5))


def group() -> nn.Module:
    return nn.Sequential(nn.Conv2d(2, 8, 3, stride=2), nn.GroupNorm(2, 8), nn.GELU(), nn.Flatten(), nn.Linear(32, 5))


def attention() -> nn.Module:
    return nn.Sequential(nn.Conv2d(2, 8, 3, stride=2), Attention(), nn.Flatten(), nn.Linear(32, 5))


NETS: list[Callable[[], nn.Module]] = [lenet, resnet, wrn, spectral, group, attention]
INNERS: dict[str, dict[str, Any]] = {
    "sgd": {"alpha": 0.1},
    "decay": {"alpha": 0.1, "inner_weight_decay": 5e-2},
    "adam": {"alpha": 0.02, "inner": "adam", "inner_weight_decay": 1e-2},
    "clip": {"alpha": 0.1, "clip": 0.05},
    "normalise": {"alpha": 0.1, "normalise": True},
}


@pytest.fixture(autouse=True)
def _double(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(InnerAdam, "eps", 1e-2)  # with a derivative that can be compared
    dtype = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    yield
    torch.set_default_dtype(dtype)


def made(build: Callable[[], nn.Module]) -> nn.Module:
    torch.manual_seed(1)
    student = build()
    for layer in student.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.normal_(layer.bias)
    return student


def batches(seed: int = 2) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    return draw(12, 2, 6, 6), draw(12, 5), draw(4, 2, 6, 6), draw(4, 5)


def look_ahead(updates_statistics: bool = True, **options: Any) -> LookAheadStep:
    """A step whose α is not learned, and in which each batch has statistics of its own, unless that is asked for."""
    return LookAheadStep(
        LookAheadOptions(**{"alpha": 0.1, "alpha_rate": 0.0, "statistics": "batch", **options}), updates_statistics
    )


def lookahead(student: nn.Module, **options: Any) -> LookAhead:
    return look_ahead(**options).open(student)


def step(
    student: nn.Module,
    loss: Callable[..., Tensor] = mse_loss,
    weight: float = 1.0,
    curvature: Any = None,
    **options: Any,
) -> MetaStep:
    x, t, x_old, t_old = batches()
    torch.manual_seed(7)
    losses = [lambda f: loss(f(x), t), lambda f: loss(f(x_old), t_old)]
    return look_ahead(**options)(student, *losses, weight=weight, curvature=curvature)


def policy(batchnorm: str) -> dict[str, Any]:
    """Which passes move the buffers: of one batch, of both, or none."""
    return {"updates_statistics": False} if batchnorm == "none" else {"batchnorm": batchnorm}


def far(left: Any, right: Any) -> float:
    """Largest relative distance between two lists of tensors."""
    return max(float((a - b).norm() / b.norm().clamp(min=1e-12)) for a, b in zip(left, right, strict=True) if a.numel())


def test_quadratic_matches_the_closed_form() -> None:
    class Point(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.theta = nn.Parameter(torch.randn(6))

        def forward(self) -> Tensor:
            return self.theta

    point, alpha, weight = Point(), 0.07, 0.6
    root_a, root_r, b, c = torch.randn(6, 6), torch.randn(6, 6), torch.randn(6), torch.randn(6)
    hessian, old = root_a @ root_a.T, root_r @ root_r.T
    result = look_ahead(alpha=alpha)(
        point,
        lambda f: 0.5 * f() @ hessian @ f() + b @ f(),
        lambda f: 0.5 * f() @ old @ f() + c @ f(),
        weight=weight,
    )
    theta = point.theta.detach()
    g = hessian @ theta + b
    v = old @ (theta - alpha * g) + c
    assert far(result.gradients, [g + weight * (v - alpha * hessian @ v)]) < 1e-12
    assert float(result.alignment) == pytest.approx(float(g @ v / (g.norm() * v.norm())))


def test_linear_model_matches_the_closed_form() -> None:
    model, alpha = nn.Linear(4, 1, bias=False), 0.05
    x, t, x_old, t_old = torch.randn(9, 4), torch.randn(9, 1), torch.randn(3, 4), torch.randn(3, 1)
    result = look_ahead(alpha=alpha)(model, lambda f: mse_loss(f(x), t), lambda f: mse_loss(f(x_old), t_old))
    w = model.weight.detach().T
    hessian = 2 * x.T @ x / 9
    g = hessian @ w - 2 * x.T @ t / 9
    v = 2 * x_old.T @ (x_old @ (w - alpha * g) - t_old) / 3
    assert far(result.gradients, [(g + v - alpha * hessian @ v).T]) < 1e-12


class Shared(nn.Module):
    """A layer and a BatchNorm under two names each."""

    def __init__(self) -> None:
        super().__init__()
        # No bias, whose gradient BatchNorm makes zero.
        self.first, self.a = nn.Conv2d(2, 4, 3, bias=False), nn.Conv2d(4, 4, 3, padding=1, bias=False)
        self.n = nn.BatchNorm2d(4)
        self.b, self.m = self.a, self.n
        self.fc = nn.Linear(64, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.tanh(self.n(self.a(self.first(x))))
        return self.fc(torch.tanh(self.m(self.b(x))).flatten(1))


class Tied(Shared):
    """Two layers with one weight, two BatchNorms with one running mean."""

    def __init__(self) -> None:
        super().__init__()
        self.b, self.m = nn.Conv2d(4, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)
        self.b.weight, self.m.running_mean = self.a.weight, self.n.running_mean


@pytest.mark.parametrize("batchnorm", ["acquisition", "both", "none"])
@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("kind", [Shared, Tied])
def test_what_layers_share_moves_as_one(kind: type[Shared], order: int, batchnorm: str) -> None:
    """Against the objective written out with a weight that is handed to both layers."""
    student = made(kind)
    owners, parameters = list(student.parameters()), dict(student.named_parameters())
    before, statistics = copy.deepcopy(student), copy.deepcopy(student)
    x, t, x_old, t_old = batches()
    found = step(student, order=order, **policy(batchnorm))
    assert all(a is b for a, b in zip(student.parameters(), owners, strict=True)), "the student keeps its parameters"
    if batchnorm == "acquisition":
        statistics(x)
        for name, buffer in student.named_buffers():
            torch.testing.assert_close(buffer, dict(statistics.named_buffers())[name])

    def forward(weights: dict[str, Tensor], inputs: Tensor) -> Tensor:
        both = {name.replace("a.", "b."): weights[name] for name in weights if name.startswith("a.w")}
        ties = weights | {name: value for name, value in both.items() if kind is Tied}
        return functional_call(copy.deepcopy(before), ties, inputs, tie_weights=kind is Shared)

    theta = {name: value.detach().clone().requires_grad_() for name, value in parameters.items()}
    gradients = torch.autograd.grad(mse_loss(forward(theta, x), t), list(theta.values()), create_graph=order == 2)
    ahead = {name: v - 0.1 * g for (name, v), g in zip(theta.items(), gradients, strict=True)}
    total = mse_loss(forward(theta, x), t) + mse_loss(forward(ahead, x_old), t_old)
    assert far(found.gradients, torch.autograd.grad(total, list(theta.values()))) < TOLERANCE


def plain(student: nn.Module, loss: Callable[..., Tensor] = mse_loss, alpha: float = 0.1) -> tuple[Tensor, ...]:
    """The step written out for SGD, with nothing of the toolkit in it."""
    names = [name for name, _ in student.named_parameters()]
    theta = list(student.parameters())
    x, t, x_old, t_old = batches()
    torch.manual_seed(7)

    buffers = {name: b.detach().clone() for name, b in student.named_buffers()}

    def forward(parameters: list[Tensor], inputs: Tensor) -> Tensor:
        return functional_call(student, {**dict(zip(names, parameters, strict=True)), **buffers}, inputs)

    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        acquisition = loss(forward(theta, x), t)
    g = torch.autograd.grad(acquisition, theta, create_graph=True)
    moved = [p - alpha * d for p, d in zip(theta, g, strict=True)]
    return torch.autograd.grad(acquisition + loss(forward(moved, x_old), t_old), theta)


@pytest.mark.parametrize("build", [lenet, resnet, group, attention])
@pytest.mark.parametrize("rules", [True, False])
def test_equals_the_step_written_out(build: Callable[[], nn.Module], rules: bool) -> None:
    assert far(step(made(build), rules=rules).gradients, plain(made(build))) < TOLERANCE


@pytest.mark.parametrize("build", NETS)
@pytest.mark.parametrize("inner", INNERS)
@pytest.mark.parametrize("order", [1, 2])
def test_engines_agree(build: Callable[[], nn.Module], inner: str, order: int) -> None:
    students = [made(build), made(build)]
    lean = step(students[0], **INNERS[inner], order=order, engine="lean")
    higher = step(students[1], **INNERS[inner], order=order, engine="higher")
    assert far(lean.gradients, higher.gradients) < TOLERANCE
    assert float(lean.alignment) == pytest.approx(float(higher.alignment), rel=TOLERANCE)
    for name, buffer in students[0].named_buffers():
        assert torch.equal(buffer, students[1].get_buffer(name)), name


@pytest.mark.parametrize("engine", ["lean", "higher"])
@pytest.mark.parametrize("ahead", ["batch", "joint", "running"])
@pytest.mark.parametrize(("moving", "updates"), [("none", 0), ("acquisition", 1), ("both", 2)])
def test_buffers_follow_the_policy(engine: str, ahead: str, moving: str, updates: int) -> None:
    student, reference = made(resnet), made(resnet)
    if (moving, ahead) == ("both", "joint"):
        with pytest.raises(ValueError, match="change one"):
            step(student, engine=engine, statistics=ahead, **policy(moving))
        return
    step(student, engine=engine, statistics=ahead, **policy(moving))
    if updates:
        reference(batches()[0])
    expected = updates - (moving == "both" and ahead == "running")
    assert int(student.get_buffer("0.1.num_batches_tracked")) == expected
    for name, buffer in reference.named_buffers():
        if expected < 2:
            assert torch.allclose(student.get_buffer(name), buffer, rtol=1e-12), name
    assert all(layer.training for layer in student.modules())


@pytest.mark.parametrize(
    ("moving", "ahead"),
    [
        *product(["none", "acquisition", "both"], ["batch", "running"]),
        *product(["none", "acquisition"], ["joint"]),
    ],
)
def test_engines_agree_on_buffers(moving: str, ahead: str) -> None:
    students = [made(resnet), made(resnet)]
    results = [
        step(student, engine=engine, statistics=ahead, **policy(moving))
        for student, engine in zip(students, ["lean", "higher"], strict=True)
    ]
    assert far(results[0].gradients, results[1].gradients) < TOLERANCE
    for name, buffer in students[0].named_buffers():
        assert torch.allclose(buffer, students[1].get_buffer(name), rtol=1e-12), name


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("build", NETS)
def test_lent_statistics_have_the_same_gradient_with_and_without_rules(
    build: Callable[[], nn.Module], order: int
) -> None:
    """And from both engines; the rules are made to apply, for they leave small batches alone."""
    found = [
        step(made(build), statistics="joint", engine=engine, order=order, rules=rules).gradients
        for engine in ("lean", "higher")
        for rules in (False, True)
    ]
    for gradients in found[1:]:
        assert far(found[0], gradients) < TOLERANCE


def test_lent_statistics_of_both_batches_at_a_zero_rate_give_plain_replay() -> None:
    student = made(resnet)
    x, t, x_old, t_old = batches()

    def acquisition(forward: Forward) -> Tensor:
        return mse_loss(in_one_batch(forward, x_old)(x), t)

    def retention(forward: Forward) -> Tensor:
        return mse_loss(forward(x_old), t_old)

    found = look_ahead(alpha=0.0, statistics="joint")(student, acquisition, retention).gradients
    outputs = student(torch.cat([x, x_old]))
    plain = mse_loss(outputs[: len(x)], t) + mse_loss(outputs[len(x) :], t_old)
    assert far(found, torch.autograd.grad(plain, list(student.parameters()))) < TOLERANCE


def test_statistics_can_only_be_lent_by_a_pass_of_the_look_ahead() -> None:
    student = made(resnet)
    x, t, x_old, _ = batches()
    with lookahead(student, statistics="joint") as look:
        look.advance(mse_loss(student(x), t))
        with pytest.raises(MetaStepError, match=r"look\.student"):
            look.ahead(x_old)


def test_running_statistics_ahead_change_the_gradient() -> None:
    own, running = (step(made(resnet), statistics=kind).gradients for kind in ("batch", "running"))
    assert far(own, running) > 1e-3


@pytest.mark.parametrize("engine", ["lean", "higher"])
@pytest.mark.parametrize("order", [1, 2])
def test_a_zero_rate_gives_the_joint_gradient(engine: str, order: int) -> None:
    student = made(wrn)
    student[1][0].p = 0.0
    x, t, x_old, t_old = batches()
    joint = torch.autograd.grad(
        mse_loss(student(x), t) + 0.3 * mse_loss(student(x_old), t_old), list(student.parameters())
    )
    found = step(student, alpha=0.0, engine=engine, order=order, weight=0.3).gradients
    assert far(found, joint) < TOLERANCE


def test_first_order_is_g_plus_v() -> None:
    student = made(lenet)
    x, t, x_old, t_old = batches()
    g = torch.autograd.grad(mse_loss(student(x), t), list(student.parameters()))
    moved = copy.deepcopy(student)
    with torch.no_grad():
        for p, d in zip(moved.parameters(), g, strict=True):
            p.sub_(d, alpha=0.1)
    v = torch.autograd.grad(mse_loss(moved(x_old), t_old), list(moved.parameters()))
    expected = [a + b for a, b in zip(g, v, strict=True)]
    assert far(step(student, order=1).gradients, expected) < TOLERANCE


def test_orders_meet_linearly_as_the_rate_vanishes() -> None:
    gaps = []
    for rate in (1e-2, 1e-3, 1e-4):
        second, first = (step(made(resnet), alpha=rate, order=order).gradients for order in (2, 1))
        gaps.append(float(torch.cat([(a - b).flatten() for a, b in zip(second, first, strict=True)]).norm()))
    assert gaps[0] > 0
    assert gaps[1] / gaps[0] == pytest.approx(0.1, rel=0.2)
    assert gaps[2] / gaps[1] == pytest.approx(0.1, rel=0.05)


@pytest.mark.parametrize("engine", ["lean", "higher"])
def test_the_dropout_mask_of_the_acquisition_pass_is_kept(engine: str) -> None:
    assert far(step(made(wrn), engine=engine).gradients, plain(made(wrn))) < TOLERANCE


def test_l1_on_logits() -> None:
    assert far(step(made(resnet), loss=l1_loss).gradients, plain(made(resnet), loss=l1_loss)) < TOLERANCE


@pytest.mark.parametrize("engine", ["lean", "higher"])
@pytest.mark.parametrize("order", [1, 2])
def test_frozen_and_idle_parameters(engine: str, order: int) -> None:
    class Partial(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.frozen = nn.Linear(72, 6).requires_grad_(False)
            self.idle = nn.Linear(3, 3)
            self.head = nn.Linear(6, 5)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(torch.tanh(self.frozen(x.flatten(1))))

    student = made(Partial)
    found = step(student, engine=engine, order=order, inner_weight_decay=0.1).gradients
    shapes = [tuple(g.shape) for g in found]
    assert shapes == [(3, 3), (3,), (5, 6), (5,)]
    assert all(float(g.abs().max()) == 0 for g in found[:2])
    assert all(float(g.abs().max()) > 0 for g in found[2:])
    assert all(p.grad is None for p in student.parameters())


@pytest.mark.parametrize("engine", ["lean", "higher"])
def test_tied_weights_count_once(engine: str) -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(5, 5)
            self.second = nn.Linear(5, 5)
            self.second.weight = self.first.weight

        def forward(self, x: Tensor) -> Tensor:
            return self.second(torch.tanh(self.first(x.flatten(1)[:, :5])))

    found = step(made(Tied), engine=engine).gradients
    assert len(found) == 3
    theta = made(Tied)
    x, t, x_old, t_old = batches()
    leaves = list(theta.parameters())
    acquisition = mse_loss(theta(x), t)
    g = torch.autograd.grad(acquisition, leaves, create_graph=True)
    w, b, c = (p - 0.1 * d for p, d in zip(leaves, g, strict=True))
    moved = torch.tanh(x_old.flatten(1)[:, :5] @ w.T + b) @ w.T + c
    assert far(found, torch.autograd.grad(acquisition + mse_loss(moved, t_old), leaves)) < TOLERANCE


def test_old_style_spectral_norm_and_hooks_work_under_the_lean_engine() -> None:
    def hooked() -> nn.Module:
        student = lenet()
        student[1].register_forward_hook(lambda module, inputs, output: 1.5 * output)
        return student

    def old() -> nn.Module:
        return nn.Sequential(nn.utils.spectral_norm(nn.Conv2d(2, 4, 3)), nn.Tanh(), nn.Flatten(), nn.Linear(64, 5))

    for build in (hooked, old):
        assert far(step(made(build)).gradients, plain(made(build))) < TOLERANCE


def test_terms_of_the_retention_at_theta_count() -> None:
    x, t, x_old, t_old = batches()
    results = []
    for engine in ("lean", "higher"):
        student = made(lenet)
        with lookahead(student, engine=engine) as look:
            look.advance(mse_loss(look.student(x), t))
            direct = mse_loss(look.student(x_old), t_old)
            results.append(look.gradient(mse_loss(look.ahead(x_old), t_old) + direct).gradients)
    student = made(lenet)
    extra = torch.autograd.grad(mse_loss(student(x_old), t_old), list(student.parameters()))
    alone = step(student).gradients
    assert far(results[0], [a + b for a, b in zip(alone, extra, strict=True)]) < TOLERANCE
    assert far(results[0], results[1]) < TOLERANCE


@pytest.mark.parametrize("inner", INNERS)
def test_curvature_on_the_whole_batch_is_exact(inner: str) -> None:
    x, t, _, _ = batches()
    student = made(resnet)
    stood_in = step(student, **INNERS[inner], curvature=lambda forward: mse_loss(forward(x), t))
    exact = step(made(resnet), **INNERS[inner])
    assert far(stood_in.gradients, exact.gradients) < TOLERANCE
    assert int(student.get_buffer("0.1.num_batches_tracked")) == 1


@pytest.mark.parametrize("engine", ["lean", "higher"])
def test_learned_rates_get_their_gradient(engine: str) -> None:
    def objective(rate: float) -> float:
        student = made(resnet)
        result = step(student, alpha=rate, engine=engine)
        return float(result.retention)

    for order in (1, 2):
        found = step(made(resnet), alpha_rate=0.02, engine=engine, order=order).alpha_gradient
        slope = (objective(0.1 + 1e-6) - objective(0.1 - 1e-6)) / 2e-6
        assert float(sum(found)) == pytest.approx(slope, rel=1e-5)


@pytest.mark.parametrize("engine", ["lean", "higher"])
def test_learned_rates_are_one_for_each_parameter(engine: str) -> None:
    student = made(lenet)
    result = step(student, alpha_rate=0.02, engine=engine)
    assert far(result.gradients, step(made(lenet)).gradients) < TOLERANCE
    assert [g.shape for g in result.alpha_gradient] == [() for _ in student.parameters()]


def test_the_engine_leaves_the_student_alone() -> None:
    student = made(resnet)
    before = copy.deepcopy(dict(student.named_parameters()))
    with lookahead(student, updates_statistics=False) as look:
        look.advance(look.student(batches()[0]).square().mean())
        look.gradient(look.ahead(batches()[2]).square().mean())
    assert all(torch.equal(p, before[name]) and p.grad is None for name, p in student.named_parameters())
    assert int(student.get_buffer("0.1.num_batches_tracked")) == 0
