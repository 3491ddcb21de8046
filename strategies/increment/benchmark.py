"""Class-incremental benchmarks made of tensors, and networks whose head grows with them."""

from avalanche.benchmarks import CLScenario, class_incremental_benchmark
from avalanche.models import IncrementalClassifier
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from lra.anatomy import classifier
from lra.strategies.datasets import with_classes


def split(train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor], order: list[int], experiences: int) -> CLScenario:
    """Streams ``train`` and ``test`` of as many experiences, each with the next few classes in ``order``.

    Args:
        train: images (n, C, H, W) float in [0, 1] and classes (n,).
        test: likewise.
        order: every class, once.
        experiences: how many; must divide the number of classes.

    Raises:
        ValueError: if it does not.
    """
    if experiences < 1 or len(order) % experiences:
        raise ValueError(f"{len(order)} classes do not split into {experiences} experiences of equal size")
    parts = {"train": train, "test": test}
    return class_incremental_benchmark(
        {name: with_classes(TensorDataset(*pair), pair[1].tolist()) for name, pair in parts.items()},
        class_order=order,
        num_classes_per_exp=[len(order) // experiences] * experiences,
    )


def growing(network: nn.Module, classes: int, image: tuple[int, int, int]) -> nn.Module:
    """``network`` with its last linear layer replaced by a head of ``classes`` units that grows with the classes met.

    Args:
        network: takes images (C, H, W) of shape ``image``.
        classes: of the first experience.
        image: their shape.

    Raises:
        ValueError: if the network does not end in a linear layer.
    """
    head = classifier(network, image)
    if not isinstance(head, nn.Linear):
        raise ValueError(f"{type(network).__name__} has no linear layer to put a growing head in the place of")
    name = next(name for name, module in network.named_modules() if module is head)
    network.set_submodule(name, IncrementalClassifier(head.in_features, classes))
    return network
