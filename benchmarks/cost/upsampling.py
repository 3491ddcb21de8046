"""From what size on a generator's upsampling and convolution are cheaper as one transposed convolution.

    python -m lra.benchmarks.cost.upsampling [--rounds N] [--device cuda]

For maps of several sizes, channels last as the generators have them: the plain form's milliseconds, and the folded
form's part of them, forward alone (a draw) and forward and backward (an update). The two forms are interleaved; medians
over rounds, on one thread, by the processor's clock unless it is a GPU that is measured. ``folds`` is what
`DoublingConvolution` chooses; a ``!`` marks a choice that an update is more than a tenth slower with.
"""

import statistics
import time
from collections.abc import Callable

import click
import torch
from torch import Tensor
from torch.nn import functional as F

from lra.benchmarks.text import markdown_table
from lra.networks.generators import DoublingConvolution, folds, spread

SIZES = [
    *((16, 16, 2, 64), (16, 16, 4, 64), (16, 8, 4, 64), (16, 8, 8, 64), (16, 8, 8, 256), (16, 16, 8, 128)),
    *((32, 32, 4, 32), (32, 32, 4, 128), (32, 16, 8, 32), (32, 32, 8, 64), (32, 16, 8, 128), (32, 16, 16, 128)),
    *((64, 64, 4, 64), (64, 32, 8, 32), (64, 64, 8, 64), (64, 64, 8, 128)),
    *((128, 128, 4, 16), (128, 128, 4, 64), (128, 128, 8, 16), (128, 64, 8, 64), (128, 128, 8, 128)),
    *((128, 64, 16, 4), (128, 64, 16, 128), (128, 64, 32, 16), (128, 64, 56, 4)),
]
"""Channels in, channels out, side of the small map, batch: of generators for 8 to 224 pixels."""


def plain(maps: Tensor, layer: DoublingConvolution) -> Tensor:
    """The layer as two operations."""
    return F.conv2d(F.interpolate(maps, scale_factor=2), layer.weight, layer.bias, padding=1)


def folded(maps: Tensor, layer: DoublingConvolution) -> Tensor:
    """The layer as one."""
    return F.conv_transpose2d(maps, spread(layer.weight), layer.bias, stride=2, padding=1)


def seconds(form: Callable[[Tensor, DoublingConvolution], Tensor], maps: Tensor, layer: DoublingConvolution) -> float:
    """Seconds of one forward, and of a backward where the maps ask for one."""
    clock = time.process_time
    if maps.is_cuda:
        torch.cuda.synchronize()
        clock = time.perf_counter
    start = clock()
    with torch.set_grad_enabled(maps.requires_grad):
        made = form(maps, layer)
    if maps.requires_grad:
        made.sum().backward()
    if maps.is_cuda:
        torch.cuda.synchronize()
    return clock() - start


def measured(maps: Tensor, layer: DoublingConvolution, rounds: int) -> tuple[float, float]:
    """Seconds of the plain form, and the folded one's part of them."""
    pairs = [(seconds(plain, maps, layer), seconds(folded, maps, layer)) for _ in range(rounds + 1)][1:]
    return statistics.median(a for a, _ in pairs), statistics.median(b / a for a, b in pairs)


@click.command()
@click.option("--rounds", default=15, show_default=True, help="Pairs of each kind.")
@click.option("--device", default="cpu", show_default=True, help="Where to compute.")
def main(rounds: int, device: str) -> None:
    """Measure and print."""
    torch.set_num_threads(1)
    rows = []
    for inputs, outputs, side, batch in SIZES:
        layer = DoublingConvolution(inputs, outputs, bias=False).to(device)
        maps = torch.randn(batch, inputs, side, side, device=device).contiguous(memory_format=torch.channels_last)
        chosen = folds(maps, outputs)
        draw, draw_part = measured(maps, layer, rounds)
        update, update_part = measured(maps.requires_grad_(), layer, rounds)
        wrong = update_part > 1.1 if chosen else update_part < 1 / 1.1
        times = [f"{1000 * draw:.2f}", f"{draw_part:.2f}", f"{1000 * update:.2f}", f"{update_part:.2f}"]
        rows.append(
            [f"{inputs} → {outputs}", str(side), str(batch), *times, f"{'yes' if chosen else 'no'}{'!' * wrong}"]
        )
    head = ["channels", "side", "batch", "draw, ms", "folded", "update, ms", "folded", "folds"]
    click.echo(markdown_table(head, rows))


if __name__ == "__main__":
    main()
