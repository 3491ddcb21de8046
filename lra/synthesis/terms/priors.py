"""Priors on images: statistics in the teacher's BatchNorm layers, smoothness and norm, and diversity within a batch."""

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from lra.features import LayerStatistics
from lra.problem import single
from lra.state import State
from lra.synthesis.terms.term import Term
from lra.view import View

Gap = Literal["l2", "mse", "kl"]


class BNStat(Term):
    """R_bn = Σ_l ‖v_l - V_l‖₂ + ‖m_l - M_l‖₂ over the teacher's BatchNorm layers (DeepInversion, CVPR 2020).

    m, v are the mean and biased variance of a layer's input in the batch, M, V the running ones. With momentum (Fast,
    AAAI 2022; NAYER) the batch has weight 1 - μ and the rest is a running mean m̄, v̄ of earlier experiences,
    ‖V - (1-μ)v - μv̄‖₂ + ‖M - (1-μ)m - μm̄‖₂, so that the gradient is scaled by about 1 - μ. The first experience uses
    the plain form, and its last batch becomes m̄, v̄.

    Args:
        weight: factor in the sum.
        momentum: μ in [0, 1); 0 for none (Fast and NAYER: 0.9).
        gap: ``"l2"``, norms that are not squared, as in all releases; ``"mse"``, mean squares; ``"kl"``, mean
            KL(N(m, v) ‖ N(M, V)) over channels (DFQ's paper).
        reduce: ``"sum"`` over layers, as released, or their ``"mean"``.
        order: for ``"kl"``: from the ``"batch"`` to the running statistics, or KL(N(M, V) ‖ N(m, v)) from the
            ``"running"`` ones to the batch's (ABD, ICCV 2021).
    """

    name = "batchnorm"
    needs = frozenset({"batchnorm"})

    def __init__(
        self,
        weight: float,
        momentum: float = 0.0,
        gap: Gap = "l2",
        reduce: Literal["sum", "mean"] = "sum",
        order: Literal["batch", "running"] = "batch",
    ):
        super().__init__(weight)
        self.momentum = momentum
        self.gap = gap
        self.reduce = reduce
        self.order = order
        self.remembered: list[tuple[Tensor, Tensor]] | None = None
        """(m̄, v̄) of each layer."""
        self._last: list[tuple[Tensor, Tensor]] = []

    def __call__(self, view: View) -> Tensor:
        """≥ 0."""
        layers = view.statistics
        if self.momentum:
            self._last = [(layer.mean.detach(), layer.variance.detach()) for layer in layers]
            layers = self._blended(layers)
        gaps = torch.stack([self._gap(layer) for layer in layers])
        return gaps.sum() if self.reduce == "sum" else gaps.mean()

    def _blended(self, layers: list[LayerStatistics]) -> list[LayerStatistics]:
        if self.remembered is None:
            return layers
        m = self.momentum
        return [
            layer._replace(mean=(1 - m) * layer.mean + m * mean, variance=(1 - m) * layer.variance + m * variance)
            for layer, (mean, variance) in zip(layers, self.remembered, strict=True)
        ]

    def _gap(self, layer: LayerStatistics) -> Tensor:
        mean, variance = layer.running_mean - layer.mean, layer.running_variance - layer.variance
        if self.gap == "l2":
            return variance.norm() + mean.norm()
        if self.gap == "mse":
            return variance.square().mean() + mean.square().mean()
        of, to = layer.variance + 1e-8, layer.running_variance + 1e-8
        if self.order == "running":
            of, to = to, of
        return 0.5 * (of / to - 1 - (of / to).log() + mean.square() / to).mean()

    def settle(self) -> None:
        """Update m̄ <- μm̄ + (1-μ)m, and v̄ likewise, with the last batch of the experience."""
        if not self.momentum or not self._last:
            return
        if self.remembered is None:
            self.remembered = self._last
        else:
            self.remembered = [
                (old[0].lerp(new[0], 1 - self.momentum), old[1].lerp(new[1], 1 - self.momentum))
                for old, new in zip(self.remembered, self._last, strict=True)
            ]
        self._last = []

    def state_dict(self) -> State:
        """m̄ and v̄ of each layer, if any yet."""
        return {"remembered": None if self.remembered is None else [list(pair) for pair in self.remembered]}

    def load_state_dict(self, state: State) -> None:
        """Take up a state of `state_dict`."""
        saved = state["remembered"]
        self.remembered = None if saved is None else [(mean, variance) for mean, variance in saved]


