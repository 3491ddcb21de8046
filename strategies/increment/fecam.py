"""FeCAM: the backbone is frozen after the first experience, and classes are predicted by distances between features.

Goswami et al., NeurIPS 2023: the control that neither replays nor trains. With penultimate features φ(x) ≥ 0:

    first experience     train as usual; after that nothing is trained
    every experience     x̃ = φ(x)^½ (Tukey);  for each new class c  μ_c = mean x̃,  Σ_c = cov x̃
    prediction           argmin_c (u(x̃) - u(μ_c))ᵀ R_c⁺ (u(x̃) - u(μ_c)),   u(v) = v/‖v‖
                         R_ij = S_ij/√(S_ii S_jj),   S = Σ shrunk twice:
                         Σ <- Σ + γ·mean(diagonal)·1 + γ·mean(non-zero off-diagonal)·(J - 1),  γ = 1

R⁺ is the pseudo-inverse, J the matrix of ones. Moments of the features of every class are kept, d + d² numbers each,
which are derived from data. Two things in the release are not taken over: rows of the head as the means of the first
experience's classes, and, unless asked for, the root of the mean where the formula has the mean of the roots.
"""

import torch
from avalanche.models import MultiTaskModule
from avalanche.training.templates import SupervisedTemplate
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader

from lra.features import FeatureTap
from lra.state import State
from lra.strategies.increment.head_fit import ClassFeatures, Spread, features_of
from lra.strategies.increment.options import FeCAMOptions
from lra.strategies.increment.plugins import CarryingPlugin

ALIKE = 1e-6
"""Features of a class that differ by no more than this fraction of the largest count as equal: it may be rounding."""


def shrunk(covariance: Tensor, weight: float) -> Tensor:
    """``covariance`` (d, d) plus ``weight`` times its mean diagonal entry there, and its mean other entry elsewhere.

    Off-diagonal entries that are exactly 0 are left out of their mean, as released.
    """
    identity = torch.eye(len(covariance), dtype=covariance.dtype, device=covariance.device)
    beside = covariance * (1 - identity)
    mean = beside.sum() / (beside != 0).sum().clamp_min(1)
    return covariance + weight * (covariance.diagonal().mean() * identity + mean * (1 - identity))


def correlation(covariance: Tensor) -> Tensor:
    """R_ij = S_ij/√(S_ii S_jj) of a covariance (d, d) with a positive diagonal."""
    deviations = covariance.diagonal().sqrt()
    return covariance / (deviations[:, None] * deviations)


class NearestClass:
    """Classifies by the distances above; it learns a class from the features of all its images, shown once.

    Args:
        options: power, shrinkage and prototypes.

    Attributes:
        features: moments of x̃ for each class.
    """

    def __init__(self, options: FeCAMOptions):
        self.options = options
        self.features = ClassFeatures()
        self._inverse: dict[int, Tensor] = {}

    def measure(self, features: Tensor, classes: Tensor) -> None:
        """Learn from features (n, d) of images of the classes (n,).

        Raises:
            ValueError: for negative features, a class with one image, or one whose images all have the same features.
        """
        raised = self._raised(features)
        for label in classes.unique().tolist():
            own = raised[classes == label]
            if len(own) > 1 and (own.amax(dim=0) - own.amin(dim=0)).max() <= ALIKE * own.abs().max():
                raise ValueError(f"FeCAM: all images of class {label} have the same features: they have no correlation")
        self.features.measure(raised, classes)
        if self.options.fecam_prototype == "root-of-mean":
            for label in classes.unique().tolist():
                mean = self._raised(features[classes == label].double().mean(dim=0))
                self.features.known[label] = self.features.known[label]._replace(mean=mean)

    def distances(self, features: Tensor) -> Tensor:
        """Distances of features (n, d) from every class: (n, k), in the order of `classes`, in double precision."""
        x = F.normalize(self._raised(features), dim=1)
        columns = []
        for label in self.classes():
            mean, covariance = self.features.known[label]
            apart = x - F.normalize(mean.double(), dim=0)
            columns.append(((apart @ self._inverse_of(label, covariance)) * apart).sum(dim=1))
        return torch.stack(columns, dim=1)

    def classes(self) -> list[int]:
        """The classes it has learnt."""
        return sorted(self.features.known)

    def _inverse_of(self, label: int, covariance: Tensor) -> Tensor:
        if label not in self._inverse:
            covariance = covariance.double()
            for _ in range(self.options.fecam_shrinkings):
                covariance = shrunk(covariance, self.options.fecam_shrink)
            self._inverse[label] = torch.linalg.pinv(correlation(covariance), hermitian=True)
        return self._inverse[label]

    def _raised(self, features: Tensor) -> Tensor:
        """x̃ of x, in double precision."""
        if self.options.fecam_power == 1:
            return features.double()
        if (least := features.min().item()) < 0:
            raise ValueError(
                f"FeCAM takes the root of features, and the smallest is {least:.3g}: set fecam_power=1, or choose "
                "a model whose last block ends in a ReLU"
            )
        return features.double().pow(self.options.fecam_power)


