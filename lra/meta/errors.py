"""What a meta step says when it cannot be taken: one line with the thing, the value and the remedy."""

from collections.abc import Iterator
from contextlib import contextmanager

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


class MetaStepError(RuntimeError):
    """A meta step that cannot be taken, or whose result would be wrong."""


class MetaDiverged(MetaStepError):
    """A loss of a meta step that is no number."""


@contextmanager
def explained(stage: str) -> Iterator[None]:
    """Turn PyTorch's errors about differentiation into a `MetaStepError`; let all others pass.

    Args:
        stage: what was being computed, the first words of the message.

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