class CoupledMaps(Term):
    """Matches the generator's maps with the teacher's, at the statistics of real data (CPNet, Chen et al., ICCV 2025).

    The sum over nodes of mean (x - f̃)², where x is the generator's map and f̃ = (f - m)/√v·√V + M, without gradient;
    f is the input of the BatchNorm layer, m and v its mean and unbiased variance in the batch, M and V its running
    ones. Where a `BNStat` remembers earlier batches, m and v are blended with these as there.

    The images behind f may have been shifted and mixed since the generator made x, as released.

    Args:
        weight: factor in the sum.
        nodes: indices of the layers among those that views collect, in the order of the generator's maps.
        statistics: the `BNStat` whose memory is shared.
    """

    name = "coupling"
    needs = frozenset({"batchnorm"})

    def __init__(self, weight: float, nodes: Sequence[int], statistics: BNStat):
        super().__init__(weight)
        self.nodes = nodes
        self.statistics = statistics

    def __call__(self, view: View) -> Tensor:
        """≥ 0."""
        pairs = zip(view.generator_maps, self.nodes, strict=True)
        return torch.stack([(maps - self.wanted(view, node)).square().mean() for maps, node in pairs]).sum()

    @torch.no_grad()
    def wanted(self, view: View, node: int) -> Tensor:
        """f̃ (n,c,h,w) of a layer; 0/0 in a constant channel becomes 0."""
        seen, layer = single(view.batchnorm_inputs[node]), view.statistics[node]
        count = seen.numel() / seen.shape[1]
        mean, variance = layer.mean, layer.variance * (count / max(1, count - 1))
        if self.statistics.remembered is not None:
            past, share = self.statistics.remembered[node], 1 - self.statistics.momentum
            mean, variance = past[0].lerp(mean, share), past[1].lerp(variance, share)
        scale = (layer.running_variance / variance.clamp_min(1e-20)).sqrt()
        return (seen - _channels(mean)) * _channels(scale) + _channels(layer.running_mean)


def _channels(values: Tensor) -> Tensor:
    """(c,) shaped to broadcast with maps (n,c,h,w)."""
    return values[:, None, None]


class TotalVariation(Term):
    """Mean absolute difference of neighbours, summed over four directions (DeepInversion, Yin et al., CVPR 2020).

    It is for images in [0, 1] before augmentation; releases that optimise normalised pixels measure about 1/std times
    as much.

    Args:
        weight: factor in the sum.
        reduce: for the differences in a direction: their absolute ``"mean"``, or the ``"norm"`` over all images, which
            grows with the root of their number (DeepInversion's other form; TA-DFKD).
        standardise: applied to the images first, if given: see `lra.images.standardisation`.
    """

    name = "total_variation"

    def __init__(
        self,
        weight: float,
        reduce: Literal["mean", "norm"] = "mean",
        standardise: Callable[[Tensor], Tensor] | None = None,
    ):
        super().__init__(weight)
        self.reduce = reduce
        self.standardise = standardise

    def __call__(self, view: View) -> Tensor:
        """≥ 0: over columns, rows and both diagonals; a direction without neighbours adds 0."""
        x = view.plain if self.standardise is None else self.standardise(view.plain)
        steps = [
            x[..., :, 1:] - x[..., :, :-1],
            x[..., 1:, :] - x[..., :-1, :],
            x[..., 1:, 1:] - x[..., :-1, :-1],
            x[..., 1:, :-1] - x[..., :-1, 1:],
        ]
        sizes = (step.abs().mean() if self.reduce == "mean" else step.norm() for step in steps if step.numel())
        return sum(sizes, x.new_zeros(()))


class Smoothness(Term):
    """Mean squared difference between the images and their blurred versions (ABD, Smith et al., ICCV 2021).

    The kernel is 5×5, Gaussian with σ = √2, over images mirrored at their borders; along a side of one or two pixels
    there is nothing to mirror, and no blurring.
    """

    name = "smoothness"

    def __call__(self, view: View) -> Tensor:
        """≥ 0."""
        x = view.plain
        return (x - blurred(x)).square().mean()


def blurred(images: Tensor) -> Tensor:
    """Images (n, C, H, W) blurred with the kernel of `Smoothness`."""
    bell = torch.exp(-(torch.arange(-2, 3, device=images.device, dtype=images.dtype) ** 2) / 4)
    bell = bell / bell.sum()
    for axis in (2, 3):
        if images.shape[axis] > 2:
            padded = F.pad(images, (0, 0, 2, 2) if axis == 2 else (2, 2, 0, 0), mode="reflect")
            images = sum((w * padded.narrow(axis, i, images.shape[axis]) for i, w in enumerate(bell)), images * 0)
    return images


class L2(Term):
    """Euclidean norm of the whole batch before augmentation (DeepInversion, with weight 0 as published; TA-DFKD).

    Args:
        weight: factor in the sum.
        standardise: applied to the images first, if given: then the mean colour costs nothing, instead of black.
    """

    name = "l2"

    def __init__(self, weight: float, standardise: Callable[[Tensor], Tensor] | None = None):
        super().__init__(weight)
        self.standardise = standardise

    def __call__(self, view: View) -> Tensor:
        """≥ 0."""
        return (view.plain if self.standardise is None else self.standardise(view.plain)).norm()


class Spread(Term):
    """Minus the `spread` of the pixel-averaged map that images are decoded from, so that the images differ (DLIG)."""

    name = "spread"

    def __call__(self, view: View) -> Tensor:
        """In (-1, 0].

        Raises:
            ValueError: if the generator exposes no map, or the batch is a single image.
        """
        if not view.generator_maps:
            raise ValueError("the spread of images needs a generator that shows the map it decodes them from")
        return -spread(view.generator_maps[-1].mean(dim=(2, 3)))


def spread(features: Tensor) -> Tensor:
    """Unbiased standard deviation over the batch of features (n, d) scaled to unit length, averaged over d: ≥ 0.

    Raises:
        ValueError: for a single image.
    """
    if len(features) < 2:
        raise ValueError(f"the spread of {len(features)} image is not defined: make 2 at a time or more")
    return F.normalize(features, dim=1).std(dim=0).mean()
