"""What an engine cannot do correctly, refused before it starts."""

from collections.abc import Iterator
from types import MethodType
from typing import NoReturn

from torch import nn

from lra.meta.errors import MetaStepError

_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def check_student(student: nn.Module, engine: str) -> None:
    """Refuse a student on which ``engine`` would fail or, worse, be silently wrong.

    Args:
        student: the module as the caller holds it.
        engine: ``"lean"`` or ``"higher"``.

    Raises:
        MetaStepError: compiled or replicated students; under ``higher`` also buffers that layers share, hooks of any
            kind (old-style spectral norm is one) and bound methods kept on a module, which keep calling the original.
    """
    if engine == "higher":
        _check_buffers(student)
    for name, module in student.named_modules():
        where = f"student module {name or type(module).__name__}"
        # Under dynamo an autograd function is traced through and its second derivative dropped, silently.
        if hasattr(module, "_orig_mod") or getattr(module, "_compiled_call_impl", None) is not None:
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
