"""Two ways to run the student at θ and at θ': the lean engine and the reference, ``higher``.

An engine does the forward passes, the acquisition gradient and the inner step; `lra.meta.lookahead.LookAhead` adds up
the result. Both treat the student's buffers by the same policy.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.modules.batchnorm import _BatchNorm

from lra.meta.checks import MetaStepError
from lra.meta.closed_form.batchnorm import Moments, normalised_by, recording
from lra.meta.closed_form.rules import closed_form, pays
from lra.meta.inner import InnerRule


class InnerStep(NamedTuple):
    """An inner step from leaf to leaf, through which the derivative of θ' is taken where θ' itself is detached."""

    theta: list[Tensor]
    gradients: list[Tensor | None]
    moved: list[Tensor]


class Engine(ABC):
    """Runs ``student`` at θ and at θ'.

    Args:
        student: already in the mode (train or eval) to be used.
        inner: computes θ', and holds the options.
        updates_statistics: whether passes update the student's running statistics, as ``batchnorm`` says.
        order: of the derivatives that will be taken of the pass at θ.

    Attributes:
        network: the network whose modules run in the forward passes.
        theta: the trainable parameters, θ.
        there: θ', in the same order; None before `advance`.
        lends_moments: whether batch norm at θ' uses the moments of the pass at θ, with their graph.
        directions: (θ − θ') / α, detached; None where θ' is θ.
    """

    def __init__(self, student: nn.Module, inner: InnerRule, updates_statistics: bool, order: int) -> None:
        self.order = order
        self.module = self.network = student
        self.inner = inner
        self.options = inner.options
        self.updates: Literal["acquisition", "both", "none"] = inner.options.batchnorm if updates_statistics else "none"
        self.theta: list[Tensor] = list(trainable(student))
        if not self.theta:
            raise MetaStepError("student has no trainable parameter; set requires_grad on what should learn")
        self.there: list[Tensor] | None = None
        self.directions: list[Tensor | None] = []
        self._moments: list[Moments] = []
        has_batchnorm = any(isinstance(module, _BatchNorm) for module in student.modules())
        self.lends_moments = has_batchnorm and inner.options.statistics == "joint"

    def inner_step(self, gradients: Sequence[Tensor | None]) -> InnerStep:
        """θ' computed again, from leaves that hold θ and ∇L_acq(θ)."""
        theta = [parameter.detach().requires_grad_() for parameter in self.theta]
        given = [None if gradient is None else gradient.detach().requires_grad_() for gradient in gradients]
        return InnerStep(theta, given, self.inner.update(theta, given))

    @contextmanager
    def _pass_at_theta(self, args: Sequence[Any]) -> Iterator[None]:
        self._moments.clear()
        with ExitStack() as stack:
            stack.enter_context(differentiable(self._by_rules(self.order, args), self.order))
            if self.lends_moments:
                stack.enter_context(recording(self._moments, self.options.rules))
            yield

    @contextmanager
    def _pass_ahead(self, module: nn.Module, args: Sequence[Any]) -> Iterator[None]:
        with ExitStack() as stack:
            stack.enter_context(differentiable(self._by_rules(1, args), 1))
            stack.enter_context(running_statistics(module, self.options.statistics == "running"))
            if self.lends_moments:
                stack.enter_context(normalised_by(self._moments))
            yield

    def _by_rules(self, times: int, args: Sequence[Any]) -> bool:
        """Whether to use the rules for a pass on ``args``: for a few images, their overhead outweighs the gain."""
        return self.options.rules and (times == 2 or all(pays(x, 1) for x in args if isinstance(x, Tensor)))

    @abstractmethod
    def student(self, *args: Any, **kwargs: Any) -> Any:
        """Forward at θ."""

    @abstractmethod
    def ahead(self, *args: Any, **kwargs: Any) -> Any:
        """Forward at θ'."""

    @abstractmethod
    def advance(self, acquisition: Tensor, create_graph: bool, retain_graph: bool) -> list[Tensor | None]:
        """Set θ' and return ∇L_acq(θ), detached; without ``create_graph`` θ' is a leaf.

        The graph of the pass at θ is freed if the step no longer needs it, unless it is to be kept.
        """


class LeanEngine(Engine):
    """Uses ``torch.autograd.grad``, and swaps tensors into the student itself."""

    def __init__(self, student: nn.Module, inner: InnerRule, updates_statistics: bool, order: int) -> None:
        super().__init__(student, inner, updates_statistics, order)
        # Only what is listed here is swapped in; the rest of a forward works on the student's own buffers.
        self._buffers: dict[int, Tensor] = clones(student) if self.updates == "none" else {}
        self._ahead_buffers: dict[int, Tensor] | None = None

    def student(self, *args: Any, **kwargs: Any) -> Any:
        """The student itself; under the buffer policy ``none``, with cloned buffers."""
        with self._pass_at_theta(args):
            if not self._buffers:
                return self.module(*args, **kwargs)
            with swapped(self.module, self._buffers):
                return self.module(*args, **kwargs)

    def advance(self, acquisition: Tensor, create_graph: bool, retain_graph: bool) -> list[Tensor | None]:
        """See `Engine`."""
        retain = retain_graph or create_graph or self.lends_moments
        gradients = torch.autograd.grad(
            acquisition, self.theta, retain_graph=retain, create_graph=create_graph, allow_unused=True
        )
        with torch.set_grad_enabled(create_graph):
            directions = self.inner.directions(self.theta, self.inner.shaped(gradients))
            there = self.inner.moved(self.theta, directions)
        self.directions = _cut(directions)
        self.there = there if create_graph else [moved.detach().requires_grad_() for moved in there]
        return _cut(gradients)

    def ahead(self, *args: Any, **kwargs: Any) -> Any:
        """The student with θ' swapped in; its buffers are clones unless the policy is ``both``."""
        assert self.there is not None
        if self._ahead_buffers is None:
            own = self.updates == "both"
            self._ahead_buffers = {} if own else self._buffers or clones(self.module)
        instead = self._ahead_buffers | {id(own): moved for own, moved in zip(self.theta, self.there, strict=True)}
        with self._pass_ahead(self.module, args), swapped(self.module, instead):
            return self.module(*args, **kwargs)


class HigherEngine(Engine):
    """``higher.monkeypatch`` and its differentiable optimisers (Grefenstette et al., arXiv:1910.01727)."""

    def __init__(self, student: nn.Module, inner: InnerRule, updates_statistics: bool, order: int) -> None:
        super().__init__(student, inner, updates_statistics, order)
        try:
            import higher
        except ImportError as error:
            need = "engine 'higher' needs the package higher; pip install higher, or engine='lean'"
            raise MetaStepError(need) from error
        self._higher: Any = higher
        self._patched = self._higher.monkeypatch(
            # The default copies the weights off the graph: no retention gradient would reach the student.
            student,
            copy_initial_weights=False,
            track_higher_grads=order == 2,
        )
        self.network = self._patched
        position = {id(parameter): index for index, parameter in enumerate(student.parameters())}
        self._indices = [position[id(parameter)] for parameter in self.theta]
        # The student's own parameters, so that losses which know them directly (a penalty, say) count too.
        self._start: list[Tensor] = list(student.parameters())
        self._moved = self._start

    def student(self, *args: Any, **kwargs: Any) -> Any:
        """The patched module at θ."""
        with self._pass_at_theta(args):
            output = self._forward(self._start, args, kwargs)
        self._keep_buffers(self.updates != "none")
        return output

    def advance(self, acquisition: Tensor, create_graph: bool, retain_graph: bool) -> list[Tensor | None]:
        """See `Engine`; ``create_graph`` was determined when the module was patched."""
        retain = retain_graph or self.lends_moments
        kept: list[Tensor | None] = [None] * len(self.theta)

        def reuse(gradients: Sequence[Tensor | None]) -> list[Tensor | None]:
            kept[:] = [gradients[index] for index in self._indices]
            shaped = self.inner.shaped(kept)
            self.directions = _cut(self.inner.directions(self.theta, _cut(shaped)))
            placed: list[Tensor | None] = [None] * len(gradients)
            for index, gradient in zip(self._indices, shaped, strict=True):
                placed[index] = gradient
            return placed

        step = self._higher.get_diff_optim(
            self.inner.optimizer(trainable(self.module)),
            self.module.parameters(),
            fmodel=self._patched,
            override={"lr": self.inner.rates},
            # higher keeps the graph of the pass at θ, which lent moments need, only with that of its gradient.
            track_higher_grads=create_graph or retain,
        )
        self._moved = list(step.step(acquisition, params=self._start, grad_callback=reuse))
        if retain and not create_graph:
            self._moved = [moved.detach().requires_grad_(moved.requires_grad) for moved in self._moved]
            self._patched.update_params(self._moved)
        self.there = [self._moved[index] for index in self._indices]
        return _cut(kept)

    def ahead(self, *args: Any, **kwargs: Any) -> Any:
        """The patched module at θ'."""
        with self._pass_ahead(self._patched, args):
            output = self._forward(self._moved, args, kwargs)
        self._keep_buffers(self.updates == "both")
        return output

    def _forward(self, parameters: list[Tensor], args: Any, kwargs: Any) -> Any:
        try:
            return self._patched(*args, params=parameters, **kwargs)
        except TypeError as error:
            if "MonkeyPatched" not in str(error):
                raise
            raise MetaStepError(
                "student builds a module in its forward (by slicing a Sequential, say), which engine 'higher' "
                "cannot follow; use engine='lean'"
            ) from error

    def _keep_buffers(self, keep: bool) -> None:
        if keep:
            own = dict(self.module.named_buffers())
            for name, buffer in self._patched.named_buffers():
                own[name].copy_(buffer)


def trainable(student: nn.Module) -> list[nn.Parameter]:
    """The parameters that a step updates, each once, in the student's order."""
    return [parameter for parameter in student.parameters() if parameter.requires_grad]


def clones(student: nn.Module) -> dict[int, Tensor]:
    """The student's buffers (running statistics, spectral-norm vectors, ...), cloned, by the ``id`` of each."""
    return {id(buffer): buffer.detach().clone() for buffer in student.buffers()}


@contextmanager
def swapped(student: nn.Module, instead: Mapping[int, Tensor]) -> Iterator[None]:
    """A context in which ``student`` has other tensors in place of some of its parameters and buffers.

    What several layers share, a weight or a whole layer, is swapped for all of them. No value is written: graphs
    through the student's own tensors stay valid.

    Args:
        student: its modules stay as they are.
        instead: the other tensors, by the ``id`` of the student's own.
    """
    kept: list[dict[str, Any]] = [each for part in student.modules() for each in (part._parameters, part._buffers)]
    places = [(held, name, own) for held in kept for name, own in held.items() if id(own) in instead]
    try:
        for held, name, own in places:
            held[name] = instead[id(own)]
        yield
    finally:
        for held, name, own in places:
            held[name] = own


def _cut(tensors: Sequence[Tensor | None]) -> list[Tensor | None]:
    """The tensors without their graphs."""
    return [None if tensor is None else tensor.detach() for tensor in tensors]


@contextmanager
def running_statistics(module: nn.Module, active: bool) -> Iterator[None]:
    """A context in which, if ``active``, batch norm uses its running statistics and does not update them."""
    modules = module.modules() if active else ()
    layers = [layer for layer in modules if isinstance(layer, _BatchNorm) and layer.training]
    for layer in layers:
        layer.training = False
    try:
        yield
    finally:
        for layer in layers:
            layer.training = True


@contextmanager
def differentiable(rules: bool, times: int) -> Iterator[None]:
    """A context whose forward passes can be differentiated ``times`` times, by the closed-form ``rules`` if set."""
    with ExitStack() as stack:
        if times == 2:
            # The other attention kernels have no second derivative.
            stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        if rules:
            stack.enter_context(closed_form(times))
        yield


ENGINES: dict[str, type[Engine]] = {"lean": LeanEngine, "higher": HigherEngine}
