"""LwF.MC: learning without forgetting with a sigmoid for every class, in the form that ABD's release compares with.

Rebuffi et al., CVPR 2017, after Li and Hoiem, ECCV 2016. With S₋ the model before the experience, O its classes and N
the new ones, for each real minibatch (x, y) of B images:

    1/B Σ_x [ Σ_{k∈N} BCE(σ(S_k(x)), 1[k = y]) + Σ_{k∈O} BCE(σ(S_k(x)), σ(S₋_k(x))) ]

No image is generated, and none is kept.
"""

import torch
from avalanche.training.templates import SupervisedTemplate
from torch import nn
from torch.nn import functional as F

from lra.state import State
from lra.strategies.increment.plugins import CarryingPlugin, frozen_copy, refuse_unfit


class LwFMCPlugin(CarryingPlugin):
    """The strategy, for a `SupervisedTemplate` with a single-head model; what other plugins add to the loss is kept.

    Attributes:
        classes: met in earlier experiences, in order.
        old: the frozen model before the current experience; ``None`` in the first.
    """

    def __init__(self) -> None:
        super().__init__()
        self.classes: list[int] = []
        self.old: nn.Module | None = None

    def state_dict(self) -> State:
        """The classes."""
        return {"classes": self.classes}

    def load_state_dict(self, state: State) -> None:
        """Restore them."""
        self.classes = list(state["classes"])

    def before_training(self, strategy: SupervisedTemplate, **kwargs: object) -> None:
        """Refuse models with several heads.

        Raises:
            ValueError: for such a model.
        """
        refuse_unfit(self, strategy.model, batchnorm=False)

    def before_training_exp(self, strategy: SupervisedTemplate, **kwargs: object) -> None:
        """Freeze the model."""
        self.old = frozen_copy(strategy.model) if self.classes else None

    def before_backward(self, strategy: SupervisedTemplate, **kwargs: object) -> None:
        """Replace the minibatch's loss by that of the sigmoids."""
        met = sorted({*self.classes, *strategy.experience.classes_in_this_experience})
        targets = F.one_hot(strategy.mb_y, strategy.mb_output.shape[1]).to(strategy.mb_output)
        if self.old is not None:
            with torch.no_grad():
                targets[:, self.classes] = self.old(strategy.mb_x)[:, self.classes].sigmoid()
        each = F.binary_cross_entropy_with_logits(strategy.mb_output[:, met], targets[:, met], reduction="sum")
        strategy.loss += each / len(targets) - strategy.criterion()

    def after_training_exp(self, strategy: SupervisedTemplate, **kwargs: object) -> None:
        """Note the classes, and forget the model."""
        self.classes = sorted({*self.classes, *strategy.experience.classes_in_this_experience})
        self.old = None
