"""Which forms of convolutions are cheapest: the measurements behind the choices that generators and students make.

    python -m lra.benchmarks.cost.convolutions [--rounds N] [--device cuda]

Two tables of medians over rounds. What is compared is interleaved, on one thread, in CPU time or, on a GPU, wall time.

* A generator's upsampling and convolution, with maps channels last: milliseconds of the plain form, and the ratio to
  them of the folded form, one transposed convolution; forward alone (a draw), and forward and backward (an update).
  ``folds`` is what `DoublingConvolution` chooses for each; a ``!`` marks a choice that is over a tenth slower.
* Networks with maps in plain order: milliseconds, and the ratio to them with maps channels last, of a student's step,
  of a teacher's answers, and of its gradient for images. ``auto`` is what ``student.channels_last=auto`` chooses; a
  ``!`` marks a choice with which a student's step is over a tenth slower.
"""

import copy
import statistics
from collections.abc import Callable
from functools import partial

import click
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lra.benchmarks.cost.overhead import seconds
from lra.benchmarks.setup.networks import gains_channels_last
from lra.benchmarks.text import markdown_table
from lra.networks import build
from lra.networks.generators import DoublingConvolution, folds, spread

SIZES = [
    *((16, 16, 2, 64), (16, 16, 4, 64), (16, 8, 4, 64), (16, 8, 8, 64), (16, 8, 8, 256), (16, 16, 8, 128)),
    *((32, 32, 4, 32), (32, 32, 4, 128), (32, 16, 8, 32), (32, 32, 8, 64), (32, 16, 8, 128), (32, 16, 16, 128)),
    *((64, 64, 4, 64), (64, 32, 8, 32), (64, 64, 8, 64), (64, 64, 8, 128)),
    *((128, 128, 4, 16), (128, 128, 4, 64), (128, 128, 8, 16), (128, 64, 8, 64), (128, 128, 8, 128)),
    *((128, 64, 16, 4), (128, 64, 16, 128), (128, 64, 32, 16), (128, 64, 56, 4)),
]
"""Channels in, channels out, side of the input map, batch: of generators of 8 to 224 pixels."""
NETWORKS = [
    *(("wrn16-1", (3, 32, 32), 128), ("wrn10-1", (3, 32, 32), 128), ("wrn40-2", (3, 32, 32), 32)),
    *(("resnet20", (3, 32, 32), 64), ("resnet18", (3, 32, 32), 16), ("vgg11", (3, 32, 32), 32)),
    *(("resnet8", (1, 8, 8), 64), ("resnet8", (1, 16, 16), 64), ("lenet5", (1, 28, 28), 128)),
    ("lenet5-half", (1, 28, 28), 128),
]
"""Name, image and batch."""


def plain(maps: Tensor, layer: DoublingConvolution) -> Tensor:
    """The layer as two operations."""
    return F.conv2d(F.interpolate(maps, scale_factor=2), layer.weight, layer.bias, padding=1)


def folded(maps: Tensor, layer: DoublingConvolution) -> Tensor:
    """The layer as one."""
    return F.conv_transpose2d(maps, spread(layer.weight), layer.bias, stride=2, padding=1)


def compared(one: Callable[[], object], other: Callable[[], object], rounds: int, device: str) -> tuple[float, float]:
    """Median seconds of ``one``, and median ratio of the ``other`` to it."""
    pairs = [(seconds(one, device), seconds(other, device)) for _ in range(rounds + 1)][1:]
    return statistics.median(a for a, _ in pairs), statistics.median(b / a for a, b in pairs)


def shown(*measured: tuple[float, float]) -> list[str]:
    """Cells of milliseconds and ratios."""
    return [cell for time_of_one, part in measured for cell in (f"{1000 * time_of_one:.2f}", f"{part:.2f}")]


def said(chosen: bool, part: float) -> str:
    """Whether the other form is chosen, with a ``!`` if the choice is over a tenth slower than the alternative."""
    wrong = part > 1.1 if chosen else part < 1 / 1.1
    return f"{'yes' if chosen else 'no'}{'!' * wrong}"


def doubling(rounds: int, device: str) -> list[list[str]]:
    """A row for each of `SIZES`."""
    rows = []
    for inputs, outputs, side, batch in SIZES:
        layer = DoublingConvolution(inputs, outputs, bias=False).to(device)
        maps = torch.randn(batch, inputs, side, side, device=device).contiguous(memory_format=torch.channels_last)
        with torch.no_grad():
            draw = compared(partial(plain, maps, layer), partial(folded, maps, layer), rounds, device)
        drawn = said(folds(maps, outputs), draw[1])
        maps.requires_grad_()
        both = compared(partial(update, plain, maps, layer), partial(update, folded, maps, layer), rounds, device)
        updated = said(folds(maps, outputs), both[1])
        rows.append([f"{inputs} → {outputs}", str(side), str(batch), *shown(draw), drawn, *shown(both), updated])
    return rows


def update(form: Callable[[Tensor, DoublingConvolution], Tensor], maps: Tensor, layer: DoublingConvolution) -> None:
    """A forward and a backward pass of a layer."""
    form(maps, layer).sum().backward()


def learn(network: nn.Module, images: Tensor) -> None:
    """A student's step without the optimiser."""
    network.train()(images).square().mean().backward()


def answer(network: nn.Module, images: Tensor) -> None:
    """A teacher's forward pass."""
    with torch.no_grad():
        network.eval()(images)


def invert(network: nn.Module, images: Tensor) -> None:
    """A teacher's forward pass, and its gradient for the images."""
    network.eval().requires_grad_(False)(images.clone().requires_grad_()).square().mean().backward()
    network.requires_grad_(True)


def ordering(rounds: int, device: str) -> list[list[str]]:
    """A row for each of `NETWORKS`."""
    rows = []
    for name, image, batch in NETWORKS:
        network, images = build(name, 10, image).to(device), torch.rand(batch, *image, device=device)
        last = copy.deepcopy(network).to(memory_format=torch.channels_last)
        found = [
            compared(partial(work, network, images), partial(work, last, images), rounds, device)
            for work in (learn, answer, invert)
        ]
        cells = [name, "x".join(map(str, image)), str(batch), *shown(*found)]
        rows.append([*cells, said(gains_channels_last(network, image, device), found[0][1])])
    return rows


@click.command()
@click.option("--rounds", default=9, show_default=True, help="Pairs of each kind.")
@click.option("--device", default="cpu", show_default=True, help="Where to compute.")
def main(rounds: int, device: str) -> None:
    """Measure and print."""
    torch.set_num_threads(1)
    parts = ["draw, ms", "folded", "folds", "update, ms", "folded", "folds"]
    click.echo(markdown_table(["channels", "side", "batch", *parts], doubling(rounds, device)))
    parts = ["step, ms", "last", "answers, ms", "last", "for images, ms", "last"]
    click.echo(f"\n{markdown_table(['network', 'image', 'batch', *parts, 'auto'], ordering(rounds, device))}")


if __name__ == "__main__":
    main()
