"""From what was typed to a configuration."""

from pathlib import Path

from lra.benchmarks.errors import MissingInput, UsageError
from lra.benchmarks.setup.config import RunConfig, Tree
from lra.benchmarks.setup.layers import merged, parse_assignment
from lra.benchmarks.setup.resolution import resolve
from lra.benchmarks.untrusted import NotPlain, parse_yaml
from lra.networks import NETWORKS
from lra.networks.foreign import is_foreign


def configuration(
    method: str | None = None,
    replay: str | None = None,
    meta: bool | None = None,
    dataset: str | None = None,
    teacher: str | None = None,
    student: str | None = None,
    steps: int | None = None,
    seed: int | None = None,
    preset: str | None = None,
    config_file: Path | None = None,
    assignments: tuple[str, ...] = (),
    plugins: tuple[str, ...] = (),
    device: str | None = None,
    threads: int | None = None,
    on_divergence: str | None = None,
    hard_loss: bool | None = None,
    aea: bool | None = None,
) -> RunConfig:
    """Resolve the options of the command line; what was not given is ``None``.

    Raises:
        UsageError: for anything wrong, in one line.
        MissingInput: for a file that is not there.
    """
    flags: Tree = {
        "method": method,
        "replay": replay,
        "meta": meta,
        "data": dataset,
        "student": student,
        "teacher": None if teacher is None else _teacher(teacher),
        "schedule": None if steps is None else {"steps": steps},
        "seed": seed,
        "device": device,
        "threads": threads,
        "on_divergence": on_divergence,
        "plugin": {"use": list(plugins)} if plugins else None,
    }
    hard: Tree = {} if hard_loss is None else {"hard_loss": hard_loss}
    if hard or aea is not None:
        flags["synthesis"] = hard | ({} if aea is None else {"aea": {"enabled": aea}})
    given: Tree = {}
    for text in assignments:
        given = merged(given, parse_assignment(text))
    stored = read_config(config_file) if config_file else {}
    return resolve([stored, given, {k: v for k, v in flags.items() if v is not None}], preset)


def read_config(file: Path) -> Tree:
    """A configuration file as plain data.

    Raises:
        MissingInput: if it does not exist.
        UsageError: if it is no YAML mapping.
    """
    require_file(file)
    try:
        tree = parse_yaml(file.read_text())
    except (NotPlain, UnicodeDecodeError) as error:
        raise UsageError(f"config {file} is no YAML: {error}") from None
    if not isinstance(tree, dict):
        raise UsageError(f"config {file} holds no sections of options")
    return tree


def stored_configuration(folder: Path) -> RunConfig:
    """The configuration that a run folder was made with.

    Raises:
        MissingInput: if the folder is none of a run.
    """
    file = folder.absolute() / "config.yaml"
    if not file.is_file():
        raise MissingInput(f"{file} does not exist: give the folder of a run, one that holds some is none")
    return resolve([read_config(file)])


def require_file(file: Path) -> None:
    """Raise `MissingInput` unless ``file`` exists."""
    if not file.is_file():
        raise MissingInput(f"file {file} does not exist: check the path")


def _teacher(text: str) -> Tree:
    """A network's name, or a file, whose name may have a colon in it too."""
    if text.lower().replace("_", "-") in NETWORKS or (is_foreign(text) and not Path(text).is_file()):
        return {"network": text}
    if Path(text).suffix or Path(text).is_file():
        require_file(Path(text))
        return {"file": text}
    return {"network": text}
