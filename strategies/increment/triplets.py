"""RGAL's student triplets in an ordinary Avalanche strategy."""

from avalanche.training.templates import SupervisedTemplate

from lra.relations import TripletSampler, triplet_loss
from lra.strategies.increment.watching import FeatureWatcher


class TripletPlugin(FeatureWatcher):
    """Pull one class together and push different classes apart, in the model's penultimate features.

    Liang and Fu, IJCV 2024. Labels are those of the minibatch, so that beside a `DataFreeReplayPlugin` old classes
    count by what the old model calls its samples. Negatives are drawn by distances of features and not, as in the
    paper, of logits, which tell nothing where a growing head masks its unused units. Where old samples are synthetic
    and new ones real, telling one from the other is an easy way of keeping their classes apart; a class itself is
    never of both kinds.

    Args:
        weight: factor in the sum.
        margin: of the hinge.
    """

    def __init__(self, weight: float, margin: float = 0.2):
        super().__init__()
        self.weight, self.margin = weight, margin
        self._sampler = TripletSampler()

    def before_backward(self, strategy: SupervisedTemplate, **kwargs: object) -> None:
        """Add the term to the loss."""
        features = self.features()
        if features is None:
            return
        triplets = self._sampler(features, strategy.mb_y)
        strategy.loss = strategy.loss + self.weight * triplet_loss([features], triplets, self.margin)
