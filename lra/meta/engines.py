"""Two ways to run the student at θ and at θ': the lean engine and the reference, ``higher``.

An engine owns the forward passes, the acquisition gradient and the inner step; `lra.meta.lookahead.LookAhead` adds up
the result. Both keep the student's buffers by the same policy.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.modules.batchnorm import _BatchNorm

from lra.meta.checks import MetaStepError
from lra.meta.closed_form.batchnorm import Moments, normalised_by, recording
from lra.meta.closed_form.rules import closed_form
from lra.meta.inner import InnerRule


class InnerStep(NamedTuple):
    """An inner step from leaf to leaf: what the derivative of θ' is taken by, where θ' itself is cut off."""

    theta: list[Tensor]
    gradients: list[Tensor | None]
    moved: list[Tensor]


class Engine(ABC):
    """Runs ``student`` at θ and at θ'.

    Args:
        student: in the mode it should train in.
        inner: makes θ', and knows the options.
        updates_statistics: whether passes move the student's running statistics, by the option ``batchnorm``.

    Attributes:
        network: whose modules run in the forward passes.
        theta: the trainable parameters, θ.
        there: θ', the same order; None before `advance`.
        step: how θ' came about, if it is a leaf and this is known.
    """

    def __init__(self, student: nn.Module, inner: InnerRule, updates_statistics: bool) -> None:
        self.module = self.network = student
        self.inner = inner
        self.options = inner.options
        self.updates: Literal["acquisition", "both", "none"] = inner.options.batchnorm if updates_statistics else "none"
        self.names = trainable(student)
        if not self.names:
            raise MetaStepError("student has no trainable parameter; set requires_grad on what should learn")
        self.theta: list[Tensor] = list(self.names.values())
        self.there: list[Tensor] | None = None
        self.step: InnerStep | None = None
        self._moments: list[Moments] = []

    def inner_step(self, gradients: Sequence[Tensor | None]) -> InnerStep:
        """θ' anew, from leaves that hold θ and ∇L_acq(θ)."""
        theta = [parameter.detach().requires_grad_() for parameter in self.theta]
        given = [None if gradient is None else gradient.detach().requires_grad_() for gradient in gradients]
        return InnerStep(theta, given, self.inner.update(theta, given))

    @property
    def _lends_moments(self) -> bool:
        """Whether batch norm at θ' uses, with their graph, the moments of the pass at θ."""
        return self.options.statistics == "joint"

    @contextmanager
    def _pass_at_theta(self) -> Iterator[None]:
        self._moments.clear()
        with ExitStack() as stack:
            stack.enter_context(differentiable(self.options.rules, self.options.order))
            if self._lends_moments:
                stack.enter_context(recording(self._moments, self.options.rules))
            yield

    @contextmanager
    def _pass_ahead(self, module: nn.Module) -> Iterator[None]:
        with ExitStack() as stack:
            stack.enter_context(differentiable(self.options.rules, 1))
            stack.enter_context(running_statistics(module, self.options.statistics == "running"))
            if self._lends_moments:
                stack.enter_context(normalised_by(self._moments))
            yield

    @abstractmethod
    def student(self, *args: Any, **kwargs: Any) -> Any:
        """Forward at θ."""

    @abstractmethod
    def ahead(self, *args: Any, **kwargs: Any) -> Any:
        """Forward at θ'."""

    @abstractmethod
    def advance(self, acquisition: Tensor, create_graph: bool, retain_graph: bool) -> list[Tensor | None]:
        """Set θ' and return ∇L_acq(θ), detached; without ``create_graph`` θ' is a leaf.

        The graph of the pass at θ is freed where nothing of the step needs it any more, unless it is to be kept.
        """


class LeanEngine(Engine):
    """``torch.autograd.grad`` and tensors swapped into the student itself."""

    def __init__(self, student: nn.Module, inner: InnerRule, updates_statistics: bool) -> None:
        super().__init__(student, inner, updates_statistics)
        # Only what is listed here is swapped in; the rest of a forward works on the student's own buffers.
        self._buffers: dict[str, Tensor] = clones(student) if self.updates == "none" else {}
        self._ahead_buffers: dict[str, Tensor] | None = None

    def student(self, *args: Any, **kwargs: Any) -> Any:
        """The student as it is; under buffer policy ``none`` on cloned buffers."""
        with self._pass_at_theta():
            if not self._buffers:
                return self.module(*args, **kwargs)
            return swapped(self.module, self._buffers, args, kwargs)

    def advance(self, acquisition: Tensor, create_graph: bool, retain_graph: bool) -> list[Tensor | None]:
        """See `Engine`."""
        retain = retain_graph or create_graph or self._lends_moments
        gradients = torch.autograd.grad(
            acquisition, self.theta, retain_graph=retain, create_graph=create_graph, allow_unused=True
        )
        if create_graph:
            self.there = self.inner.update(self.theta, gradients)
        else:
            self.step = self.inner_step(gradients)
            self.there = [moved.detach().requires_grad_() for moved in self.step.moved]
        return [None if gradient is None else gradient.detach() for gradient in gradients]

    def ahead(self, *args: Any, **kwargs: Any) -> Any:
        """The student with θ' swapped in; its buffers are clones unless the policy is ``both``."""
        assert self.there is not None
        if self._ahead_buffers is None:
            own = self.updates == "both"
            self._ahead_buffers = {} if own else self._buffers or clones(self.module)
        state = {**dict(zip(self.names, self.there, strict=True)), **self._ahead_buffers}
        with self._pass_ahead(self.module):
            return swapped(self.module, state, args, kwargs)


