"""Loggers of Avalanche's that keep further records of a run."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from avalanche.logging import BaseLogger, TensorboardLogger, WandBLogger


def tensorboard(folder: Path) -> BaseLogger:
    """Avalanche's TensorBoard logger, writing into ``folder`` from now on."""
    return TensorboardLogger(tb_log_dir=folder)


class WeightsAndBiases(WandBLogger):
    """Avalanche's Weights & Biases logger, for one run of several in a process: it closes its record with the run.

    Args:
        folder: where the record goes.
        name: of the run; a run of the same name that was stopped goes on where it is sent.
        config: of the run, as plain data.
        mode: keep the record in ``folder``, or send it as well.

    Raises:
        ImportError: if wandb is not installed.
        Exception: of wandb's own, if it cannot start, for want of a login or a network, say.
    """

    def __init__(self, folder: Path, name: str, config: Mapping[str, Any], mode: Literal["offline", "online"]):
        from wandb import Settings

        # Where there is no folder the record would go elsewhere.
        folder.mkdir(parents=True, exist_ok=True)
        own = {
            # Avalanche would ask wandb for one with a function that newer versions do not have.
            "id": "".join(c if c.isalnum() else "-" for c in name)[-128:],
            "mode": mode,
            "settings": Settings(silent=True, console="off", disable_git=True),
        }
        super().__init__(
            project_name="lra",
            run_name=name,
            save_code=False,
            config=dict(config),
            dir=folder,
            params=own | ({"resume": "allow"} if mode == "online" else {}),
        )

    def log_single_metric(self, name: str, value: object, x_plot: int) -> None:
        """Log a number; of Avalanche's own, newer versions of wandb lack what pictures and charts would need."""
        if isinstance(value, (int, float)):
            self.step = x_plot
            self.wandb.log({name: value}, step=x_plot)

    def after_training(self, *arguments: Any, **kwargs: Any) -> None:
        """Log, and close the record."""
        super().after_training(*arguments, **kwargs)
        self.wandb.finish()
