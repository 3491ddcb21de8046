"""What the papers show of teachers beside accuracy: their answers, bit-flip attacks.

What they share: which runs can be looked at, told before anything is computed and without torch.
"""

from pathlib import Path

from lra.benchmarks.errors import MissingInput
from lra.benchmarks.records import GENERATOR, SYNTHETIC
from lra.benchmarks.runs.distillation import stored_configuration
from lra.benchmarks.setup.datasets import data_of


def require_images(folder: Path) -> None:
    """Raise `MissingInput` unless a run left images, or a generator of some, and its data are there.

    Every method leaves one or the other when it is finished: those with a generator that lasts that generator, those
    that synthesise batches their last one.
    """
    config = stored_configuration(folder)
    if not (folder / "result.json").is_file():
        raise MissingInput(f"run {folder} is not finished: go on with lra-bench resume {folder}")
    if not any((folder / name).is_file() for name in (GENERATOR, SYNTHETIC)):
        raise MissingInput(
            f"run {folder} has neither {GENERATOR} nor {SYNTHETIC} any more, of which every method leaves one: delete "
            "its result.json to run again"
        )
    data_of(config.data).require()
