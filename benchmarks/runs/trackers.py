"""Trackers of runs: none unless asked for, and no network unless asked for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from lra.benchmarks.errors import MissingInput, UsageError, one_line
from lra.benchmarks.setup.config import RunConfig

if TYPE_CHECKING:
    from lra.strategies.evaluation import WeightsAndBiases


Tracker = Callable[[Path, RunConfig], Any]
"""Makes an Avalanche logger that writes into a run folder from now on."""

Mode = Literal["offline", "online"]


def asked_for(board: bool = False, wandb: Mode | None = None) -> list[Tracker]:
    """The trackers of a run.

    Args:
        board: write TensorBoard events into ``tensorboard`` in the run folder.
        wandb: keep a Weights & Biases record in ``wandb`` in the run folder, or send it as well.
    """
    found: list[Tracker] = []
    if board:
        found.append(_tensorboard)
    if wandb is not None:
        found.append(lambda folder, config: _weights_and_biases(folder, config, wandb))
    return found


def _tensorboard(folder: Path, config: RunConfig) -> Any:
    from lra.strategies.evaluation import tensorboard

    return tensorboard(folder / "tensorboard")


def _weights_and_biases(folder: Path, config: RunConfig, mode: Mode) -> WeightsAndBiases:
    from lra.strategies.evaluation import WeightsAndBiases

    try:
        return WeightsAndBiases(folder, "/".join(folder.parts[-3:]), config.tree(), mode)
    except ImportError:
        raise MissingInput(f"--wandb {mode} needs a package that is not there: pip install wandb") from None
    except Exception as error:
        raise UsageError(
            f"--wandb {mode} cannot start ({one_line(error)}): see wandb login, or use --wandb offline, and wandb "
            "sync later"
        ) from error
