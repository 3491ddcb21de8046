"""Losses on relations between samples rather than on each one by itself: triplets, channels, cross views.

Pure functions and small modules on feature tensors, for both synthesis and the student. Degenerate batches (one class,
or no two samples of a class) give a zero that can be differentiated, never NaN.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from lra.features import pooled
from lra.randomness import sent


class Triplets(NamedTuple):
    """Which samples to compare: three tensors (t,) of indices into the batch."""

    anchors: Tensor
    positives: Tensor
    negatives: Tensor
    fallback: Tensor
    """Fraction of the anchors, in [0, 1], without a negative in the window; theirs were drawn uniformly."""


@dataclass(frozen=True)
class TripletSampler:
    """Every ordered pair of a class as anchor and positive, with one distance-weighted negative each.

    On unit vectors, negatives are drawn with the inverse density of their distance on the sphere (Wu et al., ICCV
    2017), so that all distances are about equally frequent, within a window of distances. RGAL's *focal* sampler has
    the window (0.5, 1.0); its default one takes all up to 1.4 and treats those nearer than 0.5 as at 0.5.

    Attributes:
        low, high: the window; an anchor with no negative inside draws from all of its negatives.
        floor: smaller distances are raised to this.
    """

    low: float = 0.0
    high: float = 1.4
    floor: float = 0.5

    @torch.no_grad()
    def __call__(self, vectors: Tensor, labels: Tensor) -> Triplets:
        """Sample for vectors (n, d), which need not be of unit length, and labels (n,)."""
        alike = labels[:, None] == labels
        likely, empty = self._weights(vectors, ~alike)
        # How many there are depends on the values, at which the host has to look: a GPU is waited for here, twice.
        same, weights = alike.cpu(), likely.cpu()
        usable = ((same.sum(dim=1) > 1) & (~same).any(dim=1)).nonzero().flatten()
        pairs = same.clone().fill_diagonal_(False)[usable]
        rows, positives = pairs.nonzero(as_tuple=True)
        if not len(rows):
            none = labels.new_empty(0, dtype=torch.long)
            return Triplets(none, none, none, vectors.new_zeros(()))
        drawn = torch.multinomial(weights[usable], int(pairs.sum(dim=1).max()), replacement=True)
        # The r-th positive of an anchor takes the anchor's r-th draw.
        rank = pairs.cumsum(dim=1)[rows, positives] - 1
        device = labels.device
        fallback = empty[sent(usable, device)].to(vectors.dtype).mean()
        chosen = usable[rows], positives, drawn[rows, rank]
        anchors, positives, negatives = (sent(where, device) for where in chosen)
        return Triplets(anchors, positives, negatives, fallback)

    def _weights(self, vectors: Tensor, different: Tensor) -> tuple[Tensor, Tensor]:
        """Probabilities (n, n) of negatives, and the anchors (n,) that had none in the window."""
        unit = F.normalize(vectors, dim=1)
        # At a distance of exactly 2 the density's logarithm is infinite.
        distance = (2 - 2 * unit @ unit.T).clamp_min(0).sqrt().clamp(max(self.floor, 1e-6), 2 - 1e-3)
        n = vectors.shape[1]
        log_weights = (2 - n) * distance.log() - (n - 3) / 2 * torch.log1p(-(distance**2) / 4)
        inside = different & (distance > self.low) & (distance < self.high)
        empty = ~inside.any(dim=1)
        allowed = torch.where(empty[:, None], different, inside)
        log_weights = torch.where(empty[:, None], torch.zeros_like(log_weights), log_weights)
        # Rows of samples without any negative are never drawn from.
        return log_weights.masked_fill(~allowed, -torch.inf).softmax(dim=1).nan_to_num(0.0), empty


def triplet_loss(maps: Sequence[Tensor], triplets: Triplets, margin: float = 0.2, swap: bool = False) -> Tensor:
    """Mean over triplets, summed over layers, of [‖e_i - e_p‖ - ‖e_i - e_n‖ + margin]₊ (RGAL, IJCV 2024).

    Args:
        maps: for each layer features (n, d) or maps (n, d, h, w), which are averaged over pixels; then scaled to
            unit length.
        triplets: which samples to compare.
        margin: of the hinge.
        swap: exchange positive and negative: push one class apart and different classes together, as synthesis should
            against the student (the release omits this).

    Returns:
        ≥ 0; zero, with a graph, where there are no triplets.
    """
    loss = torch.stack([layer.sum() * 0 for layer in maps]).sum()
    if not len(triplets.anchors):
        return loss
    near, far = (triplets.negatives, triplets.positives) if swap else (triplets.positives, triplets.negatives)
    for layer in maps:
        e = F.normalize(pooled(layer), dim=1)
        loss = loss + F.triplet_margin_loss(e[triplets.anchors], e[near], e[far], margin)
    return loss


def angles(points: Tensor) -> Tensor:
    """cos∠ between (e_i - e_j) and (e_k - e_j) for all points (n, d): (n, n, n), by j, i, k; 0 where two coincide."""
    unit = F.normalize(points - points[:, None], dim=2)
    return unit @ unit.mT


class RelationalAngle(nn.Module):
    """Matches angles between samples with a reference's, each under its own learnt linear map (R-DFCIL, ECCV 2022).

    The mean over all triples of |cos∠_ijk(Pφ) - cos∠_ijk(P₋φ₋)|, which is invariant to scale, shift and rotation of Pφ
    and P₋φ₋. It is also 0 where both collapse to a point: watch `extent`.

    Args:
        features: d, of both.
        width: output size of the maps.
    """

    def __init__(self, features: int, width: int = 128):
        super().__init__()
        # A bias would cancel.
        self.project = nn.Linear(features, width, bias=False)
        self.project_reference = nn.Linear(features, width, bias=False)
        self._spread = torch.zeros(())

    def forward(self, features: Tensor, reference: Tensor) -> Tensor:
        """Loss () in [0, 2] of features (n, d) and a reference's (n, d).

        Raises:
            ValueError: for fewer than three samples, between which there is no angle.
        """
        if len(features) < 3:
            raise ValueError(f"angles are between three samples or more; got {len(features)}")
        projected = self.project(features)
        self._spread = projected.detach().std(dim=0).mean()
        return (angles(projected) - angles(self.project_reference(reference))).abs().mean()

    def extent(self) -> tuple[float, float]:
        """Norm of P, and the mean deviation of Pφ in the last batch."""
        return float(self.project.weight.detach().norm()), float(self._spread)


class ChannelDistillation(nn.Module):
    """Matches channel averages of student and teacher maps, through a learnt 1x1 convolution per stage (RGAL).

    Args:
        student_channels: of each stage of the student.
        teacher_channels: of each stage of the teacher.
    """

    def __init__(self, student_channels: Sequence[int], teacher_channels: Sequence[int]):
        super().__init__()
        pairs = zip(student_channels, teacher_channels, strict=True)
        self.adapters = nn.ModuleList(nn.Conv2d(s, t, 1) for s, t in pairs)

    def forward(self, student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
        """Sum over stages of the mean squared difference of pixel averages; maps (n, c, h, w) may have any sizes."""
        losses = [F.mse_loss(pooled(a), pooled(t)) for a, t in zip(self.adapted(student), teacher, strict=True)]
        return torch.stack(losses).sum()

    def adapted(self, student: Sequence[Tensor]) -> list[Tensor]:
        """The student's maps, mapped to the teacher's numbers of channels."""
        return [adapter(s) for adapter, s in zip(self.adapters, student, strict=True)]


def gram_masked(adapted: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
    """Squared difference of maps, most where the teacher's channel correlates least with others (RGAL, off there).

    A channel's weight is 1 - (a - min a)/(max a - min a) + 0.001, where a are the row sums of each sample's Gram matrix
    and the extremes are over the batch.

    Args:
        adapted: for each stage, the student's maps (n, c, h, w) with the teacher's channels.
        teacher: the teacher's maps, of the same sizes.

    Returns:
        Mean over entries, summed over stages, ≥ 0.

    Raises:
        ValueError: if a stage's maps differ in size.
    """
    losses = []
    for s, t in zip(adapted, teacher, strict=True):
        if s.shape != t.shape:
            raise ValueError(
                f"gram needs maps of equal sizes; the student's {tuple(s.shape)}, the teacher's {tuple(t.shape)}"
            )
        flat = t.flatten(2)
        correlation = torch.einsum("bcp,bp->bc", flat, flat.sum(dim=1))
        spread = (correlation.max() - correlation.min()).clamp_min(1e-12)
        weight = 1 - (correlation - correlation.min()) / spread + 1e-3
        losses.append(((s - t) ** 2 * weight[:, :, None, None]).mean())
    return torch.stack(losses).sum()


def cross_view_nce(local: Tensor, whole: Tensor, current: int, temperature: float) -> Tensor:
    """Contrasts each image's local view with all global views, its own being the positive (CMI, IJCAI 2021, eq. 7).

    Args:
        local: (n, d) unit vectors of local views, the ``current`` batch first, those from the bank after it.
        whole: (n, d) unit vectors of the same images' global views; no gradient flows into them.
        current: number of images in the current batch, 1 ≤ current ≤ n.
        temperature: τ.

    Returns:
        Mean of -log softmax over all global views for the current images, plus the mean for the bank's, if any.
    """
    losses: Tensor = _Matching.apply(local, whole.detach(), temperature)
    fresh, banked = losses[:current].mean(), losses[current:]
    return fresh + banked.mean() if len(banked) else fresh


def supervised_contrast(first: Tensor, second: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """Pulls two views of each image together, and towards those of all images of its class (SupCon).

    For 2n rows z, with P(i) all others of row i's class, the mean over i and over p in P(i) of
    -log e^{z_i·z_p/τ} / Σ_{a≠i} e^{z_i·z_a/τ} (Khosla et al., NeurIPS 2020, with the sum outside the logarithm).

    Args:
        first: (n, d) unit vectors.
        second: likewise, of the other view of the same images; gradients flow into both.
        labels: (n,) classes.
        temperature: τ.

    Returns:
        (), ≥ 0.
    """
    rows, classes = torch.cat([first, second]), labels.repeat(2)
    itself = torch.eye(len(rows), dtype=torch.bool, device=rows.device)
    alike = (classes[:, None] == classes) & ~itself
    scores = (rows @ rows.T / temperature).masked_fill(itself, -torch.inf)
    log_p = (scores - scores.logsumexp(dim=1, keepdim=True)).masked_fill(~alike, 0.0)
    return -(log_p.sum(dim=1) / alike.sum(dim=1)).mean()


class _Matching(torch.autograd.Function):
    """-log softmax of (n,d)·(n,d)ᵀ/τ on its diagonal, (n,), with a gradient for the first of the two.

    With thousands of rows the matrix is most of the work: it is made once, and the backward pass needs one product.
    """

    @staticmethod
    def forward(ctx: Any, rows: Tensor, columns: Tensor, temperature: float) -> Tensor:
        scores = (rows / temperature) @ columns.T
        own, largest = scores.diagonal().clone(), scores.amax(dim=1)
        scores.sub_(largest[:, None]).exp_()
        mass = scores.sum(dim=1)
        ctx.save_for_backward(scores, mass, columns)
        ctx.temperature = temperature
        return largest + mass.log() - own

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        scores, mass, columns = ctx.saved_tensors
        gradient = (gradients[0] / ctx.temperature)[:, None]
        return (scores @ columns) * (gradient / mass[:, None]) - gradient * columns, None, None
