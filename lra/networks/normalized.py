"""The one place where images are normalised."""

import difflib
from collections.abc import Sequence
from typing import Self

from torch import Tensor, nn

from lra.images import deviations, per_channel


class Normalized(nn.Module):
    """A network together with the normalisation it was trained with.

    Images are in [0,1] everywhere; only here do they become (x - mean) / std. Teacher and student are both wrapped, so
    that nothing can be normalised twice or not at all. Mean and std are buffers: they move with the network and are
    stored with its weights.
    """

    mean: Tensor
    std: Tensor
    features: str | None
    """Where the penultimate features are, if specified: see `features_from`."""

    def __init__(self, network: nn.Module, mean: Sequence[float] | Tensor, std: Sequence[float] | Tensor) -> None:
        """Wrap ``network``, which takes normalised images, with one mean and one std per channel.

        Raises:
            ValueError: if ``mean`` and ``std`` differ in length, or a std is not positive.
        """
        super().__init__()
        self.features = None
        self.network = network
        self.register_buffer("mean", per_channel(mean, None, "mean"))
        self.register_buffer("std", deviations(std, len(self.mean)))

    def forward(self, images: Tensor) -> Tensor:
        """Map images (n,C,H,W) in [0,1] to logits (n,K).

        Raises:
            ValueError: if the images and the normalisation differ in their number of channels.
        """
        # Broadcasting would silently turn one grey channel into three.
        if images.shape[1] != len(self.mean):
            raise ValueError(f"the network takes {len(self.mean)} channels; got images {tuple(images.shape)}")
        return self.network((images - self.mean) / self.std)

    def features_from(self, where: str) -> Self:
        """Specify where the network's penultimate features are, so that they are not searched for; returns itself.

        Args:
            where: name of the module in the network that outputs them, or ``input:NAME`` for the one that takes them as
                input.

        Raises:
            ValueError: if there is no such module.
        """
        side, colon, name = where.rpartition(":")
        if colon and side not in ("input", "output"):
            raise ValueError(f"{where!r}: before the colon stands input or output, not {side!r}")
        names = [each for each, _ in self.network.named_modules() if each]
        if name not in names:
            near = [f"; did you mean {each!r}?" for each in difflib.get_close_matches(name, names, n=1, cutoff=0)]
            raise ValueError(f"{type(self.network).__name__} has no module {name!r}{''.join(near)}")
        self.features = where
        return self
