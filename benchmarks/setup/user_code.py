"""The user's own code, which a configuration names as ``module:name``: where it is, and what identifies it.

Nothing is imported here: modules are found as Python would find them, and read. A module is identified by its file, the
packages it is in, and every module in the same folder that these import, as far as the syntax tree shows; an installed
package by its version.
"""

import ast
import hashlib
import importlib
import os
import site
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.machinery import ModuleSpec
from importlib.metadata import packages_distributions, version
from pathlib import Path
from typing import Any

from lra.benchmarks.errors import UsageError
from lra.benchmarks.files import sha256, write_text
from lra.benchmarks.setup.places import cache_root, local
from lra.networks.foreign import runs_user_code
from lra.strategies.extensions import AVALANCHE, replay_plugins
from lra.strategies.retention import REPLAYS

Tree = Mapping[str, Any]

LIMIT = 10_000
"""Most modules that are followed from one."""


@dataclass(frozen=True)
class Found:
    """A module that was found.

    Attributes:
        name: dotted.
        spec: as Python finds it.
        root: the folder that its first name is in.
        installed: whether it comes with Python or a package, and can be imported from anywhere.
    """

    name: str
    spec: ModuleSpec
    root: Path
    installed: bool

    @property
    def file(self) -> Path | None:
        """Its source, or compiled form; a package without ``__init__.py`` has none."""
        return Path(self.spec.origin) if self.spec.origin and self.spec.has_location else None


def modules_in(tree: Tree) -> dict[str, str]:
    """The modules that a configuration, or a layer of one in full, names, by option.

    Raises:
        UsageError: for a file or a URL in place of a module.
    """
    named = {}
    for section in ("teacher", "student"):
        name = _text(tree, section, "network")
        if name and runs_user_code(name):
            named[f"{section}.network"] = _module(f"{section}.network", name, name.rpartition(":")[0])
    replay, used = _text(tree, "replay", "name"), (tree.get("plugin") or {}).get("use")
    plugins = {"replay.name": replay} if replay and replay not in REPLAYS else {}
    if isinstance(used, list):
        plugins |= {f"plugin.use[{i}]": spec for i, spec in enumerate(used) if isinstance(spec, str)}
    for option, spec in plugins.items():
        name = spec.removeprefix(AVALANCHE)
        if name == spec and name in replay_plugins():
            name = replay_plugins()[name].value
        if ":" in name:
            named[option] = _module(option, spec, name.rpartition(":")[0])
    return {option: module for option, module in named.items() if module.partition(".")[0] != "lra"}


def identities(tree: Tree) -> dict[str, str]:
    """What identifies the code that a configuration names: hashes of all its modules, and versions of packages."""
    return {name: digest for module in modules_in(tree).values() for name, digest in identity(module).items()}


@cache
def identity(module: str) -> dict[str, str]:
    """Hash of each module that ``module`` consists of, by name; the version of an installed package.

    It is read once, as a module is loaded once; see `refuse_edited`. Empty if there is no such module.
    """
    return _identity(module)


def code_of(network: str) -> dict[str, str]:
    """The `identities` of the code that builds ``network``; empty unless it is a ``module:function``."""
    return identities({"teacher": {"network": network}})


def refuse_changed(network: str, before: Mapping[str, str], weights: Path) -> None:
    """Raise `UsageError` if the code of ``network`` is not as it was ``before``, when the ``weights`` were trained."""
    now = code_of(network)
    if now and (edited := changed(before, now)) is not None:
        raise UsageError(
            f"{weights.name} has weights that were trained with other code of {network} than there is now (module "
            f"{edited!r:.200} changed): restore it or train again; if the network is the same, save the weights "
            "alone, safetensors.torch.save_file(safetensors.torch.load_file(FILE), NEW), and set teacher.mean and "
            "teacher.std"
        )


def refuse_edited(tree: Tree) -> None:
    """Raise `UsageError` if the code was edited after it was read, so that either version may have been loaded."""
    for module in modules_in(tree).values():
        if (edited := changed(identity(module), _identity(module))) is not None:
            raise UsageError(f"module {edited} was edited while this started: start it again")


def changed(before: Mapping[str, str], now: Mapping[str, str]) -> str | None:
    """A module that differs between two identities, if there is one."""
    names = [*before, *(name for name in now if name not in before)]
    return next((name for name in names if before.get(name) != now.get(name)), None)


def importable(
    modules: Mapping[str, str], code: Mapping[str, str], typed: Iterable[str] = (), trusted: Iterable[str] = ()
) -> dict[str, str]:
    """Make modules importable; return the folders of those that are not installed, by first name.

    What Python finds by itself is left alone. Other modules are looked for where ``code`` says and in the working
    directory; the folder of each is appended to Python's path, so that nothing installed is shadowed.

    Args:
        modules: by option, see `modules_in`.
        code: folders by first names of modules, as far as known.
        typed: first names that the user has typed: these are looked for in the working directory first.
        trusted: first names whose folder the user has typed; other folders must have been used before, because a
            configuration may come from a stranger.

    Raises:
        UsageError: for a folder that was not used before, or a module that was loaded from another folder.
    """
    importlib.invalidate_caches()
    here, folders = str(Path.cwd()), {}
    for option, module in modules.items():
        top = module.partition(".")[0]
        found = find(module)
        stored = [code[top]] if top in code else []
        if found is None:
            for folder in [here, *stored] if top in typed and top not in trusted else [*stored, here]:
                if _spec(top, [folder]) is None:
                    continue
                if folder != here and top not in trusted and not known(folder):
                    raise UsageError(
                        f"{option} names {module}, code in {folder} that you have not run yet: if you trust it, give "
                        f"--set code.{top}={folder} to run, or put that folder into PYTHONPATH"
                    )
                if folder == here and top not in {*typed, *trusted} and not known(here):
                    print(f"lra-bench: {option} is code from the working directory, {here}", file=sys.stderr)
                sys.path.append(folder)
                found = find(module)
                break
        if found is not None and not found.installed:
            _refuse_other(top, found)
            folders[top] = str(found.root)
    return folders


