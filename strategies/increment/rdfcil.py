"""R-DFCIL: relational distillation on real images, hard distillation on synthetic ones, and finally a balanced head.

Gao et al., ECCV 2022. From the second experience on, with real images x and equally many synthetic images x' in
separate passes, from a generator that is new in every experience (`Inversion`, otherwise as in ABD); S₋ the model
before, φ penultimate features, O old and N new classes, n and n' their numbers, α = log₂(n'/2 + 1) and β = √(n/n'):

    most of the steps:   ce·(1 + 1/α)/β·CE(softmax over N of S(x), y) + hkd·αβ·mean |S_O(x') - S₋(x')|
                         + rkd·αβ·mean_{ijk} |cos∠_ijk(Pφ(x)) - cos∠_ijk(P₋φ₋(x))|,   P, P₋ linear and learnt too
    the last fifth:      body frozen and in evaluation mode, the head alone at its own learning rate on
                         CE(S(·), y or argmax S₋) over all classes and all of x, x', each class weighted by the inverse
                         of how often it has been seen, + hkd·αβ·mean |S_O(x') - S₋(x')|

ce = 0.5, hkd = 0.15, rkd = 0.5. The release's network has no bias in its head and no ReLU in its last block; here the
model is the user's. Inferred: the head's optimiser is SGD with momentum 0.9, and P, new in every experience, has an
optimiser of the model's kind, at its rate. Relation and balanced head are in `lra.strategies.increment.parts`.
"""

import logging
from collections.abc import Sequence
from math import log2, sqrt

import torch
from avalanche.training.templates import SupervisedTemplate
from torch import Tensor

from lra.anatomy import classifier
from lra.distances import l1, local_cross_entropy
from lra.features import FeatureTap
from lra.strategies.increment.inversion import InversionPlugin
from lra.strategies.increment.options import RDFCILOptions
from lra.strategies.increment.parts import BalancedHead, Relation, refuse_few

log = logging.getLogger("lra")


def adaptive(old: int, new: int) -> tuple[float, float]:
    """α and β for the numbers of ``old`` and ``new`` classes, each ≥ 1: finite and positive."""
    return log2(new / 2 + 1), sqrt(old / new)


class RDFCILPlugin(InversionPlugin):
    """The strategy, for any `SupervisedTemplate`; see `InversionPlugin` for its arguments.

    Args:
        steps: per experience, if it ends before all of the strategy's epochs are over.
    """

    options: RDFCILOptions
    published = RDFCILOptions
    persistent = False
    together = False

    def __init__(
        self,
        options: RDFCILOptions | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        steps: int | None = None,
    ):
        super().__init__(options, mean, std)
        self.steps = steps
        self.relation: Relation | None = None
        self.balanced: BalancedHead | None = None

    def before_training(self, strategy: SupervisedTemplate, **kwargs: object) -> None:
        """Refuse unsuitable models, see `InversionPlugin`, and minibatches too small for an angle.

        Raises:
            ValueError: for such a model or minibatch.
        """
        super().before_training(strategy, **kwargs)
        if self.options.rdfcil_rkd:
            refuse_few(strategy.train_mb_size, "rdfcil_rkd")

    def before_training_exp(self, strategy: SupervisedTemplate, **kwargs: object) -> None:
        """Invert the model; start again with projections, the head's optimiser and its counts."""
        super().before_training_exp(strategy, **kwargs)
        if self.old is None:
            return
        o, image = self.options, strategy.experience.dataset[0][0].shape
        self.alpha, self.beta = adaptive(len(self.classes), len(self.new))
        head = classifier(strategy.model, image)
        self.relation = Relation(next(head.parameters()).shape[1], o.relation_width, strategy)
        steps = self.steps or strategy.train_epochs * len(strategy.dataloader)
        self.balanced = BalancedHead(head, {*self.classes, *self.new}, o.head_lr, steps, o.head_share)
        self.companions = [self.relation.optimiser, self.balanced.optimiser]

    def before_training_iteration(self, strategy: SupervisedTemplate, **kwargs: object) -> None:
        """Draw synthetic images; freeze the body's statistics while the head is balanced."""
        super().before_training_iteration(strategy, **kwargs)
        if self.balanced is not None and self.balanced.alone:
            strategy.model.eval()

    def loss(self, strategy: SupervisedTemplate, outputs: Tensor, features: Tensor) -> Tensor:
        """The box above."""
        assert self.replayed is not None
        assert self.relation is not None
        assert self.balanced is not None
        o, scale = self.options, self.alpha * self.beta
        with FeatureTap(strategy.model, strategy.mb_x.shape[1:]) as tap:
            synthetic = strategy.model(self.replayed.images)
        if self.balanced.alone:
            head = self.head(strategy)
            outputs, synthetic = head(features.detach()), head(tap.features.detach())
            learnt = self.balanced.loss(torch.cat([outputs, synthetic]), torch.cat([strategy.mb_y, self.named]))
        else:
            local = local_cross_entropy(outputs, strategy.mb_y, self.new).mean()
            learnt = o.rdfcil_ce * (1 + 1 / self.alpha) / self.beta * local
            if o.rdfcil_rkd:
                before = self.remembered(strategy.mb_x)[1]
                learnt = learnt + o.rdfcil_rkd * scale * self.relation(features, before)
        return learnt + o.rdfcil_hkd * scale * l1(synthetic[:, self.classes], self.replayed.logits).mean()

    def after_backward(self, strategy: SupervisedTemplate, **kwargs: object) -> None:
        """Update the projections too; or the head and nothing else."""
        if self.relation is None or self.balanced is None:
            return
        if self.balanced.alone:
            self.balanced.step(strategy.optimizer)
        else:
            self.relation.step(strategy.optimizer.param_groups[0]["lr"])

    def after_training_iteration(self, strategy: SupervisedTemplate, **kwargs: object) -> None:
        """Count down."""
        if self.balanced is not None:
            self.balanced.left -= 1

    def after_training_exp(self, strategy: SupervisedTemplate, **kwargs: object) -> None:
        """Log whether the projections collapsed, so that all angles agree, and forget them."""
        if self.relation is not None:
            size, spread = self.relation.angles.extent()
            log.info(
                "r-dfcil: the relation's projection has the norm %.3g, its features a spread of %.3g", size, spread
            )
        super().after_training_exp(strategy, **kwargs)
        self.relation = self.balanced = None
        self.companions = []
