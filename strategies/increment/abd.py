"""ABD, Always Be Dreaming: local cross-entropy on new classes, a head trained on all, importance-weighted features.

Smith et al., ICCV 2021. From the second experience on, with real images x and equally many synthetic images x'
(`Inversion`, with a persistent generator and optimiser), S₋ the model before, φ penultimate features, W = (w_k) the
head, O old and N new classes, n and n' their numbers:

    n'/(n + n')·CE(softmax over N of S(x), y)
    + mean over x and x' of a·CE(W·sg[φ(·)], y or argmax S₋),    a = n'/(n + n') for x, n/(n + n') for x'
    + μ·mean over x and x' of Σ_{k∈O} (w₋_k·φ - w₋_k·φ₋)²/n,     μ = 0.1, w₋ the old model's head

The released code makes a second pass in train mode for the features of the second term; they are the same, but
BatchNorm's statistics move twice per step. Here there is one pass.
"""

from avalanche.training.templates import SupervisedTemplate
from torch import Tensor

from lra.distances import local_cross_entropy, through_head
from lra.strategies.increment.inversion import InversionPlugin
from lra.strategies.increment.options import ABDOptions
from lra.strategies.increment.parts import by_share


class ABDPlugin(InversionPlugin):
    """The strategy, for any `SupervisedTemplate` whose model ends in a linear head; see `InversionPlugin`."""

    options: ABDOptions
    published = ABDOptions

    def loss(self, strategy: SupervisedTemplate, outputs: Tensor, features: Tensor) -> Tensor:
        """The box above."""
        assert self.replayed is not None
        real, met = len(outputs) - len(self.replayed.images), sorted({*self.classes, *self.new})
        labels, share = strategy.mb_y, len(self.new) / len(met)
        local = local_cross_entropy(outputs[:real], labels[:real], self.new).mean()
        of_head = local_cross_entropy(self.head(strategy)(features.detach()), labels, met)
        _, before = self.remembered(strategy.mb_x)
        kept = through_head(features, before, self.old_head(strategy.mb_x.shape[1:])).mean()
        return share * local + by_share(of_head, real, share) + self.options.distil_importance * kept