class HigherEngine(Engine):
    """``higher.monkeypatch`` and its differentiable optimisers (Grefenstette et al., arXiv:1910.01727)."""

    def __init__(self, student: nn.Module, inner: InnerRule, updates_statistics: bool) -> None:
        super().__init__(student, inner, updates_statistics)
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
            track_higher_grads=self.options.order == 2,
        )
        self.network = self._patched
        order = {id(parameter): index for index, parameter in enumerate(student.parameters())}
        self._indices = [order[id(parameter)] for parameter in self.theta]
        # The student's own parameters, so that losses which know them directly (a penalty, say) count too.
        self._start: list[Tensor] = list(student.parameters())
        self._moved = self._start

    def student(self, *args: Any, **kwargs: Any) -> Any:
        """The patched module at θ."""
        with self._pass_at_theta():
            output = self._forward(self._start, args, kwargs)
        self._keep_buffers(self.updates != "none")
        return output

    def advance(self, acquisition: Tensor, create_graph: bool, retain_graph: bool) -> list[Tensor | None]:
        """See `Engine`; ``create_graph`` was settled when the module was patched."""
        retain = retain_graph or self._lends_moments
        kept: list[Tensor | None] = [None] * len(self.theta)

        def reuse(gradients: Sequence[Tensor | None]) -> list[Tensor | None]:
            kept[:] = [gradients[index] for index in self._indices]
            shaped: list[Tensor | None] = [None] * len(gradients)
            for index, gradient in zip(self._indices, self.inner.shaped(kept), strict=True):
                shaped[index] = gradient
            return shaped

        step = self._higher.get_diff_optim(
            self.inner.optimizer(list(self.names.values())),
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
        return [None if gradient is None else gradient.detach() for gradient in kept]

    def ahead(self, *args: Any, **kwargs: Any) -> Any:
        """The patched module at θ'."""
        with self._pass_ahead(self._patched):
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


def trainable(student: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters a step moves, by name, each once, in the student's order."""
    return {name: parameter for name, parameter in student.named_parameters() if parameter.requires_grad}


def clones(student: nn.Module) -> dict[str, Tensor]:
    """The student's buffers (running statistics, spectral-norm vectors, ...), cloned."""
    return {name: buffer.detach().clone() for name, buffer in student.named_buffers()}


def swapped(student: nn.Module, tensors: Mapping[str, Tensor], args: Any, kwargs: Any) -> Any:
    """A forward pass of ``student`` with other ``tensors`` in the place of some of its own, by any of their names.

    What several layers share, a weight or a whole layer, is swapped for all of them.
    """
    # functional_call's own ties would leave a layer that has two names with the tensor that was swapped in.
    named = dict([*student.named_parameters(), *student.named_buffers()])
    instead = {id(named[name]): tensor for name, tensor in tensors.items()}
    places = {
        f"{prefix}.{slot}" if prefix else slot: instead[id(own)]
        for prefix, part in student.named_modules()
        for slot, own in [*part._parameters.items(), *part._buffers.items()]
        if own is not None and id(own) in instead
    }
    return functional_call(student, places, args, kwargs, tie_weights=False)


@contextmanager
def running_statistics(module: nn.Module, active: bool) -> Iterator[None]:
    """If ``active``, batch norm uses its running statistics, and leaves them alone, while this is open."""
    layers = [layer for layer in module.modules() if isinstance(layer, _BatchNorm) and layer.training and active]
    for layer in layers:
        layer.training = False
    try:
        yield
    finally:
        for layer in layers:
            layer.training = True


@contextmanager
def differentiable(rules: bool, times: int) -> Iterator[None]:
    """Forward passes made while this is open can be differentiated ``times`` times, by the closed-form ``rules``."""
    with ExitStack() as stack:
        if times == 2:
            # The other attention kernels have no second derivative.
            stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        if rules:
            stack.enter_context(closed_form(times))
        yield


ENGINES: dict[str, type[Engine]] = {"lean": LeanEngine, "higher": HigherEngine}
