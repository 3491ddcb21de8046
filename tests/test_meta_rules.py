"""Closed-form rules against PyTorch's own derivatives."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F

from lra.meta.checks import MetaStepError
from lra.meta.closed_form.rules import closed_form
from lra.meta.lookahead import MetaStep
from lra.meta.options import LookAheadOptions
from lra.meta.step import LookAheadStep
from lra.networks import build

pytestmark = pytest.mark.kernels


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def draw(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64).to(dtype).requires_grad_()


def ruled(function: Callable[..., Tensor], name: str) -> Callable[..., Tensor]:
    """``function`` under the rules, checked to have used the one called ``name``."""

    def call(*inputs: Tensor) -> Tensor:
        with closed_form(least=0):
            output = function(*inputs)
        assert output.grad_fn is not None
        assert output.grad_fn.name() == f"{name}Backward", output.grad_fn.name()
        return output

    return call


CONVOLUTIONS = [
    (F.conv2d, (3, 4, 6, 7), (6, 4, 3, 3), {}),
    (F.conv2d, (3, 4, 6, 7), (6, 4, 3, 2), {"stride": (2, 1), "padding": (1, 0)}),
    (F.conv2d, (3, 4, 7, 7), (6, 4, 3, 3), {"padding": 2, "dilation": 2}),
    (F.conv2d, (3, 4, 6, 6), (6, 2, 3, 3), {"padding": 1, "groups": 2}),
    (F.conv2d, (3, 4, 6, 6), (4, 1, 3, 3), {"padding": 4, "groups": 4}),
    (F.conv2d, (2, 3, 4, 4), (2, 3, 1, 1), {"padding": 2}),
    (F.conv1d, (3, 4, 9), (6, 4, 3), {"stride": 2}),
    (F.conv3d, (2, 2, 4, 4, 4), (3, 2, 2, 2, 2), {"padding": 1}),
]


@pytest.mark.parametrize(("function", "image", "kernel", "options"), CONVOLUTIONS)
@pytest.mark.parametrize("bias", [True, False])
def test_convolution_is_exact(function: Any, image: Any, kernel: Any, options: Any, bias: bool) -> None:
    inputs = [draw(*image), draw(*kernel), *([draw(kernel[0])] if bias else [])]
    call = ruled(lambda *tensors: function(*tensors, **options), "Convolution")
    assert torch.equal(call(*inputs), function(*inputs, **options))
    assert torch.autograd.gradcheck(call, inputs, fast_mode=True)
    assert torch.autograd.gradgradcheck(call, inputs, fast_mode=True)


@pytest.mark.parametrize("shape", [(5, 3), (4, 3, 5), (3, 2, 3, 4), (2, 2, 3, 2, 2)])
@pytest.mark.parametrize("affine", [True, False])
def test_batch_norm_is_exact(shape: tuple[int, ...], affine: bool) -> None:
    inputs = [draw(*shape), *([draw(shape[1]), draw(shape[1])] if affine else [])]
    call = ruled(lambda x, *rest: F.batch_norm(x, None, None, *rest, training=True, eps=0.3), "BatchNorm")
    plain = F.batch_norm(inputs[0], None, None, *inputs[1:], training=True, eps=0.3)
    assert torch.allclose(call(*inputs), plain, rtol=1e-12)
    assert torch.autograd.gradcheck(call, inputs, fast_mode=True)
    assert torch.autograd.gradgradcheck(call, inputs, fast_mode=True)


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (torch.relu, "ReLU"),
        (lambda x: x.relu(), "ReLU"),
        (nn.ReLU(), "ReLU"),
        (lambda x: F.relu(x.clone(), inplace=True), "InPlaceReLU"),
        (lambda x: F.max_pool2d(x, 2), "MaxPool"),
        (lambda x: F.max_pool2d(x, 3, stride=2, padding=1, ceil_mode=True), "MaxPool"),
        (nn.MaxPool2d((2, 1)), "MaxPool"),
    ],
)
def test_choices_are_exact(function: Any, name: str) -> None:
    x = draw(2, 3, 6, 4)
    call = ruled(function, name)
    assert torch.equal(call(x), function(x))
    assert torch.autograd.gradcheck(call, (x,), fast_mode=True)
    assert torch.autograd.gradgradcheck(call, (x,), fast_mode=True)


@pytest.mark.parametrize("shape", [(2, 3, 6, 8), (2, 3, 7, 5), (1, 1, 2, 2), (1, 1, 4, 254), (1, 1, 4, 256)])
def test_max_pooling_breaks_ties_as_pytorch_does(shape: tuple[int, ...]) -> None:
    x = torch.randint(0, 3, shape, dtype=torch.float64).requires_grad_()
    weights = torch.randn_like(F.max_pool2d(x, 2))
    (expected,) = torch.autograd.grad((F.max_pool2d(x, 2) * weights).sum(), x)
    with closed_form(least=0):
        pooled = F.max_pool2d(x, 2)
    assert torch.equal(torch.autograd.grad((pooled * weights).sum(), x)[0], expected)


def second(function: Callable[..., Tensor], inputs: list[Tensor], seed: int = 3) -> list[Tensor]:
    """First and second derivatives along random directions, in double precision."""
    generator = torch.Generator().manual_seed(seed)

    def direction(like: Tensor) -> Tensor:
        return torch.randn(like.shape, generator=generator, dtype=torch.float64).to(like.dtype)

    output = function(*inputs)
    first = torch.autograd.grad((output * direction(output)).sum() + output.pow(2).sum(), inputs, create_graph=True)
    both = torch.autograd.grad(sum((g * direction(g)).sum() for g in first), inputs)
    return [g.detach().double() for g in (*first, *both)]


# Channels and strides that take each of the single-precision kernels: channels-last, turned around, plain.
@pytest.mark.parametrize(
    ("channels", "side", "kernel", "stride", "padding"),
    [
        ((16, 32), 8, 3, 1, 1),
        ((16, 16), 8, 3, 2, 1),
        ((32, 16), 8, 1, 2, 0),
        ((3, 8), 14, 5, 1, 0),
        ((6, 16), 14, 5, 1, 0),
        ((4, 5), 9, 3, 1, 1),
        ((4, 5), 9, 3, 2, 1),
        ((20, 7), 9, 3, 1, 0),
    ],
)
@pytest.mark.parametrize("last", [True, False])
def test_single_precision_kernels(channels: Any, side: int, kernel: int, stride: int, padding: int, last: bool) -> None:
    inputs = [draw(4, channels[0], side, side), draw(channels[1], channels[0], kernel, kernel), draw(channels[1])]
    single = [tensor.detach().float().requires_grad_() for tensor in inputs]
    if last:
        single[0] = single[0].detach().contiguous(memory_format=torch.channels_last).requires_grad_()

    def function(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
        return F.conv2d(torch.tanh(x), w, b, stride, padding)

    found = second(ruled(function, "Convolution"), single)
    for value, expected in zip(found, second(function, inputs), strict=True):
        assert float((value - expected).norm() / expected.norm()) < 1e-5


def test_first_layers_do_not_derive_their_images() -> None:
    image, w = torch.randn(4, 3, 8, 8, dtype=torch.float64), draw(16, 3, 3, 3)

    def function(kernel: Tensor) -> Tensor:
        return F.conv2d(image, kernel, padding=1)

    found = second(ruled(function, "Convolution"), [w])
    for value, expected in zip(found, second(function, [w]), strict=True):
        assert torch.allclose(value, expected, rtol=1e-10)


@pytest.mark.parametrize(
    "function",
    [
        lambda x, w: F.conv2d(x, w, padding="same"),
        lambda x, w: F.conv2d(x[0], w),
        lambda x, w: F.conv2d(x.to(torch.complex128), w.to(torch.complex128)),
        lambda x, w: F.batch_norm(x, torch.zeros(4).double(), torch.ones(4).double()),
        lambda x, w: F.max_pool2d(x, 2, return_indices=True)[0],
        lambda x, w: F.relu(x.half()),
    ],
)
def test_what_is_not_covered_is_left_to_pytorch(function: Any) -> None:
    x, w = draw(2, 4, 6, 6), draw(4, 4, 3, 3)
    with closed_form(least=0):
        output = function(x, w)
    assert output.grad_fn.name() not in {"ConvolutionBackward", "BatchNormBackward", "ReLUBackward", "MaxPoolBackward"}
    with closed_form(least=0), pytest.raises(ValueError, match="more than 1 value per channel"):
        F.batch_norm(x[:1, :, :1, :1], None, None, training=True)


def test_first_order_rules_leave_graphs_alone_without_gradients() -> None:
    with torch.no_grad(), closed_form(1, least=0):
        assert F.conv2d(draw(2, 4, 6, 6), draw(4, 4, 3, 3)).grad_fn is None


def test_views_of_channels_last_images() -> None:
    class Old(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.head = nn.Conv2d(3, 16, 3), nn.Linear(16 * 16, 5)

        def forward(self, x: Tensor) -> Tensor:
            x = torch.relu(self.first(x))
            return self.head(x.view(x.size(0), -1))

    student, x = Old(), torch.randn(4, 3, 6, 6)
    with closed_form(least=0):
        assert torch.allclose(student(x), student(x), rtol=1e-6)
        ruled_output = student(x)
    assert torch.allclose(ruled_output, student(x), rtol=1e-4, atol=1e-6)


def test_small_batches_are_left_to_pytorch() -> None:
    w = draw(4, 3, 3, 3)
    for side, ruled_name in ((8, False), (80, True)):
        with closed_form():
            name = F.conv2d(draw(1, 3, side, side), w).grad_fn.name()
        assert (name == "ConvolutionBackward") is ruled_name


def test_a_third_derivative_is_refused() -> None:
    x, w = draw(2, 3, 5, 5), draw(4, 3, 3, 3)
    for call in (
        ruled(lambda x, w: F.conv2d(x, w), "Convolution"),
        ruled(lambda x, w: F.batch_norm(x, None, None, w[:3, 0, 0, 0], training=True), "BatchNorm"),
    ):
        (first,) = torch.autograd.grad(call(x, w).pow(3).sum(), x, create_graph=True)
        with pytest.raises(MetaStepError, match="third"):
            torch.autograd.grad(first.pow(2).sum(), x, create_graph=True)


def meta_step(
    student: nn.Module, acquire: Any, retain: Any, updates_statistics: bool = True, **options: Any
) -> MetaStep:
    settings: dict[str, Any] = {"alpha_rate": 0.0, "statistics": "batch", **options}
    return LookAheadStep(LookAheadOptions(**settings), updates_statistics)(student, acquire, retain)


def far(left: Any, right: Any) -> float:
    """Relative distance between two gradients, each taken as one vector."""
    a, b = (torch.cat([g.double().flatten() for g in side]) for side in (left, right))
    return float((a - b).norm() / b.norm())


NETWORKS = ["lenet5", "lenet5-half", "resnet8", "wrn16-1"]


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("engine", ["lean", "higher"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 2e-3)])
def test_whole_networks(name: str, engine: Any, dtype: torch.dtype, tolerance: float) -> None:
    side = 32 if name.startswith("lenet") else 16
    image = (1 if name.startswith("lenet") else 3, side, side)
    x, x_old = torch.randn(8, *image, dtype=torch.float64), torch.randn(3, *image, dtype=torch.float64)
    t, t_old = torch.randn(8, 10, dtype=torch.float64), torch.randn(3, 10, dtype=torch.float64)

    def step(kind: torch.dtype, **options: Any) -> tuple[Any, nn.Module]:
        torch.manual_seed(1)
        student = build(name, 10, image).double().to(kind)

        def loss(inputs: Tensor, targets: Tensor) -> Callable[..., Tensor]:
            return lambda forward: F.mse_loss(forward(inputs.to(kind)), targets.to(kind))

        return meta_step(student, loss(x, t), loss(x_old, t_old), alpha=0.01, **options), student

    found, student = step(dtype, engine=engine)
    expected, reference = step(torch.float64, rules=False)
    assert far(found.gradients, expected.gradients) < tolerance
    for key, buffer in student.named_buffers():
        assert torch.allclose(buffer.double(), reference.get_buffer(key).double(), rtol=1e-3 + tolerance), key


def test_autocast_keeps_to_its_precision() -> None:
    torch.manual_seed(1)
    student = build("resnet8", 10, (3, 16, 16))
    x, x_old = torch.randn(16, 3, 16, 16), torch.randn(4, 3, 16, 16)

    def step(rules: bool, cast: bool) -> Any:
        def loss(inputs: Tensor) -> Callable[..., Tensor]:
            def call(forward: Any) -> Tensor:
                with torch.autocast("cpu", torch.bfloat16, enabled=cast):
                    return forward(inputs).float().square().mean()

            return call

        return meta_step(student, loss(x), loss(x_old), updates_statistics=False, alpha=0.01, rules=rules).gradients

    exact = step(False, False)
    plain, ruled_far = far(step(False, True), exact), far(step(True, True), exact)
    assert ruled_far < 1.5 * plain + 1e-3


def test_in_place_relu_students() -> None:
    def made(inplace: bool) -> nn.Module:
        torch.manual_seed(1)
        layers = [nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(inplace), nn.Conv2d(16, 4, 3), nn.ReLU(inplace)]
        return nn.Sequential(*layers, nn.Flatten(), nn.Linear(16, 5)).double()

    x, x_old = torch.randn(6, 3, 6, 6).double(), torch.randn(3, 3, 6, 6).double()

    def step(inplace: bool, rules: bool) -> Any:
        loss = [lambda f, i=i: f(i).square().mean() for i in (x, x_old)]
        return meta_step(made(inplace), *loss, alpha=0.1, rules=rules).gradients

    assert far(step(True, True), step(False, False)) < 1e-9


def test_a_torchvision_student_steps_the_same_in_place_or_not() -> None:
    """Its BatchNorm is followed by a ReLU in place, and the rules lay its images out channels-last."""

    def made(inplace: bool) -> nn.Module:
        torch.manual_seed(1)
        network = torchvision.models.resnet18(num_classes=5)
        for part in network.modules():
            if isinstance(part, nn.ReLU):
                part.inplace = inplace
        return network

    x, x_old = torch.randn(4, 3, 32, 32), torch.randn(2, 3, 32, 32)

    def step(inplace: bool) -> Any:
        loss = [lambda f, i=i: f(i).square().mean() for i in (x, x_old)]
        return meta_step(made(inplace), *loss, alpha=0.01).gradients

    assert far(step(True), step(False)) < 1e-6
