"""DeepInversion in class increments: old classes replayed from an inverted model, and distilled.

Yin et al., CVPR 2020, in the form that Smith et al. (ICCV 2021) compare with. From the second experience on, with x
real and x' as many synthetic images (`Inversion`, whose generator and optimiser live on), S₋ the model before the
experience, O its classes, N the new ones:

    CE(S(x), y)  over all classes
    + μ·[ H(softmax S₋(x)/τ, softmax S_O(x)/τ) + H((softmax S₋(x')/τ, 0 on N), softmax S(x')/τ) ],    μ = 1, τ = 2

H(p, q) = -Σ p ln q has no factor τ². That each H is the mean of its own images is inferred.
"""

from avalanche.training.templates import SupervisedTemplate
from torch import Tensor
from torch.nn import functional as F

from lra.distances import soft_cross_entropy
from lra.strategies.increment.inversion import InversionPlugin
from lra.strategies.increment.options import DeepInversionOptions


class DeepInversionPlugin(InversionPlugin):
    """The strategy, for any `SupervisedTemplate`; see `InversionPlugin` for its arguments."""

    options: DeepInversionOptions
    published = DeepInversionOptions

    def loss(self, strategy: SupervisedTemplate, outputs: Tensor, features: Tensor) -> Tensor:
        """The box above."""
        assert self.replayed is not None
        real, o = len(outputs) - len(self.replayed.images), self.options
        known, _ = self.remembered(strategy.mb_x[:real])
        met = [*self.classes, *self.new]
        padded = F.pad(self.replayed.logits, (0, len(self.new)), value=-1e4)  # which softmax makes 0
        distilled = soft_cross_entropy(outputs[:real, self.classes], known, o.deepinversion_temperature).mean()
        replayed = soft_cross_entropy(outputs[real:, met], padded, o.deepinversion_temperature).mean()
        plain = F.cross_entropy(outputs[:real], strategy.mb_y[:real])
        return plain + o.deepinversion_weight * (distilled + replayed)
