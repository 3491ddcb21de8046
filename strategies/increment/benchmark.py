"""Class-incremental benchmarks made of tensors, and networks whose head grows with them."""

from avalanche.benchmarks import CLScenario, class_incremental_benchmark
from avalanche.benchmarks.utils import DataAttribute
from avalanche.benchmarks.utils.classification_dataset import TaskAwareSupervisedClassificationDataset
from avalanche.models import IncrementalClassifier
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from lra.features import penultimate


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
    return class_incremental_benchmark(
        {"train": _data(*train), "test": _data(*test)},
        class_order=order,
        num_classes_per_exp=[len(order) // experiences] * experiences,
    )


def _data(images: Tensor, classes: Tensor) -> TaskAwareSupervisedClassificationDataset:
    labels = classes.tolist()
    attributes = [
        DataAttribute(labels, "targets"),
        DataAttribute([0] * len(labels), "targets_task_labels", use_in_getitem=True),
    ]
    return TaskAwareSupervisedClassificationDataset([TensorDataset(images, classes)], data_attributes=attributes)


def growing(network: nn.Module, classes: int) -> nn.Module:
    """``network`` with its last linear layer replaced by a head of ``classes`` units that grows with the classes met.

    Raises:
        ValueError: if the network does not end in a linear layer.
    """
    head = penultimate(network)
    if not isinstance(head, nn.Linear):
        raise ValueError(f"{type(network).__name__} has no linear layer to put a growing head in the place of")
    name = next(name for name, module in network.named_modules() if module is head)
    network.set_submodule(name, IncrementalClassifier(head.in_features, classes))
    return network
