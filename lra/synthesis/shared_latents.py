"""An online generator whose samples for the student are the ones it has just been trained on."""

import torch
from torch import Tensor, nn

from lra.synthesis.synthesizer import OnlineGenerator
from lra.synthesis.terms import TermValue


class SharedLatents(OnlineGenerator):
    """An online generator whose latents are drawn once per experience: for its own steps and for the student's.

    The student sees the images of those very latents, made by the generator as it is after its steps (ZSKT as
    released). Draws beyond the batch size are fresh.
    """

    _shared: Tensor | None = None

    def step(self, student: nn.Module) -> dict[str, TermValue]:
        """As `OnlineGenerator.step`, on new latents for the experience."""
        self._shared = super().latents(self.batch_size)
        return super().step(student)

    def latents(self, n: int) -> Tensor:
        """(n, z): the experience's."""
        if self._shared is None:
            return super().latents(n)
        more = [super().latents(n - self.batch_size)] if n > self.batch_size else []
        return torch.cat([self._shared[:n], *more])
