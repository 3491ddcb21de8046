"""Bit-flip attack: progressive bit search on the weights of an 8-bit network (Rakin, He and Fan, ICCV 2019).

An attacker who can flip bits in memory looks for the few that hurt a network most, by gradients on a batch of images
with the network's own predictions as labels. How much the flips hurt on real data shows how much the images resemble
real ones: AEAHL-RG evaluates reused generators in this way.
"""

import copy
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

BITS = 8


class Flip(NamedTuple):
    """One bit of one weight."""

    layer: int
    weight: int
    """Index into the layer's flattened integers."""
    bit: int
    """0 is the least significant bit; bit 7 has the value -128."""


class BitNetwork:
    """A copy of a network with 8-bit weights: those of convolutions and linear layers are integers times a step size.

    Biases, BatchNorm and activations stay floats. Each layer has one step, with the least squared error on a grid of
    100 between half and all of max|w| / 127.

    Args:
        network: images -> logits (n, K); left as it is.
    """

    def __init__(self, network: nn.Module):
        self.network = copy.deepcopy(network).eval()
        kinds = (nn.Conv2d, nn.Linear)
        self.layers = [layer for layer in self.network.modules() if isinstance(layer, kinds)]
        self.steps = [best_step(layer.weight.detach()) for layer in self.layers]
        self.integers = [
            to_integers(layer.weight.detach(), step) for layer, step in zip(self.layers, self.steps, strict=True)
        ]
        for layer in self.layers:
            layer.weight.requires_grad_(True)
        for index in range(len(self.layers)):
            self._write(index)

    def flip(self, flips: list[Flip]) -> None:
        """Flip bits; doing it twice undoes it."""
        for layer, weight, bit in flips:
            flat = self.integers[layer].view(-1)
            flat[weight] = flat[weight] ^ (1 << bit if bit < BITS - 1 else -128)
        for layer in {flip.layer for flip in flips}:
            self._write(layer)

    @torch.no_grad()
    def _write(self, layer: int) -> None:
        self.layers[layer].weight.copy_(self.integers[layer].to(self.steps[layer].dtype) * self.steps[layer])

    def loss(self, images: Tensor, labels: Tensor) -> Tensor:
        """Cross-entropy with labels (n,)."""
        return F.cross_entropy(self.network(images), labels)

    def gradients(self, images: Tensor, labels: Tensor) -> list[Tensor]:
        """∂loss/∂integers of each layer, flat."""
        found = torch.autograd.grad(self.loss(images, labels), [layer.weight for layer in self.layers])
        return [(g * step).flatten() for g, step in zip(found, self.steps, strict=True)]


def to_integers(weights: Tensor, step: Tensor) -> Tensor:
    """The nearest multiples of ``step``, as int8."""
    return (weights / step).round().clamp(-128, 127).to(torch.int8)


def best_step(weights: Tensor) -> Tensor:
    """The step of least squared rounding error, of 100 from max|w| / 254 to max|w| / 127; 1 if all weights are 0."""
    largest = weights.abs().max() / (2 ** (BITS - 1) - 1)
    if largest == 0:
        return torch.ones_like(largest)
    steps = largest * torch.linspace(0.5, 1, 100, dtype=weights.dtype, device=weights.device)
    errors = [(to_integers(weights, step) * step - weights).square().sum() for step in steps]
    return steps[torch.stack(errors).argmin()]


def candidates(integers: Tensor, gradient: Tensor, most: int) -> list[tuple[int, int]]:
    """Bits (weight, bit) of one layer whose flip raises the loss to first order, the best first.

    Args:
        integers: (m,) int8.
        gradient: (m,), of the loss.
        most: number of weights examined, those with the largest gradients.
    """
    where = gradient.abs().topk(min(most, len(gradient))).indices
    bits = torch.arange(BITS, device=gradient.device)
    values = torch.where(bits == BITS - 1, -(2.0 ** (BITS - 1)), 2.0**bits).to(gradient)
    is_set = (integers[where].to(torch.int32)[:, None] >> bits) & 1
    gains = gradient[where][:, None] * values * (1 - 2 * is_set)
    order = gains.flatten().argsort(descending=True)
    rising = order[gains.flatten()[order] > 0]
    return [(int(where[i // BITS]), int(i % BITS)) for i in rising]


def search(victim: BitNetwork, images: Tensor, labels: Tensor, most: int = 10) -> Iterator[list[Flip]]:
    """Flip bits of ``victim`` step by step, and yield them; this goes on as long as any bit raises the loss.

    In each step the n best bits of every layer (n = 1 at first) are tried, and those of the layer that raises the loss
    most stay flipped. If none raises it, n grows by one.

    Args:
        victim: the network under attack, which is changed.
        images: (m, C, H, W), the attacker's.
        labels: (m,), the clean network's own predictions.
        most: weights examined per layer.
    """
    while True:
        gradients = victim.gradients(images, labels)
        ranked = [
            candidates(integers.view(-1), gradient, most)
            for integers, gradient in zip(victim.integers, gradients, strict=True)
        ]
        chosen = _best(victim, ranked, images, labels)
        if chosen is None:
            return
        victim.flip(chosen)
        yield chosen


@torch.no_grad()
def _best(victim: BitNetwork, ranked: list[list[tuple[int, int]]], images: Tensor, labels: Tensor) -> list[Flip] | None:
    current = victim.loss(images, labels)
    for n in range(1, max(map(len, ranked), default=0) + 1):
        tried: list[tuple[float, list[Flip]]] = []
        for layer, bits in enumerate(ranked):
            if len(bits) >= n:
                flips = [Flip(layer, *bit) for bit in bits[:n]]
                victim.flip(flips)
                tried.append((victim.loss(images, labels).item(), flips))
                victim.flip(flips)
        loss, flips = max(tried, key=lambda pair: pair[0])
        if loss > current:
            return flips
    return None
