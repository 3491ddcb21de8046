"""DeepInversion in class-incremental learning: images that invert the old model are replayed and distilled.

Yin et al., CVPR 2020, in the form that Smith et al. (ICCV 2021) compare with. From the second experience on, with real
images x and equally many synthetic images x' (`Inversion`, with a persistent generator and optimiser), S₋ the model
before the experience, O its classes, N the new ones:

    CE(S(x), y)  over all classes
    + μ·[ H(softmax S₋(x)/τ, softmax S_O(x)/τ) + H((softmax S₋(x')/τ, 0 on N), softmax S(x')/τ) ],    μ = 1, τ = 2

H(p, q) = -Σ p ln q has no factor τ². That each H is a mean over its own images is inferred. Without the padding by 0 on
N, with S_O(x') in place of S(x') and μ = 0.1, this is what they call learning without forgetting on inverted images.
"""

from avalanche.training.templates import SupervisedTemplate
from torch import Tensor
from torch.nn import functional as F

from lra.distances import soft_cross_entropy
from lra.strategies.increment.inversion import InversionPlugin
from lra.strategies.increment.options import DeepInversionOptions
from lra.strategies.increment.parts import IMPOSSIBLE


class DeepInversionPlugin(InversionPlugin):
    """The strategy, for any `SupervisedTemplate`; see `InversionPlugin` for its arguments."""

    options: DeepInversionOptions
    published = DeepInversionOptions

    def loss(self, strategy: SupervisedTemplate, outputs: Tensor, features: Tensor) -> Tensor:
        """The box above."""
        assert self.replayed is not None
        real, o = len(outputs) - len(self.replayed.images), self.options
        known, _ = self.remembered(strategy.mb_x[:real])
        distilled = soft_cross_entropy(outputs[:real, self.classes], known, o.deepinversion_temperature).mean()
        among, answer = self.classes, self.replayed.logits
        if o.deepinversion_padded:
            among, answer = [*self.classes, *self.new], F.pad(answer, (0, len(self.new)), value=IMPOSSIBLE)
        replayed = soft_cross_entropy(outputs[real:, among], answer, o.deepinversion_temperature).mean()
        plain = F.cross_entropy(outputs[:real], strategy.mb_y[:real])
        return plain + o.deepinversion_weight * (distilled + replayed)
