"""How useful an image is: in a full pool useful ones replace others, and in synthesis they get more weight.

Ours, after SSD-KD (Liu et al., "Small Scale Data-Free Knowledge Distillation", CVPR 2024), which makes and keeps few
samples, and prefers those of rare classes that the teacher finds hard. Neither code nor formulas are public. Here the
usefulness of an image with predicted class k and largest teacher probability p, if n_k of N images held belong to its
class, one of K, is

    φ = w_k·(1 - p)^γ,   w_k = (N + K) / (K·(n_k + 1)) between 1/10 and 10.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from lra.randomness import sent
from lra.state import State
from lra.view import View

LIMIT = 10.0
"""Largest factor by which a class's weight may differ from 1."""
LEAST = 1e-12
"""Added to an image's weight in synthesis: where the teacher is certain of all images, their weights are equal."""


def class_weights(counts: Tensor) -> Tensor:
    """w (K,), given the number of images (K,) of each class held."""
    weights = (counts.sum() + len(counts)) / (len(counts) * (counts + 1))
    return weights.clamp(1 / LIMIT, LIMIT)


def judged(logits: Tensor, focus: float) -> tuple[Tensor, Tensor]:
    """The teacher's predicted class and (1 - p)^γ, (n,) each, from its logits (n, K), without gradient."""
    surest, predicted = F.softmax(logits.detach(), dim=1).max(dim=1)
    return predicted, (1 - surest) ** focus


class Modulation:
    """The weight of each image in per-image terms of synthesis: φ, divided by its mean over the batch.

    Args:
        classes: K.
        focus: γ ≥ 0; 0 weights by class alone.
        device: where images are made.
    """

    def __init__(self, classes: int, focus: float = 2.0, device: torch.device | None = None):
        self.focus = focus
        self.counts = torch.zeros(classes, dtype=torch.long, device=device)

    def count(self, held: Tensor) -> None:
        """Count the classes (N,) of all images held."""
        held = sent(held, self.counts.device)
        self.counts = torch.zeros_like(self.counts).scatter_add_(0, held, torch.ones_like(held))

    def __call__(self, view: View) -> Tensor:
        """Weights (n,) with mean 1, without gradient."""
        predicted, hardness = judged(view.teacher_logits, self.focus)
        worth = class_weights(self.counts)[predicted] * hardness + LEAST
        return worth / worth.mean()


class Usefulness:
    """The usefulness of the images in a pool, which decides who replaces whom when it is full.

    Args:
        share: largest fraction of a batch of newcomers that is admitted.
        focus: γ ≥ 0; 0 looks at classes alone.
    """

    def __init__(self, share: float = 0.25, focus: float = 2.0):
        self.share = share
        self.focus = focus
        self.classes = 0
        self._predicted = torch.zeros(0, dtype=torch.long)
        self._hardness = torch.zeros(0)

    def judge(self, logits: Tensor) -> None:
        """Start again with the teacher's logits (N, K) for all images held."""
        self.classes = logits.shape[1]
        self._predicted, self._hardness = judged(logits, self.focus)

    @property
    def predicted(self) -> Tensor:
        """(N,) int64: the teacher's predicted class of each image held."""
        return self._predicted

    def worth(self, predicted: Tensor, hardness: Tensor) -> Tensor:
        """φ (n,) of images with the given classes (n,) and hardness (n,), relative to what is held."""
        counts = torch.bincount(self._predicted.to(predicted.device), minlength=self.classes)
        return class_weights(counts)[predicted] * hardness

    def places(self, logits: Tensor, capacity: int) -> tuple[Tensor, Tensor]:
        """Admit newcomers, given the teacher's logits (n, K) for them.

        The first ones take free places. Of the others the most useful, at most a fraction ``share`` of the batch,
        replace the least useful images that were there before, each if it is more useful.

        Returns:
            Places (m,) below ``capacity``, and the newcomers (m,) that go there.
        """
        n, held = len(logits), len(self._predicted)
        self.classes = logits.shape[1]
        predicted, hardness = judged(logits, self.focus)
        free = min(n, capacity - held)
        places, chosen = torch.arange(held, held + free), torch.arange(free)
        if held and free < n:
            new = self.worth(predicted[free:], hardness[free:])
            old = self.worth(self._predicted, self._hardness)
            most = min(max(1, int(self.share * n)), n - free, held)
            best, worst = new.argsort(descending=True, stable=True)[:most], old.argsort(stable=True)[:most]
            better = new[best] > old[worst]
            places = torch.cat([places, worst[better].cpu()])
            chosen = torch.cat([chosen, free + best[better].cpu()])
        room = predicted.new_zeros(free)
        self._predicted = torch.cat([self._predicted.to(room.device), room])
        self._hardness = torch.cat([self._hardness.to(hardness), hardness.new_zeros(free)])
        self._predicted[places.to(room.device)] = predicted[chosen.to(room.device)]
        self._hardness[places.to(room.device)] = hardness[chosen.to(room.device)]
        return places, chosen

    def state_dict(self) -> State:
        """The judgement of each image, and the number of classes."""
        return {"classes": self.classes, "predicted": self._predicted.clone(), "hardness": self._hardness.clone()}

    def load_state_dict(self, state: State) -> None:
        """Take up a state of `state_dict`."""
        self.classes = state["classes"]
        self._predicted, self._hardness = state["predicted"].clone(), state["hardness"].clone()
