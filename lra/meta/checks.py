"""What a meta step refuses, each in one line with the cause and the remedy, and what the rules leave to PyTorch."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import MethodType
from typing import NoReturn

import torch
from torch import Tensor, nn

# (what PyTorch says, what it means here); {detail} is the first line of PyTorch's message.
_CAUSES = (
    (
        "modified by an inplace operation",
        "the student or the loss overwrites in place a value its gradient needs ({detail}); "
        "use the out-of-place form (inplace=False)",
    ),
    (
        "modified inplace",
        "the student or the loss overwrites in place a value its gradient needs ({detail}); "
        "use the out-of-place form (inplace=False)",
    ),
    (
        "Double backwards is not supported for CuDNN",
        "cuDNN's recurrent layers have no second derivative; run under "
        "torch.backends.cudnn.flags(enabled=False), or use order=1",
    ),
    (
        "is not implemented",
        "an operation of the student or the loss has no second derivative ({detail}); replace it, or use order=1",
    ),
    (
        "once_differentiable",
        "an operation of the student or the loss has no second derivative ({detail}); replace it, or use order=1",
    ),
    (
        "does not require grad",
        "the loss does not depend on the student's trainable parameters; compute the acquisition loss from "
        "look.student(x), the retention loss from look.ahead(x), outside torch.no_grad()",
    ),
    (
        "backward through the graph a second time",
        "the graph of the loss is already freed; give the loss to advance() or gradient() once, before any backward()",
    ),
    (
        "different number of tensors was saved",
        "activation checkpointing recomputes the student without the closed-form rules; use rules=False",
    ),
)

_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


class MetaStepError(RuntimeError):
    """A meta step that cannot be taken, or whose result would be wrong."""


class MetaDiverged(MetaStepError):
    """A loss of a meta step is not finite."""


@contextmanager
def explained(stage: str) -> Iterator[None]:
    """Turn PyTorch's errors about differentiation into a `MetaStepError`; let all other errors pass.

    Args:
        stage: what was being computed: the first words of the message.

    Raises:
        MetaStepError: naming the cause and the remedy in one line.
    """
    try:
        yield
    except MetaStepError:
        raise
    except RuntimeError as error:
        detail = str(error).strip().split("\n")[0].split(" Hint:")[0].rstrip(". ")
        for sign, meaning in _CAUSES:
            if sign in str(error):
                raise MetaStepError(f"{stage}: {meaning.format(detail=detail)}") from error
        raise


def check_student(student: nn.Module, engine: str) -> None:
    """Refuse a student on which ``engine`` would fail or, worse, be silently wrong.

    Args:
        student: the module as the caller has it.
        engine: ``"lean"`` or ``"higher"``.

    Raises:
        MetaStepError: for compiled, scripted or replicated students; with ``higher`` also for buffers that layers
            share, hooks of any kind (old-style spectral norm is one) and bound methods stored on a module, which keep
            calling the original.
    """
    if engine == "higher":
        _check_buffers(student)
    for name, module in student.named_modules():
        where = f"student module {name or type(module).__name__}"
        if isinstance(module, torch.jit.ScriptModule):
            _refuse(where, "scripted, which hides its weights", "pass the module as it was before scripting")
        # Under dynamo an autograd function is traced through and its second derivative dropped, silently.
        if "_orig_mod" in module._modules or module._compiled_call_impl is not None:
            _refuse(
                where,
                "compiled, which would drop second-order terms",
                "pass the module as it was before compiling",
            )
        if isinstance(module, nn.DataParallel | nn.parallel.DistributedDataParallel):
            _refuse(where, f"wrapped in {type(module).__name__}", "pass its .module")
        if engine == "higher":
            _check_patchable(module, where)


def _check_buffers(student: nn.Module) -> None:
    first: dict[int, str] = {}
    for name, buffer in student.named_buffers(remove_duplicate=False):
        if (other := first.setdefault(id(buffer), name)) != name:
            state = "shared by two layers, which engine 'higher' would keep apart"
            _refuse(f"student buffer {other} = {name}", state, "use engine='lean'")


def _check_patchable(module: nn.Module, where: str) -> None:
    for hook in _hooks(module):
        kind = type(hook).__name__
        if kind in ("SpectralNorm", "WeightNorm"):
            remedy = f"use torch.nn.utils.parametrizations or engine='lean' instead of the old-style {kind}"
            _refuse(where, f"hooked ({kind}), which engine 'higher' ignores", remedy)
        _refuse(where, "hooked, which engine 'higher' ignores", "remove the hook or use engine='lean'")
    for attribute, value in vars(module).items():
        if (isinstance(value, MethodType) and isinstance(value.__self__, nn.Module)) or attribute == "forward":
            remedy = "make it a method of the class or use engine='lean'"
            _refuse(
                where,
                f"holding a bound method ({attribute}), which engine 'higher' would call unpatched",
                remedy,
            )


def _hooks(module: nn.Module) -> Iterator[object]:
    for kind in _HOOKS:
        yield from getattr(module, kind, {}).values()


def _refuse(where: str, state: str, remedy: str) -> NoReturn:
    raise MetaStepError(f"{where} is {state}; {remedy}")


def require_twice_differentiable(tensors: Sequence[Tensor | None]) -> None:
    """Refuse gradients that passed through a function marked ``once_differentiable``.

    PyTorch is meant to raise when such a gradient is differentiated again, but ``torch.autograd.grad`` runs only what
    leads to its inputs, never reaches the node that would raise, and returns a gradient with terms missing.

    Args:
        tensors: gradients made with ``create_graph``.

    Raises:
        MetaStepError: if one of them depends on such a function.
    """
    pending = [tensor.grad_fn for tensor in tensors if tensor is not None and tensor.grad_fn is not None]
    seen = set(pending)
    while pending:
        node = pending.pop()
        if node.name().endswith("::Error"):
            raise MetaStepError(
                "inner step: the student or the loss holds a function with no second derivative "
                "(once_differentiable); replace it, or use order=1"
            )
        for following, _ in node.next_functions:
            if following is not None and following not in seen:
                seen.add(following)
                pending.append(following)


def require_last_derivative() -> None:
    """Refuse a further differentiation; for the second derivatives of the closed-form rules.

    Raises:
        MetaStepError: if a graph of the second derivative is being built.
    """
    # once_differentiable would let torch.autograd.grad drop terms: see require_twice_differentiable.
    if torch.is_grad_enabled():
        raise MetaStepError("closed-form rules have no third derivative; run the student without closed_form()")


FULL = (torch.float32, torch.float64)
"""Dtypes of all closed-form rules; the one for convolution also takes half precision."""


def plain(*tensors: Tensor | None, dtypes: tuple[torch.dtype, ...] = FULL) -> bool:
    """Whether closed-form rules may handle these: ordinary dense tensors of one dtype, some of them part of a graph."""
    present = [tensor for tensor in tensors if tensor is not None]
    first = present[0]
    return (
        all(type(tensor) in (Tensor, nn.Parameter) and tensor.dtype == first.dtype for tensor in present)
        and first.dtype in dtypes
        and first.layout is torch.strided
        and first.device.type in ("cpu", "cuda")
        and torch.is_grad_enabled()
        and any(tensor.requires_grad for tensor in present)
    )
