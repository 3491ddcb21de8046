"""A filter of samples that the teacher is sure of, as far as these are a kind of their own (TA-DFKD).

Shin et al., "Teacher as a Lenient Expert: Teacher-Agnostic Data-Free Knowledge Distillation", AAAI 2024. Not asking the
generator for samples of one teacher's liking, it takes those afterwards that the teacher is sure of: of the losses
ℓ = -log max softmax of a batch, scaled to [0, 1], those that a mixture of two Gaussians gives to its lower one.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from lra.state import State

NARROW = 1e-6
"""Losses that lie as near together as this are of one kind, and all are kept. (As released, 0/0.)"""


class Mixture(NamedTuple):
    """Two Gaussians on the line: each (2,)."""

    shares: Tensor
    means: Tensor
    variances: Tensor

    def joint(self, values: Tensor) -> Tensor:
        """(n, 2): log of share times density of each, at ``values`` (n,)."""
        spread = torch.distributions.Normal(self.means, self.variances.sqrt())
        return spread.log_prob(values[:, None]) + self.shares.log()

    def posteriors(self, values: Tensor) -> Tensor:
        """(n, 2): whose each value is, summing to 1."""
        return self.joint(values).softmax(dim=1)

    def likelihood(self, values: Tensor) -> float:
        """Mean log-likelihood."""
        return float(self.joint(values).logsumexp(dim=1).mean())


def fitted(
    values: Tensor, iterations: int = 10, tolerance: float = 1e-2, least: float = 5e-4
) -> tuple[Mixture, list[float]]:
    """Fit two Gaussians by expectation and maximisation, from the two clusters of 2-means.

    Args:
        values: (n,), not all equal.
        iterations: at most.
        tolerance: it ends when the mean log-likelihood gains less.
        least: variance.

    Returns:
        The mixture, and the mean log-likelihood at the start and after each iteration.
    """
    centres = torch.stack([values.min(), values.max()])
    for _ in range(iterations):
        upper = (values[:, None] - centres).abs().argmin(dim=1)
        centres = torch.stack([values[upper == 0].mean(), values[upper == 1].mean()])
    mixture = _maximised(values, F.one_hot(upper, 2).to(values.dtype), least)
    likelihoods = [mixture.likelihood(values)]
    for _ in range(iterations):
        mixture = _maximised(values, mixture.posteriors(values), least)
        likelihoods.append(mixture.likelihood(values))
        if abs(likelihoods[-1] - likelihoods[-2]) < tolerance:
            break
    return mixture, likelihoods


def _maximised(values: Tensor, posteriors: Tensor, least: float) -> Mixture:
    counts = posteriors.sum(dim=0).clamp_min(1e-12)
    means = (posteriors * values[:, None]).sum(dim=0) / counts
    variances = (posteriors * (values[:, None] - means) ** 2).sum(dim=0) / counts
    return Mixture(counts / counts.sum(), means, variances.clamp_min(max(least, 1e-12)))


def losses_of(logits: Tensor) -> Tensor:
    """ℓ = -log max softmax (n,) of logits (n, K), in double precision: sure ones are near together."""
    return -F.log_softmax(logits.detach().double(), dim=1).amax(dim=1)


def confident(logits: Tensor) -> Tensor:
    """Which samples the teacher is sure of, by its logits (n, K): a mask (n,), on the CPU; all, where all are alike."""
    losses = losses_of(logits).cpu()
    spread = losses.max() - losses.min() if len(losses) else losses.new_zeros(())
    if not spread >= NARROW:
        return torch.ones(len(losses), dtype=torch.bool)
    scaled = (losses - losses.min()) / spread
    mixture, _ = fitted(scaled)
    return mixture.posteriors(scaled)[:, int(mixture.means.argmin())] > 0.5


class Filter:
    """Draws until it has as many confident samples as are wanted, and never for ever.

    As released it draws on without end where nothing is kept; here at most ``redraws`` times, and what is wanting then
    is filled up with the most confident of the rest.

    Args:
        redraws: further draws at most.

    Attributes:
        drawn: samples looked at since the last `share`.
        kept: of these, how many were kept.
    """

    def __init__(self, redraws: int = 20):
        self.redraws = redraws
        self.drawn = self.kept = 0

    def __call__(
        self,
        draw: Callable[[int], Tensor],
        label: Callable[[Tensor], Tensor],
        n: int,
        show: Callable[[Tensor], Tensor] | None = None,
    ) -> Tensor:
        """``n`` images (n, C, H, W).

        Args:
            draw: makes so many images.
            label: the teacher's logits of them.
            n: how many.
            show: what to do to all images of a draw, after the teacher was asked about them as they are.
        """
        found: list[Tensor] = []
        rest: list[tuple[Tensor, Tensor]] = []
        for _ in range(1 + self.redraws):
            images = draw(n)
            logits = label(images)
            kept = self.mask(logits).to(images.device)
            images = images if show is None else show(images)
            found.append(images[kept])
            rest.append((images[~kept], logits[~kept]))
            if sum(map(len, found)) >= n:
                return torch.cat(found)[:n]
        left, answers = (torch.cat(parts) for parts in zip(*rest, strict=True))
        surest = losses_of(answers).argsort(stable=True)
        return torch.cat([*found, left[surest]])[:n]

    def mask(self, logits: Tensor) -> Tensor:
        """`confident`, counted."""
        kept = confident(logits)
        self.drawn += len(kept)
        self.kept += int(kept.sum())
        return kept

    def share(self) -> float:
        """The share kept since it was asked for the last time."""
        share = self.kept / max(1, self.drawn)
        self.drawn = self.kept = 0
        return share

    def state_dict(self) -> State:
        """What was counted."""
        return {"drawn": self.drawn, "kept": self.kept}

    def load_state_dict(self, state: State) -> None:
        """Take up a state of `state_dict`."""
        self.drawn, self.kept = state["drawn"], state["kept"]
