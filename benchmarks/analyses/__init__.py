"""What the papers show beside accuracy: convergence of generators, teachers' answers, bit-flip attacks.

What they share: which runs can be looked at, told before anything is computed and without torch, and the files of each.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from lra.benchmarks.errors import MissingInput
from lra.benchmarks.files import write_json
from lra.benchmarks.records import GENERATOR, SYNTHETIC
from lra.benchmarks.setup.datasets import data_of
from lra.benchmarks.setup.identity import stored_configuration


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


def write_analysis(out: Path, name: str, record: dict[str, Any], draw: Callable[..., str], *content: Any) -> list[Path]:
    """Write a record and a figure as ``.json``, ``.svg`` and ``.png``; returns the files.

    Args:
        out: folder.
        name: of the files.
        record: the numbers.
        draw: the figure, as `lra.benchmarks.reports.drawing.save_figure` takes it.
        content: what it draws.
    """
    from lra.benchmarks.reports.drawing import save_figure

    files = [out / f"{name}{suffix}" for suffix in (".json", ".svg", ".png")]
    write_json(files[0], record)
    for file in files[1:]:
        save_figure(file, draw, *content)
    return files
