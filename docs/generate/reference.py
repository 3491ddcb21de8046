"""The reference: one page per package, of all that its modules say of themselves."""

import shutil
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
TREE = ROOT / "build" / "reference"
"""The package as it is once installed: ``strategies/`` and ``benchmarks/`` inside of ``lra/``."""

FOLDERS = {"lra": "lra", "strategies": "lra.strategies", "benchmarks": "lra.benchmarks"}
"""Of the sources, with the packages that they are."""

PRIVATE = ("lra.benchmarks.cli", "lra.benchmarks.commands", "lra.benchmarks.cost", "lra.benchmarks.robustness")
"""What is used through the command line."""


def lay_out() -> None:
    """Copy the sources to where a reader that cannot follow an editable installation finds them."""
    shutil.rmtree(TREE, ignore_errors=True)
    for folder, package in FOLDERS.items():
        shutil.copytree(ROOT / folder, TREE / package.replace(".", "/"), ignore=shutil.ignore_patterns("__pycache__"))


def pages() -> Iterator[tuple[str, str]]:
    """Address and Markdown of the overview and of every package's page."""
    packages = dict(sorted(_packages().items()))
    listed = "".join(f"- [`{name}`]({name}.md)\n" for name in packages)
    yield "reference/index.md", f"# Reference\n\nFrom the docstrings, package by package.\n\n{listed}"
    for name, modules in packages.items():
        yield f"reference/{name}.md", f"# {name}\n\n" + "".join(f"::: {module}\n\n" for module in modules)


def _packages() -> dict[str, list[str]]:
    """Modules by package, in alphabetical order."""
    found: dict[str, list[str]] = {}
    for folder, package in FOLDERS.items():
        for file in sorted((ROOT / folder).rglob("*.py")):
            parts = [package, *file.relative_to(ROOT / folder).parent.parts]
            name = ".".join(parts if file.stem == "__init__" else [*parts, file.stem])
            if not name.startswith(PRIVATE):
                found.setdefault(".".join(parts), []).append(name)
    return found
