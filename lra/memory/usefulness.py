"""Which images are worth most: to a full pool, where others give way to them, and to synthesis, where they count more.

Ours, after SSD-KD (Liu et al., "Small Scale Data-Free Knowledge Distillation", CVPR 2024), which makes and keeps few
samples, and prefers those of rare classes that the teacher finds hard. Neither code nor formulas are public. Here an
image of predicted class k with the teacher's largest probability p is worth, among N held of which n_k are of its
class, of K classes,

    φ = w_k·(1 - p)^γ,   w_k = (N + K) / (K·(n_k + 1)) between 1/10 and 10.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from lra.randomness import sent
from lra.state import State
from lra.view import View

LIMIT = 10.0
"""The most that a class's weight may be away from 1, as a factor."""
LEAST = 1e-12
"""Added to what an image counts in synthesis: where the teacher is certain of all images, they count alike."""


def class_weights(counts: Tensor) -> Tensor:
    """w (K,), if so many images (K,) of each class are held."""
    weights = (counts.sum() + len(counts)) / (len(counts) * (counts + 1))
    return weights.clamp(1 / LIMIT, LIMIT)


def judged(logits: Tensor, focus: float) -> tuple[Tensor, Tensor]:
    """The teacher's class and (1 - p)^γ, (n,) each, for its logits (n, K), without gradient."""
    surest, predicted = F.softmax(logits.detach(), dim=1).max(dim=1)
    return predicted, (1 - surest) ** focus


class Modulation:
    """What each image counts in terms of single images in synthesis: φ, over its mean in the batch.

    Args:
        classes: K.
        focus: γ ≥ 0; 0 looks at classes alone.
        device: where images are made.
    """

    def __init__(self, classes: int, focus: float = 2.0, device: torch.device | None = None):
        self.focus = focus
        self.counts = torch.zeros(classes, dtype=torch.long, device=device)

    def count(self, held: Tensor) -> None:
        """Take note of the classes (N,) of all images that are held."""
        held = sent(held, self.counts.device)
        self.counts = torch.zeros_like(self.counts).scatter_add_(0, held, torch.ones_like(held))

    def __call__(self, view: View) -> Tensor:
        """(n,), of mean 1, without gradient."""
        predicted, hardness = judged(view.teacher_logits, self.focus)
        worth = class_weights(self.counts)[predicted] * hardness + LEAST
        return worth / worth.mean()


class Usefulness:
    """What is known of the images in a pool, and who takes whose place when it is full.

    Args:
        share: of a batch of newcomers that is admitted at most.
        focus: γ ≥ 0; 0 looks at classes alone.
    """

    def __init__(self, share: float = 0.25, focus: float = 2.0):
        self.share = share
        self.focus = focus
        self.classes = 0
        self._predicted = torch.zeros(0, dtype=torch.long)
        self._hardness = torch.zeros(0)

    def judge(self, logits: Tensor) -> None:
        """Start again with what the teacher says (N, K) of all that is held."""
        self.classes = logits.shape[1]
        self._predicted, self._hardness = judged(logits, self.focus)

    @property
    def predicted(self) -> Tensor:
        """(N,) int64: the teacher's class of each image that is held."""
        return self._predicted

    def worth(self, predicted: Tensor, hardness: Tensor) -> Tensor:
        """φ (n,) of images of these classes (n,) and hardness (n,), beside what is held."""
        counts = torch.bincount(self._predicted.to(predicted.device), minlength=self.classes)
        return class_weights(counts)[predicted] * hardness

    def places(self, logits: Tensor, capacity: int) -> tuple[Tensor, Tensor]:
        """Let newcomers in, by what the teacher says of them (n, K).

        The first take free places. Of the others the most useful, a ``share`` of the batch at most, take the places of
        the least useful that were there before, each where it is worth more.

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
        """What is known of each image, and the number of classes."""
        return {"classes": self.classes, "predicted": self._predicted.clone(), "hardness": self._hardness.clone()}

    def load_state_dict(self, state: State) -> None:
        """Take up a state of `state_dict`."""
        self.classes = state["classes"]
        self._predicted, self._hardness = state["predicted"].clone(), state["hardness"].clone()
