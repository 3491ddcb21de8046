"""What the making of samples leaves for a later task, and how a task starts from what an earlier one left."""

from collections.abc import Mapping

from torch import Tensor, nn

from lra.networks.generators import Rescale
from lra.networks.weights import load_weights


class Lasting:
    """Makes samples with a generator that outlives an experience, or with none."""

    def keepsake(self) -> nn.Module | None:
        """The generator as it is to be saved for a later task; ``None`` if none outlives an experience."""
        return None

    @property
    def awaits(self) -> bool:
        """Whether it cannot begin without an earlier task's generator, see `begin_with`."""
        return False

    def begin_with(self, weights: Mapping[str, Tensor]) -> None:
        """Start from the weights of an earlier task's `keepsake`.

        Raises:
            ValueError: if they do not fit, or there is nothing that could take them.
        """
        generator = self.keepsake()
        if generator is None:
            raise ValueError("its generator starts anew with every batch, so that none can be carried over")
        take_up(generator, weights)


def take_up(generator: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Load an earlier task's weights; the scale that images are brought to stays that of this task's data.

    Raises:
        ValueError: if names or shapes differ.
    """
    scales = [(m, m.mean.clone(), m.std.clone()) for m in generator.modules() if isinstance(m, Rescale)]
    load_weights(generator, weights)
    for module, mean, std in scales:
        module.mean.copy_(mean)
        module.std.copy_(std)
