"""Tensors as Avalanche's datasets."""

from collections.abc import Sequence
from typing import Any

from avalanche.benchmarks.utils import AvalancheDataset, DataAttribute
from avalanche.benchmarks.utils.classification_dataset import TaskAwareSupervisedClassificationDataset
from torch.utils.data import TensorDataset


def with_classes(data: TensorDataset, classes: Sequence[int]) -> "AvalancheDataset[Any]":
    """``data`` whose ``targets`` are ``classes``, one each, all of task 0, which items carry as their last element."""
    attributes = [
        DataAttribute(classes, "targets"),
        DataAttribute([0] * len(classes), "targets_task_labels", use_in_getitem=True),
    ]
    return TaskAwareSupervisedClassificationDataset([data], data_attributes=attributes)
