"""A filter that keeps the samples the teacher is confident in (TA-DFKD).

Shin et al., "Teacher as a Lenient Expert: Teacher-Agnostic Data-Free Knowledge Distillation", AAAI 2024. The generator
is not trained to please one teacher; instead its samples are filtered afterwards. A mixture of two Gaussians is fitted
to a batch's losses ℓ = -log max softmax, scaled to [0, 1], and the samples assigned to the lower one are kept.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from lra.state import State

NARROW = 1e-6
"""If all losses lie within this range, all samples are kept. (As released, 0/0.)"""


class Mixture(NamedTuple):
    """A mixture of two one-dimensional Gaussians; each field (2,)."""

    shares: Tensor
    means: Tensor
    variances: Tensor

    def joint(self, values: Tensor) -> Tensor:
        """(n, 2): log of share times density of each Gaussian, at ``values`` (n,)."""
        spread = torch.distributions.Normal(self.means, self.variances.sqrt())
        return spread.log_prob(values[:, None]) + self.shares.log()

    def posteriors(self, values: Tensor) -> Tensor:
        """(n, 2): posterior probability of each Gaussian, for every value."""
        return self.joint(values).softmax(dim=1)

    def likelihood(self, values: Tensor) -> float:
        """Mean log-likelihood."""
        return float(self.joint(values).logsumexp(dim=1).mean())


def fitted(
    values: Tensor, iterations: int = 10, tolerance: float = 1e-2, least: float = 5e-4
) -> tuple[Mixture, list[float]]:
    """Fit two Gaussians by expectation-maximisation, starting from the two clusters of 2-means.

    Args:
        values: (n,), not all equal.
        iterations: at most this many.
        tolerance: stop when the mean log-likelihood improves by less.
        least: smallest variance.

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
    """ℓ = -log max softmax (n,) of logits (n, K), in double precision, since confident ones are very close."""
    return -F.log_softmax(logits.detach().double(), dim=1).amax(dim=1)


def confident(logits: Tensor) -> Tensor:
    """Mask (n,), on the CPU, of samples the teacher is confident in, by its logits (n, K); all, if they are alike."""
    losses = losses_of(logits).cpu()
    spread = losses.max() - losses.min() if len(losses) else losses.new_zeros(())
    if not spread >= NARROW:
        return torch.ones(len(losses), dtype=torch.bool)
    scaled = (losses - losses.min()) / spread
    mixture, _ = fitted(scaled)
    return mixture.posteriors(scaled)[:, int(mixture.means.argmin())] > 0.5


class Filter:
    """Draws until there are as many confident samples as requested, with a limit.

    The release draws without end where nothing is kept; here there are at most ``redraws`` more draws, and what is then
    missing is filled up with the most confident of the rest.

    Args:
        redraws: maximum number of additional draws.

    Attributes:
        drawn: samples examined since the last `share`.
        kept: how many of these were kept.
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
            draw: makes the given number of images.
            label: gives the teacher's logits for them.
            n: how many images to return.
            show: augmentation of all images of a draw, applied after the teacher has seen them unaugmented.
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
        """The mask from `confident`; updates the counts."""
        kept = confident(logits)
        self.drawn += len(kept)
        self.kept += int(kept.sum())
        return kept

    def share(self) -> float:
        """The fraction kept since the last call."""
        share = self.kept / max(1, self.drawn)
        self.drawn = self.kept = 0
        return share

    def state_dict(self) -> State:
        """The counts."""
        return {"drawn": self.drawn, "kept": self.kept}

    def load_state_dict(self, state: State) -> None:
        """Take up a state of `state_dict`."""
        self.drawn, self.kept = state["drawn"], state["kept"]