def find(module: str) -> Found | None:
    """A module as Python would find it, without importing it or the packages it is in."""
    names = module.split(".")
    spec = _spec(names[0])
    if spec is None:
        return None
    if spec.origin in ("built-in", "frozen"):
        return Found(module, spec, Path(sys.prefix), installed=True)
    locations = [*(spec.submodule_search_locations or ())]
    root = (Path(locations[0]) if locations else Path(str(spec.origin))).absolute().parent
    for depth in range(2, len(names) + 1):
        spec = _spec(".".join(names[:depth]), [*(spec.submodule_search_locations or ())])
        if spec is None:
            return None
    return Found(module, spec, root, _installed(root))


def known(folder: str) -> bool:
    """Whether this user has run code from this folder before."""
    return _note(folder).is_file()


def remember(folders: Iterable[str]) -> None:
    """Note in the user's cache that this user runs code from these folders."""
    for folder in folders:
        if not known(folder):
            write_text(_note(folder), f"{folder}\n")


def _note(folder: str) -> Path:
    return cache_root() / "code" / f"{hashlib.sha256(folder.encode()).hexdigest()[:16]}.txt"


def _identity(module: str) -> dict[str, str]:
    found = find(module)
    if found is None:
        return {}
    if found.installed:
        top = module.partition(".")[0]
        packages = sorted(set(packages_distributions().get(top, ())))
        if packages:
            return {package: version(package) for package in packages}
        return {module: sha256(found.file)} if found.file else {}
    return {name: sha256(file) for name, file in sorted(_sources(found))}


def _sources(start: Found) -> Iterator[tuple[str, Path]]:
    """A module, the packages it is in, and all that these import from the same folder, as names and files."""
    waiting, seen = [*_with_packages(start.name)], set[str]()
    while waiting and len(seen) < LIMIT:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        found = find(name)
        if found is None or found.installed or found.root != start.root or found.file is None:
            continue
        yield name, found.file
        if found.file.suffix == ".py":
            is_package = found.spec.submodule_search_locations is not None
            waiting += _imports(found.file, name if is_package else name.rpartition(".")[0])


def _imports(file: Path, package: str) -> Iterator[str]:
    """The modules that a file may import, with other names among them."""
    try:
        nodes = list(ast.walk(ast.parse(file.read_bytes())))
    except (SyntaxError, ValueError, RecursionError):  # importing it will say so
        return
    for node in nodes:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from _with_packages(alias.name)
        elif isinstance(node, ast.ImportFrom):
            parts = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join(filter(None, [*parts, node.module]))
            yield from _with_packages(base)
            yield from (".".join(filter(None, [base, alias.name])) for alias in node.names)


def _with_packages(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[:depth]) for depth in range(1, len(parts) + 1) if all(parts[:depth])]


def _spec(name: str, path: Sequence[str] | None = None) -> ModuleSpec | None:
    """Where Python's own search finds a module, even if it is loaded already."""
    for finder in sys.meta_path:
        spec = finder.find_spec(name, path) if hasattr(finder, "find_spec") else None
        if spec is not None:
            return spec
    return None


@cache
def _installations() -> list[Path]:
    paths = sysconfig.get_paths()
    places = [paths[key] for key in ("stdlib", "platstdlib", "purelib", "platlib")]
    return [Path(place).resolve() for place in (*places, *site.getsitepackages(), site.getusersitepackages())]


def _installed(root: Path) -> bool:
    root = root.resolve()
    return any(root.is_relative_to(place) for place in _installations()) or "site-packages" in root.parts


def _refuse_other(top: str, found: Found) -> None:
    """Raise `UsageError` if ``top`` was loaded from another folder: Python keeps one module per name."""
    loaded = getattr(getattr(sys.modules.get(top), "__spec__", None), "origin", None)
    if loaded and found.root.resolve() not in Path(loaded).resolve().parents:
        other = Path(loaded).parent
        raise UsageError(f"module {top} in {found.root} cannot be used beside that in {other}: rename one")


def _module(option: str, spec: str, module: str) -> str:
    if all(part.isidentifier() for part in module.split(".")) and not module.endswith(".py"):
        return module
    local(spec, option)
    file = Path(module)
    name = spec.rpartition(":")[2]
    where = f", and call lra-bench from {file.parent}" if os.sep in module else ""
    raise UsageError(f"{option} {spec!r}: {module!r} is not a module: write {file.stem}:{name}{where}")


def _text(tree: Tree, section: str, key: str) -> str | None:
    options = tree.get(section)
    value = options.get(key) if isinstance(options, Mapping) else None
    return value if isinstance(value, str) else None
