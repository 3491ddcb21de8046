"""Pictures of what the generator makes, now and then."""

from pathlib import Path

import torch
from torch import Tensor
from torchvision.utils import make_grid

from lra.benchmarks.files import write_atomically
from lra.synthesis.synthesizer import Synthesizer


class Samples:
    """Writes strips of fresh samples, ``step-000900.png``, at evaluations 1, 2, 4, 8, … and the last.

    Args:
        folder: where to.
        synthesizer: draws them, without a trace.
        count: images per strip; 0 writes nothing.
    """

    def __init__(self, folder: Path, synthesizer: Synthesizer, count: int):
        self.folder = folder
        self.synthesizer = synthesizer
        self.count = count

    def take(self, evaluation: int, step: int, last: bool = False) -> None:
        """Write a strip, if the evaluation (from 0) is one to be pictured, as the ``last`` is."""
        number = evaluation + 1
        if self.count == 0 or (number & (number - 1) and not last):
            return
        images = shown(self.synthesizer.peek(self.count).clamp(0, 1).cpu())
        grid = make_grid(images, nrow=self.count, padding=1, pad_value=1.0)
        pixels = grid.mul(255).round().to(torch.uint8).permute(1, 2, 0).numpy()
        write_atomically(self.folder / f"step-{step:06d}.png", lambda file: _png(pixels, file))


def shown(images: Tensor) -> Tensor:
    """Images as a picture can have them, grey or RGB: of other channels their mean."""
    return images if images.shape[1] in (1, 3) else images.mean(dim=1, keepdim=True)


def _png(pixels: object, file: object) -> None:
    from PIL import Image

    Image.fromarray(pixels).save(file, format="PNG")  # type: ignore[arg-type]
