"""What a step refuses, each in one line that names the cause."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lra.meta.checks import MetaStepError
from lra.meta.lookahead import LookAhead
from lra.meta.options import LookAheadOptions
from lra.meta.step import LookAheadStep


def small() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 2))


def square(inputs: Tensor) -> Callable[..., Tensor]:
    return lambda forward: forward(inputs).square().mean()


def step(student: nn.Module, curvature: Any = None, **options: Any) -> Any:
    acquire, retain = square(torch.ones(3, 1, 2, 2)), square(torch.ones(2, 1, 2, 2))
    return constant(**options)(student, acquire, retain, curvature=curvature)


def constant(**options: Any) -> LookAheadStep:
    """A step whose α is not learned."""
    settings: dict[str, Any] = {"alpha": 0.1, "alpha_rate": 0.0, "statistics": "batch", **options}
    return LookAheadStep(LookAheadOptions(**settings))


def lookahead(student: nn.Module, **options: Any) -> LookAhead:
    return constant(**options).open(student)


def refused(student: nn.Module, word: str, **options: Any) -> None:
    with pytest.raises(MetaStepError, match=word) as caught:
        step(student, **options)
    assert "\n" not in str(caught.value)


def test_higher_refuses_old_style_spectral_norm_by_name() -> None:
    student = small()
    nn.utils.spectral_norm(student[1])
    refused(student, "module 1 .*SpectralNorm.*lean", engine="higher")


def test_higher_refuses_hooks() -> None:
    student = small()
    student[2].register_forward_hook(lambda *_: None)
    refused(student, "module 2 .*hook", engine="higher")
    step(student)


def test_higher_refuses_bound_methods() -> None:
    class Bound(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 2)
            self.run = self.inner

        def inner(self, x: Tensor) -> Tensor:
            return self.layer(x.flatten(1))

        def forward(self, x: Tensor) -> Tensor:
            return self.run(x)

    refused(Bound(), "bound method", engine="higher")
    step(Bound())


def test_higher_refuses_sliced_sequentials() -> None:
    class Sliced(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = small()

        def forward(self, x: Tensor) -> Tensor:
            return self.body[2:](self.body[:2](x))

    refused(Sliced(), "slicing.*lean", engine="higher")
    step(Sliced())


def test_compiled_students_are_refused() -> None:
    refused(torch.compile(small()), "compiled")  # type: ignore[arg-type]
    student = small()
    student.compile()
    refused(student, "compiled")
    refused(nn.DataParallel(small()), "DataParallel")
    refused(torch.jit.trace(small(), torch.ones(1, 1, 2, 2)), "scripted")


def test_in_place_operations_that_break_the_derivative() -> None:
    class Overwriting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            return torch.sigmoid(self.layer(x.flatten(1))).mul_(2)

    for engine in ("lean", "higher"):
        refused(Overwriting(), "in place", engine=engine)


def test_operations_without_a_second_derivative() -> None:
    class Once(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            ctx.save_for_backward(x)
            return x.square()

        @staticmethod
        @torch.autograd.function.once_differentiable
        def backward(ctx: Any, grad: Tensor) -> Tensor:
            return 2 * ctx.saved_tensors[0] * grad

    class Square(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return Once.apply(x)

    student = small()
    student[2] = Square()
    refused(student, "no second derivative.*order=1")
    step(student, order=1)


def test_an_exploding_look_ahead_names_the_rate() -> None:
    refused(small(), "retention loss is .* after an inner step of α=1e\\+38", alpha=1e38)
    student = small()
    student[3].bias.data.fill_(float("nan"))
    refused(student, "acquisition loss is nan at θ")


def test_the_order_of_calls() -> None:
    x = torch.ones(2, 1, 2, 2)
    with lookahead(small()) as look:
        with pytest.raises(MetaStepError, match="before advance"):
            look.ahead(x)
        with pytest.raises(MetaStepError, match="before advance"):
            look.gradient(torch.tensor(0.0))
        look.advance(look.student(x).mean())
        with pytest.raises(MetaStepError, match="already called"):
            look.advance(look.student(x).mean())
    with pytest.raises(MetaStepError, match="closed"):
        look.student(x)


def test_losses_that_do_not_depend_on_the_student() -> None:
    x = torch.ones(2, 1, 2, 2)
    for engine in ("lean", "higher"):
        with (
            lookahead(small(), engine=engine) as look,
            pytest.raises(MetaStepError, match="depend"),
        ):
            look.advance(torch.tensor(1.0))
        with (
            lookahead(small(), engine=engine) as look,
            pytest.raises(MetaStepError, match="depend"),
        ):
            look.advance(torch.ones(1, requires_grad=True).sum())
        with lookahead(small(), engine=engine) as look:
            look.advance(look.student(x).mean())
            with pytest.raises(MetaStepError, match="depend"):
                look.gradient(torch.tensor(1.0))


def test_freed_graphs() -> None:
    with lookahead(small()) as look:
        loss = look.student(torch.ones(2, 1, 2, 2)).square().mean()
        loss.backward()
        with pytest.raises(MetaStepError, match="freed"):
            look.advance(loss)


def test_settings_are_checked() -> None:
    for name, value in {"engine": "fast", "order": 3, "batchnorm": "all", "statistics": "mean", "inner": 0.1}.items():
        with pytest.raises(ValueError, match=name):
            step(small(), **{name: value})
    refused(small().requires_grad_(False), "no trainable parameter")
    refused(small(), "curvature", engine="higher", curvature=square(torch.ones(2, 1, 2, 2)))