class FeCAMPlugin(CarryingPlugin):
    """FeCAM for a `SupervisedTemplate`: ends later experiences before their first step, and replaces the outputs in
    evaluation.

    The outputs that a strategy's metrics see are minus the distances; classes not met get -∞. The model's own head is
    left as the first experience trained it. Without a strategy, use `NearestClass` directly.

    Args:
        options: of the distances.

    Attributes:
        classifier: predicts the classes.
    """

    def __init__(self, options: FeCAMOptions | None = None):
        super().__init__()
        self.classifier = NearestClass(options or FeCAMOptions())
        self._tap: FeatureTap | None = None

    def state_dict(self) -> State:
        """The moments of every class."""
        return {str(label): list(spread) for label, spread in self.classifier.features.known.items()}

    def load_state_dict(self, state: State) -> None:
        """Restore them."""
        self.classifier.features.known = {int(label): Spread(*moments) for label, moments in state.items()}

    @property
    def class_statistics(self) -> int:
        """How many numbers are kept."""
        return self.classifier.features.size

    def before_training(self, strategy: SupervisedTemplate, **kwargs: object) -> None:
        """Refuse models with several heads.

        Raises:
            ValueError: for such a model.
        """
        if any(isinstance(module, MultiTaskModule) for module in strategy.model.modules()):
            raise ValueError(f"{type(self).__name__} needs a model with a single head, and this has one for each task")

    def before_training_epoch(self, strategy: SupervisedTemplate, **kwargs: object) -> None:
        """Train in the first experience only."""
        if self.classifier.features.known:
            strategy.stop_training()

    def after_training_exp(self, strategy: SupervisedTemplate, **kwargs: object) -> None:
        """Measure the new classes while their data are available."""
        device = next(strategy.model.parameters()).device
        batches = [
            (features_of(strategy.model, x.to(device)), y.to(device))
            for x, y, *_ in DataLoader(strategy.experience.dataset.eval(), 512)
        ]
        features, classes = (torch.cat(column) for column in zip(*batches, strict=True))
        self.classifier.measure(features, classes)

    def before_eval_forward(self, strategy: SupervisedTemplate, **kwargs: object) -> None:
        """Record the features."""
        if self.classifier.features.known:
            self._tap = FeatureTap(strategy.model, strategy.mb_x.shape[1:]).__enter__()

    def after_eval_forward(self, strategy: SupervisedTemplate, **kwargs: object) -> None:
        """Replace the head's outputs."""
        tap, self._tap = self._tap, None
        if tap is None:
            return
        tap.__exit__()
        answers = torch.full_like(strategy.mb_output, -torch.inf)
        answers[:, self.classifier.classes()] = -self.classifier.distances(tap.features).to(answers.dtype)
        strategy.mb_output = answers
