"""The ways of taking one step on a new and an old batch that ``lra.benchmarks.cost.meta_step`` times."""

import copy
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import l1_loss

from lra.meta import InnerSGD, LearnedRates, beside, closed_form, lra_step
from lra.networks import build

ALPHA = 0.01
SETTINGS = {
    "lenet5": ((1, 32, 32), 256),
    "lenet5-half": ((1, 32, 32), 256),
    "resnet8": ((3, 32, 32), 128),
    "resnet20": ((3, 32, 32), 64),
    "wrn16-1": ((3, 32, 32), 64),
    "resnet18": ((3, 32, 32), 32),
}
"""Image and default batch of each network."""

Step = Callable[[], Sequence[Tensor]]
"""Takes one step and returns its gradients."""


@dataclass
class Problem:
    """A student with one batch to acquire and one, an eighth of it, to retain."""

    student: nn.Module
    x: Tensor
    t: Tensor
    x_old: Tensor
    t_old: Tensor
    cast: bool = False

    @property
    def parameters(self) -> list[nn.Parameter]:
        """The student's parameters."""
        return list(self.student.parameters())

    def to(self, **options: Any) -> "Problem":
        """The same problem on the same weights, in another memory format, say."""
        x, x_old = self.x.to(**options), self.x_old.to(**options)
        return Problem(copy.deepcopy(self.student).to(**options), x, self.t, x_old, self.t_old, self.cast)

    def loss(self, forward: Callable[..., Tensor], x: Tensor, t: Tensor) -> Tensor:
        """Mean absolute difference of logits."""
        with torch.autocast(x.device.type, torch.bfloat16) if self.cast else nullcontext():
            return l1_loss(forward(x).float(), t)

    def acquire(self, forward: Callable[..., Tensor]) -> Tensor:
        """L_acq."""
        return self.loss(forward, self.x, self.t)

    def retain(self, forward: Callable[..., Tensor]) -> Tensor:
        """L_ret."""
        return self.loss(forward, self.x_old, self.t_old)

    def joint(self, forward: Callable[..., Tensor]) -> Tensor:
        """L_acq + L_ret from one pass over both batches."""
        with torch.autocast(self.x.device.type, torch.bfloat16) if self.cast else nullcontext():
            logits = forward(torch.cat([self.x, self.x_old])).float()
        count = len(self.x)
        return l1_loss(logits[:count], self.t) + l1_loss(logits[count:], self.t_old)


def cosine_and_error(found: Sequence[Tensor], exact: Sequence[Tensor]) -> tuple[float, float]:
    """Cosine and relative distance of two gradients, each taken as one vector."""
    a, b = (torch.cat([g.detach().double().flatten() for g in side]) for side in (found, exact))
    return float(a @ b / (a.norm() * b.norm())), float((a - b).norm() / b.norm())


def problem(network: str, batch: int | None, device: str) -> Problem:
    """A fresh student and random batches, the same for every call."""
    image, default = SETTINGS[network]
    torch.manual_seed(0)
    count = batch or default
    student = build(network, 10, image).to(device)
    sizes = (count, max(1, count // 8))
    x, x_old = (torch.randn(size, *image).to(device) for size in sizes)
    t, t_old = (torch.randn(size, 10).to(device) for size in sizes)
    return Problem(student, x, t, x_old, t_old)


def joint(p: Problem, rules: bool = False) -> Step:
    """Plain replay: one pass over the concatenated batch, one backward."""

    def step() -> Sequence[Tensor]:
        with closed_form(1) if rules else nullcontext():
            loss = p.joint(p.student)
        return torch.autograd.grad(loss, p.parameters)

    return step


def meta(p: Problem, **options: Any) -> Step:
    """The toolkit's step with ``options``."""
    return lambda: lra_step(p.student, p.acquire, p.retain, inner=InnerSGD(ALPHA), **options).gradients


def learned(p: Problem) -> Step:
    """The exact step with a rate for each parameter tensor, and its gradient: ``meta.alpha_rate``."""
    rates = LearnedRates(len(p.parameters), ALPHA, 0.02)
    return lambda: lra_step(p.student, p.acquire, p.retain, inner=InnerSGD(rates.rates())).gradients


def together(p: Problem, **options: Any) -> Step:
    """The exact step with BatchNorm's statistics of both batches together: ``meta.statistics=joint``."""
    return lambda: (
        lra_step(
            p.student,
            lambda forward: p.acquire(beside(forward, p.x_old)),
            p.retain,
            inner=InnerSGD(ALPHA),
            ahead_statistics="acquisition",
            **options,
        ).gradients
    )


def part(p: Problem, fraction: float) -> Step:
    """Second order with the curvature of a part of the acquisition batch."""
    count = max(2, round(len(p.x) * fraction))
    return meta(p, curvature=lambda forward: p.loss(forward, p.x[:count], p.t[:count]))


def published(p: Problem) -> Step:
    """The released code's passes: inner step, retention at θ', joint pass, backward through it all.

    Its gradient is the joint step's: ``higher`` copies the weights off the graph by default.
    """
    import higher

    def step() -> Sequence[Tensor]:
        p.student.zero_grad()
        inner = torch.optim.SGD(p.student.parameters(), lr=ALPHA)
        with higher.innerloop_ctx(p.student, inner) as (patched, differentiable):
            differentiable.step(p.acquire(patched))
            ahead = p.retain(patched)
            (p.joint(p.student) + ahead).backward()
        return [parameter.grad for parameter in p.parameters if parameter.grad is not None]

    return step


def graphed(step: Step) -> Step:
    """``step`` captured once in a CUDA graph and replayed on the same batches."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        gradients = step()

    def replay() -> Sequence[Tensor]:
        graph.replay()
        return gradients

    return replay


def compiled_joint(p: Problem) -> Step:
    """Plain replay on a student compiled by inductor."""
    student = torch.compile(p.student)
    return lambda: torch.autograd.grad(p.joint(student), p.parameters)


def compiled_exact(p: Problem) -> Step:
    """The exact step, traced to one graph of operations that inductor compiles; no checks, buffers discarded."""
    from torch.fx.experimental.proxy_tensor import make_fx

    names = [name for name, _ in p.student.named_parameters()]

    def trace(values: list[Tensor], buffers: dict[str, Tensor], *batches: Tensor) -> list[Tensor]:
        x, t, x_old, t_old = batches
        traced = Problem(p.student, x, t, x_old, t_old, p.cast)
        theta = [value.detach().requires_grad_() for value in values]

        def forward(at: Sequence[Tensor]) -> Callable[..., Tensor]:
            state = {**dict(zip(names, at, strict=True)), **{name: b.clone() for name, b in buffers.items()}}
            return lambda x: functional_call(p.student, state, x)

        with closed_form():
            acquisition = traced.acquire(forward(theta))
        g = torch.autograd.grad(acquisition, theta, create_graph=True)
        with closed_form(1):
            retention = traced.retain(forward([a - ALPHA * b for a, b in zip(theta, g, strict=True)]))
        return [a.detach() + b for a, b in zip(g, torch.autograd.grad(retention, theta), strict=True)]

    values, buffers = [parameter.detach() for parameter in p.parameters], dict(p.student.named_buffers())
    graph = torch.compile(make_fx(trace)(values, buffers, p.x, p.t, p.x_old, p.t_old))
    return lambda: graph(values, buffers, p.x, p.t, p.x_old, p.t_old)
