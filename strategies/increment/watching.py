"""A look at the features of an ordinary strategy's forward pass."""

from avalanche.core import SupervisedPlugin
from avalanche.training.templates import SupervisedTemplate
from torch import Tensor

from lra.features import FeatureTap


class FeatureWatcher(SupervisedPlugin):
    """A plugin whose term of the loss needs the model's penultimate features beside its outputs."""

    _tap: FeatureTap | None = None

    def watches(self) -> bool:
        """Whether it looks at the next pass."""
        return True

    def before_forward(self, strategy: SupervisedTemplate, **kwargs: object) -> None:
        """Watch the features."""
        if self.watches():
            self._tap = FeatureTap(strategy.model, strategy.mb_x.shape[1:]).__enter__()

    def after_forward(self, strategy: SupervisedTemplate, **kwargs: object) -> None:
        """Look away."""
        if self._tap is not None:
            self._tap.__exit__()

    def features(self) -> Tensor | None:
        """Features (n, d) of the pass just made, with their graph, once; ``None`` if it was not watched."""
        tap, self._tap = self._tap, None
        return None if tap is None else tap.features
