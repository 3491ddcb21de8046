"""Scikit-learn's digits, embedded in its package."""

import torch
from torch.nn import functional as F

from lra.benchmarks.setup.datasets.labelled import DataSet, Labelled, Split


def digits(side: int | None = None) -> DataSet:
    """Scikit-learn's 8x8 digits, enlarged to 16x16 unless told otherwise: 1437 for training, 360 for testing."""
    side = side or 16

    def load(split: Split) -> Labelled:
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split

        pixels, classes = load_digits(return_X_y=True)
        parts = train_test_split(pixels, classes, test_size=0.2, stratify=classes, random_state=0)
        images, targets = (parts[0], parts[2]) if split == "train" else (parts[1], parts[3])
        small = torch.from_numpy(images / 16.0).float().view(-1, 1, 8, 8)
        large = F.interpolate(small, size=(side, side), mode="bilinear", align_corners=False)
        return Labelled(large, torch.from_numpy(targets).long())

    return DataSet("digits", (1, side, side), 10, load, "scikit-learn's digits, embedded; 8x8 enlarged")
