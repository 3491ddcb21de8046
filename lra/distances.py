"""Distances between two networks' predictions: pure functions of logits (n, K).

Distillation minimises one of them; an adversarial generator maximises one. Which one is always given explicitly, never
a hidden default.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

Distance = Callable[..., Tensor]
"""(student logits, teacher logits, [temperature]) -> per-sample distance (n,)."""


def l1(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean absolute difference of raw logits, per sample (n,)."""
    return (student - teacher).abs().mean(dim=1)


def kl(student: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
    """τ²·KL(teacher ‖ student) of the softened predictions, per sample (n,), in nats (Hinton et al. 2015)."""
    log_p = F.log_softmax(teacher / temperature, dim=1)
    log_q = F.log_softmax(student / temperature, dim=1)
    return temperature**2 * (log_p.exp() * (log_p - log_q)).sum(dim=1)


def soft_cross_entropy(student: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
    """-Σ p_T ln p_S of the softened predictions, per sample (n,), in nats and without a factor τ²."""
    return -(F.softmax(teacher / temperature, dim=1) * F.log_softmax(student / temperature, dim=1)).sum(dim=1)


def local_cross_entropy(logits: Tensor, labels: Tensor, classes: Sequence[int]) -> Tensor:
    """Cross-entropy with labels (n,) of a softmax over some ``classes`` only, per sample (n,), in nats.

    Logits of other classes get no gradient (Smith et al., ICCV 2021: new classes are learnt without pushing old logits
    down).

    Args:
        logits: (n, K).
        labels: each among ``classes``.
        classes: in ascending order.
    """
    where = torch.searchsorted(torch.tensor(classes, device=labels.device), labels)
    return F.cross_entropy(logits[:, classes], where, reduction="none")


def through_head(features: Tensor, reference: Tensor, head: Tensor) -> Tensor:
    """Mean over rows w_k of (w_k·φ - w_k·φ')², per sample (n,): features are kept only as far as the head uses them.

    Importance-weighted feature distillation (Smith et al., ICCV 2021); a bias of the head would cancel.

    Args:
        features: (n, d).
        reference: (n, d).
        head: (k, d), frozen.
    """
    return ((features - reference) @ head.T).square().mean(dim=1)


def kl_reversed(student: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
    """τ²·KL(student ‖ teacher) of the softened predictions, per sample (n,), in nats: `kl` in the other direction."""
    return kl(teacher, student, temperature)


def js(student: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
    """Jensen-Shannon divergence of the softened predictions, per sample (n,), in [0, ln 2]."""
    log_p = F.log_softmax(teacher / temperature, dim=1)
    log_q = F.log_softmax(student / temperature, dim=1)
    log_m = torch.logaddexp(log_p, log_q) - math.log(2)
    return 0.5 * ((log_p.exp() * (log_p - log_m)).sum(dim=1) + (log_q.exp() * (log_q - log_m)).sum(dim=1))


def js_reversed(student: Tensor, teacher: Tensor, temperature: float = 3.0) -> Tensor:
    """The "JS divergence" of CMI, Fast, RGAL and the DFKD benchmark, as they compute it, per sample (n,).

    KL is taken from the mixture to the parts, and every probability is clamped to [0.01, 0.99] after mixing: the result
    is not bounded by ln 2, and has no gradient where it is clamped.
    """
    p, q = F.softmax(teacher / temperature, dim=1), F.softmax(student / temperature, dim=1)
    mixture = ((p + q) / 2).clamp(0.01, 0.99)
    p, q = p.clamp(0.01, 0.99), q.clamp(0.01, 0.99)
    to_teacher = mixture * (mixture.log() - p.log())
    to_student = mixture * (mixture.log() - q.log())
    return 0.5 * (to_teacher + to_student).sum(dim=1)


def js_reference(student: Tensor, teacher: Tensor, temperature: float = 3.0) -> Tensor:
    """The "JS divergence" of the published PRE-DFKD and LRA code, as they compute it, per sample (n,).

    `js_reversed`, averaged over classes rather than summed: at K = 100 most entries give no gradient.
    """
    return js_reversed(student, teacher, temperature) / student.shape[1]


def recovered(logits: Tensor) -> Tensor:
    """Logits (n, K) as recovered from a black box: log-probabilities, centred per sample (DFME, CVPR 2021)."""
    log_p = F.log_softmax(logits, dim=1)
    return log_p - log_p.mean(dim=1, keepdim=True)


def from_recovered(distance: Distance) -> Distance:
    """``distance`` to a teacher whose probabilities are known, but not its logits."""

    def measured(student: Tensor, teacher: Tensor) -> Tensor:
        return distance(student, recovered(teacher))

    return measured
