"""From what was typed to a configuration."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from lra import __version__
from lra.benchmarks.errors import MissingInput, UsageError, concerning
from lra.benchmarks.setup.config import RunConfig, Tree
from lra.benchmarks.setup.identity import difference, recorded
from lra.benchmarks.setup.layers import blaming, expanded, merged, parse_assignment
from lra.benchmarks.setup.places import placed, placed_layer
from lra.benchmarks.setup.resolution import resolve, restored
from lra.benchmarks.setup.user_code import identities, importable, modules_in
from lra.benchmarks.untrusted import NotPlain, parse_yaml
from lra.networks import is_known
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
    base: Path | None = None,
    code: Mapping[str, str] | None = None,
) -> RunConfig:
    """Resolve the options of the command line; what was not given is ``None``.

    Relative paths count from the working directory; if the options are from a file, from its folder ``base`` first.
    If they are from a record, ``code`` says where it had modules from, and nothing in it counts as typed by the user.

    Raises:
        UsageError: for anything wrong, in one line.
        MissingInput: for a file that is not there.
    """
    bases = [Path()] if base is None else [base, Path()]
    flags: Tree = {
        "method": method,
        "replay": replay,
        "meta": meta,
        "data": dataset,
        "student": student,
        "teacher": None if teacher is None else _teacher(teacher, bases),
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
    stored = _stored(Path(placed(str(config_file), "config", bases))) if config_file else {}
    layers = [given, {k: v for k, v in flags.items() if v is not None}]
    typed = [placed_layer(expanded(layer), bases) for layer in layers]
    above = typed if preset is None else [*typed, {"preset": preset}]
    with blaming(_origin(config_file) if config_file else "", stored, above):
        config = resolve([{} if code is None else {"code": dict(code)}, stored, *typed], preset)
    return _with_code(config, typed if code is None else ())


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
    stored = _stored(file)
    with concerning(_origin(file)):
        config = restored(stored)
    config = _with_code(config)
    before, code = recorded(file.parent), {"code": identities(config.tree())}
    if before is not None and (other := difference({"code": before.get("code", {})}, code)):
        raise UsageError(f"{folder}: {other}, or begin anew with lra-bench run --config {file}")
    return config


def with_code(config: RunConfig) -> RunConfig:
    """A configuration of this program's own, whose modules can be imported from now on, and which says where from."""
    return _with_code(config, [{"code": config.code or {}}])


def _with_code(config: RunConfig, typed: Sequence[Tree] = ()) -> RunConfig:
    """Likewise one of a user's; ``typed`` are the layers of it that he typed himself, and that are trusted."""
    names = {module.partition(".")[0] for layer in typed for module in modules_in(layer).values()}
    trusted = {top for layer in typed for top in layer.get("code") or {}}
    found = importable(modules_in(config.tree()), config.code or {}, names, trusted)
    return config.model_copy(update={"code": found or None})


def _stored(file: Path) -> Tree:
    """The layer in a configuration file; what is relative in it counts from its folder."""
    tree = read_config(file)
    with concerning(_origin(file)):
        return placed_layer(expanded(tree), [file.parent, Path()])


def _origin(file: Path) -> str:
    """A configuration file for a complaint."""
    try:
        version = json.loads((file.parent / "env.json").read_text())["versions"]["lra"]
    except (OSError, ValueError, KeyError, TypeError):  # of a user's own, or none that can be read
        version = __version__
    return origin("config", file, version)


def origin(what: str, file: Path, version: object) -> str:
    """A file for a complaint, and which version of this program wrote it, if it was another."""
    return f"{what} {file}" + (f" (written by lra {version}, and this is {__version__})" * (version != __version__))


def require_file(file: Path) -> None:
    """Raise `MissingInput` unless ``file`` exists."""
    if not file.is_file():
        raise MissingInput(f"file {file} does not exist: check the path")


def _teacher(text: str, bases: Sequence[Path]) -> Tree:
    """A network's name, or a file, whose name may have a colon in it too."""
    file = Path(placed(text, "teacher", bases))
    if is_known(text) or (is_foreign(text) and not file.exists()):
        return {"network": text}
    if file.is_dir():
        raise UsageError(f"teacher {text!r} is a folder: give the file of weights in it")
    if file.suffix or os.sep in text or file.is_file():
        require_file(file)
        return {"file": str(file)}
    return {"network": text}
