"""What an autograd graph holds."""

from collections.abc import Sequence

import torch
from torch import Tensor

from lra.meta.errors import MetaStepError


def require_twice_differentiable(tensors: Sequence[Tensor | None]) -> None:
    """Refuse gradients that went through a function marked ``once_differentiable``.

    PyTorch means to raise when such a gradient is differentiated again, but ``torch.autograd.grad`` runs only
    what leads to its inputs, never meets the node that would raise, and returns a gradient short of terms.

    Args:
        tensors: gradients made with ``create_graph``.

    Raises:
        MetaStepError: one of them depends on such a function.
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
    """Refuse to be differentiated once more; for the second derivatives of the closed-form rules.

    Raises:
        MetaStepError: a graph of the second derivative is being built.
    """
    # once_differentiable would let torch.autograd.grad drop terms: see require_twice_differentiable.
    if torch.is_grad_enabled():
        raise MetaStepError("closed-form rules have no third derivative; run the student without closed_form()")
