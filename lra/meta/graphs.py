"""What an autograd graph holds."""

from collections.abc import Sequence

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
