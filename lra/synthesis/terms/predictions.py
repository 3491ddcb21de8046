"""Terms on the teacher's predictions: confident on each image, balanced over all, close to soft labels."""

import math
import warnings

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lra.randomness import sent
from lra.state import State
from lra.synthesis.terms.term import Term, Weighing
from lra.view import View


class OneHot(Term):
    """Cross-entropy of the teacher at τ with the target labels, or with its own argmax (DAFL, eq. 3).

    Args:
        weight: factor in the sum.
        temperature: τ; 1 except in ABD, where it is 1000.
        double_softmax: treat its probabilities as logits, as released for CPSC: bounded, and never near 0.
        weigh: gives each image a weight; all are equal if not given.
    """

    name = "one_hot"

    def __init__(
        self, weight: float, temperature: float = 1.0, *, double_softmax: bool = False, weigh: Weighing | None = None
    ):
        super().__init__(weight)
        self.temperature = temperature
        self.double_softmax = double_softmax
        self.weigh = weigh

    def __call__(self, view: View) -> Tensor:
        """≥ 0, in nats; no gradient through the labels."""
        logits = view.teacher_logits / self.temperature
        if self.double_softmax:
            logits = logits.softmax(dim=1)
        if self.weigh is None:
            return F.cross_entropy(logits, view.targets)
        return (self.weigh(view) * F.cross_entropy(logits, view.targets, reduction="none")).mean()


class PriorFeature(Term):
    """Moves the teacher's features away from the class prior: mean |cos(a, u)| over images that are not mixed (CPNet).

    With the last layer f Wᵀ + b, W⁺ its inverse (see `clamped_inverse`) and δ = ln((1 - ε)(K - 1)/ε), a =
    f - (δ·e_y - b)·W⁺ and u = 1·W⁺. For any c, the features (δ·e_y + c·1 - b)·W⁺ give y the probability 1 - ε and all
    other classes equal ones, and make the cosine 1. The student plays no part, although the term is an adversarial one.

    Args:
        weight: factor in the sum.
        layer: the teacher's last layer.
        smoothing: ε in (0, 1).

    Raises:
        ValueError: if the layer is not linear.
    """

    name = "prior"
    needs = frozenset({"features"})
    competitive = True

    def __init__(self, weight: float, layer: nn.Module, smoothing: float = 0.1):
        super().__init__(weight)
        if not isinstance(layer, nn.Linear):
            kind = type(layer).__name__
            raise ValueError(f"the teacher's last layer is a {kind}; the features of a class prior need a linear one")
        classes = layer.out_features
        bias = layer.weight.new_zeros(classes) if layer.bias is None else layer.bias.detach()
        self.inverse = clamped_inverse(layer.weight.detach())
        self.direction = self.inverse.sum(dim=0)
        logits = math.log((1 - smoothing) * (classes - 1) / smoothing) * torch.eye(classes, device=bias.device)
        self.priors = (logits.to(bias.dtype) - bias) @ self.inverse

    def __call__(self, view: View) -> Tensor:
        """In [0, 1]; 0 where all images are mixed."""
        labels, features = view.targets, view.teacher_features
        unmixed = torch.ones_like(features[:, 0])
        if labels.dim() == 2:
            share, labels = labels.max(dim=1)
            unmixed = (share == 1).to(features)
        cosines = F.cosine_similarity(features - self.priors[labels], self.direction[None], dim=1)
        return (unmixed * cosines.abs()).sum() / unmixed.sum().clamp_min(1)


def clamped_inverse(weight: Tensor, least: float = 0.1) -> Tensor:
    """The pseudo-inverse (K, d) of Wᵀ for weights W (K, d), with singular values raised to at least ``least``.

    If some are smaller, it is not an exact inverse, and a warning says so.
    """
    left, values, right = torch.linalg.svd(weight.T, full_matrices=False)
    if weight.shape[1] < weight.shape[0] or values.min() < least:
        warnings.warn(
            "the last layer of the teacher cannot be inverted (fewer features than classes, or nearly dependent rows), "
            "so that the features of a class prior are not exact",
            stacklevel=2,
        )
    return right.T @ (left / values.clamp_min(least)).T


