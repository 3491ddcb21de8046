"""One run on several processes: each makes and learns its share of every batch, and gradients are averaged.

With n processes and batches of B/n, the student's step is that of one process with batch B wherever the loss is a mean
over images. The LRA step needs two more averages for that, because its inner step follows the gradient of the whole
acquisition batch: one of ∇L_acq before the inner step and, in the derivative through it, one of ∇L_ret(θ'). With
``meta.shares="own"`` each process looks ahead along the gradient of its own share, and the meta-gradient is averaged
once, like any other.

In training, BatchNorm normalises by the process's own share, as under DistributedDataParallel; running statistics are
averaged at the end of every experience. Terms on a batch as a whole (such as its class balance) see the share only.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from avalanche.core import SupervisedPlugin
from torch import Tensor, nn

from lra.state import owners
from lra.strategies.lra import LRA
from lra.strategies.strategy import DataFreeDistillation
from lra.synthesis.synthesizer import Synthesizer


class PeerLost(RuntimeError):
    """Another process of the run has ended."""


def together(collective: Callable[..., Any], *arguments: Any, **options: Any) -> None:
    """Call one of torch's collective operations.

    Raises:
        PeerLost: if another process does not answer.
    """
    try:
        collective(*arguments, **options)
    except RuntimeError as error:
        raise PeerLost("another process of this run has ended; its last message says why") from error


def averaged(gradients: Sequence[Tensor | None]) -> list[Tensor | None]:
    """Means over processes, in one message; differentiable: the backward pass averages the cotangents."""
    present = [gradient for gradient in gradients if gradient is not None]
    if not present:
        return list(gradients)
    mean: Tensor = _Mean.apply(torch.cat([gradient.reshape(-1) for gradient in present]))
    parts = iter(mean.split([gradient.numel() for gradient in present]))
    return [None if gradient is None else next(parts).view_as(gradient).to(gradient.dtype) for gradient in gradients]


class _Mean(torch.autograd.Function):
    """The mean of a tensor over processes, and of its cotangent."""

    @staticmethod
    def forward(ctx: Any, local: Tensor) -> Tensor:
        """The mean over processes, the same on each."""
        mean = local.clone()
        together(dist.all_reduce, mean)
        return mean / dist.get_world_size()

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> Tensor:
        """The mean of the cotangents over processes."""
        mean: Tensor = _Mean.apply(cotangents[0])
        return mean


@torch.no_grad()
def average_gradients(parameters: Iterable[Tensor]) -> None:
    """Replace the gradients of ``parameters`` by their means over processes."""
    held = list(parameters)
    for parameter, mean in zip(held, averaged([parameter.grad for parameter in held]), strict=True):
        parameter.grad = mean


class AverageGradients(SupervisedPlugin):
    """Averages the student's gradient after every backward pass; must be the first plugin.

    Args:
        networks: all networks that learn: they start from the first process's weights, and their running statistics are
            averaged when an experience closes.
        steps: LRA steps whose learned rates are sent in the same message.
    """

    def __init__(self, networks: Sequence[nn.Module], steps: Sequence[LRA] = ()):
        super().__init__()
        self.networks = list(networks)
        self.steps = list(steps)

    @torch.no_grad()
    def before_training(self, strategy: DataFreeDistillation, **kwargs: object) -> None:
        """Start all processes from the same weights."""
        for network in self.networks:
            for tensor in network.state_dict().values():
                together(dist.broadcast, tensor, src=0)

    def after_backward(self, strategy: DataFreeDistillation, **kwargs: object) -> None:
        """Average what the optimiser is about to use."""
        rates = [rate for step in self.steps for rate in step.lookahead.parameters()]
        average_gradients([*(p for group in strategy.optimizer.param_groups for p in group["params"]), *rates])

    @torch.no_grad()
    def after_training_exp(self, strategy: DataFreeDistillation, **kwargs: object) -> None:
        """Average running statistics."""
        held = [b for network in self.networks for b in network.buffers() if b.is_floating_point()]
        for buffer, mean in zip(held, averaged(held), strict=True):
            buffer.copy_(buffer if mean is None else mean)


class OwnNumbers(SupervisedPlugin):
    """Seeds torch from (seed, process, student steps done); must be the last plugin, after Avalanche's clock.

    Thus what a process draws in a step does not depend on what was drawn before, for example in an evaluation.

    Args:
        seed: of the run.
        rank: of this process.
    """

    def __init__(self, seed: int, rank: int):
        super().__init__()
        self.seed, self.rank = seed, rank

    def before_training(self, strategy: DataFreeDistillation, **kwargs: object) -> None:
        """Seed the opening of the first experience."""
        content = np.random.SeedSequence([self.seed, self.rank, strategy.clock.train_iterations])
        torch.manual_seed(int(content.generate_state(1, np.uint64)[0]))

    def after_training_iteration(self, strategy: DataFreeDistillation, **kwargs: object) -> None:
        """Seed the next step."""
        self.before_training(strategy)

    def after_training_exp(self, strategy: DataFreeDistillation, **kwargs: object) -> None:
        """Seed the opening of the next experience, now that evaluations are over."""
        self.before_training(strategy)


def distribute(strategy: DataFreeDistillation, synthesizer: Synthesizer, seed: int | None = None) -> None:
    """Let a strategy's student, synthesizer and memory learn from the shares of all processes.

    Args:
        strategy: not yet trained, and the same on every process except for its share of the batch.
        synthesizer: of its stream; it must be divisible.
        seed: of the random numbers that each process draws by itself; without one, the synthesizer must seed them.
    """
    learning = owners([synthesizer, *strategy.plugins])
    for optimiser in (optimiser for owner in learning for optimiser in owner.optimisers()):
        optimiser.register_step_pre_hook(_average)
    steps = [plugin for plugin in strategy.plugins if isinstance(plugin, LRA)]
    for step in steps:
        if step.options.shares == "joint":
            step.lookahead.average = averaged
    others = [network for owner in learning for network in owner.networks().values()]
    strategy.plugins.insert(0, AverageGradients([strategy.model, *others], steps))
    if seed is not None:
        strategy.plugins.append(OwnNumbers(seed, dist.get_rank()))


def _average(optimiser: torch.optim.Optimizer, *arguments: object) -> None:
    average_gradients(p for group in optimiser.param_groups for p in group["params"])