class Balance(Term):
    """Minus the entropy of the mean prediction at τ: balanced classes (DAFL, "information entropy", eq. 5).

    Args:
        weight: factor in the sum.
        temperature: τ; 1 except in CuDFKD and AdaDFKD.
    """

    name = "balance"

    def __init__(self, weight: float, temperature: float = 1.0):
        super().__init__(weight)
        self.temperature = temperature

    def __call__(self, view: View) -> Tensor:
        """Minus the entropy, in [-ln K, 0], in nats; finite even where a class's mean probability underflows."""
        log_p = F.log_softmax(view.teacher_logits / self.temperature, dim=1)
        log_mean = log_p.logsumexp(dim=0) - math.log(len(view.images))
        return (log_mean.exp() * log_mean.clamp_min(-1e4)).sum()


class Activation(Term):
    """Minus the mean absolute value of the teacher's penultimate features (DAFL, eq. 4; a mean, as released)."""

    name = "activation"
    needs = frozenset({"features"})

    def __call__(self, view: View) -> Tensor:
        """≤ 0."""
        return -view.teacher_features.abs().mean()


class SoftLabelKL(Term):
    """τ²·KL(label ‖ teacher at τ) for labels that are probabilities (n, K) (ZSKD; Nayak et al., ICML 2019).

    Args:
        weight: factor in the sum.
        temperature: τ, of the teacher's prediction.
    """

    name = "soft_label"

    def __init__(self, weight: float, temperature: float = 1.0):
        super().__init__(weight)
        self.temperature = temperature

    def __call__(self, view: View) -> Tensor:
        """≥ 0, in nats; raises ``ValueError`` unless the view's labels are (n, K)."""
        labels = view.labels
        if labels is None or labels.shape != view.teacher_logits.shape:
            raise ValueError("soft labels need a source that asks for probabilities (n, K)")
        log_q = F.log_softmax(view.teacher_logits / self.temperature, dim=1)
        return self.temperature**2 * F.kl_div(log_q, labels, reduction="batchmean")


class ClassPhases(Term):
    """Minus the log of the probability that the teacher gives to the classes of the current phase.

    Classes 0..K-1 take turns cyclically, ``per_phase`` at a time, for ``length`` experiences each. Not part of any
    published method: it makes an ordinary method's stream as non-stationary as a class-incremental one.

    Args:
        weight: factor in the sum.
        classes: K.
        per_phase: classes per phase, 1 ≤ per_phase ≤ K.
        length: experiences per phase, ≥ 1.

    Raises:
        ValueError: if ``per_phase`` or ``length`` is out of range.
    """

    name = "phase"

    def __init__(self, weight: float, classes: int, per_phase: int, length: int):
        super().__init__(weight)
        if not (1 <= per_phase <= classes and length >= 1):
            raise ValueError(
                f"phases of {per_phase} of {classes} classes over {length} experiences: give at least 1 each"
            )
        self.classes = classes
        self.per_phase = per_phase
        self.length = length
        self.experience = 0

    def present(self) -> Tensor:
        """(per_phase,): the classes of the current phase."""
        first = self.experience // self.length * self.per_phase
        return torch.arange(first, first + self.per_phase) % self.classes

    def __call__(self, view: View) -> Tensor:
        """≥ 0, in nats."""
        log_p = F.log_softmax(view.teacher_logits, dim=1)
        return -log_p[:, sent(self.present(), log_p.device)].logsumexp(dim=1).mean()

    def settle(self) -> None:
        """Count another experience."""
        self.experience += 1

    def state_dict(self) -> State:
        """The number of experiences counted."""
        return {"experience": self.experience}

    def load_state_dict(self, state: State) -> None:
        """Take up a state of `state_dict`."""
        self.experience = state["experience"]
