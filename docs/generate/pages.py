"""Pages made from the code: one for every method, one for every table of results, and the reference."""

import ast
import inspect
import re
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path
from posixpath import relpath
from typing import Any

import yaml

from generate.tables import code, options_tables, table
from lra.benchmarks.leaderboard.board import FOLDER, Row, read
from lra.benchmarks.setup.presets import chosen_of, presets
from lra.benchmarks.text import number_text
from lra.strategies.method import Method
from lra.strategies.methods import METHODS

ROOT = Path(__file__).parents[2]
DATA = files("lra.benchmarks")


def method_pages() -> Iterator[tuple[str, str]]:
    """Address and Markdown of the overview and of every method's page."""
    yield "methods/index.md", _overview()
    for name, method in METHODS.items():
        yield f"methods/{name}.md", method_page(method)


def method_page(method: type[Method]) -> str:
    """The page of one method."""
    module = sys.modules[method.__module__]
    summary, _, rest = (inspect.getdoc(module) or "").partition("\n\n")
    parts = [
        f"# {method.name}",
        f"**{' '.join(summary.split())}**",
        f"```console\nlra-bench run --method {method.name}\n```",
        f"## Algorithm\n\n{_without_marks_in_boxes(rest)}",
        f"## Options of synthesis\n\n{options_tables(method.Options, 'synthesis.')}",
        _settings(method),
        _published(method.name),
        _measured(method.name),
        f"## In the code\n\n[`{module.__name__}`](../{module_address(module.__name__)})",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _without_marks_in_boxes(text: str) -> str:
    """``text`` whose indented blocks, which are shown as they are, have no marks of code."""
    return "\n".join(line.replace("``", "") if line.startswith("    ") else line for line in text.split("\n"))


def _overview() -> str:
    rows = [
        [
            f"[{name}]({name}.md)",
            method.paper,
            (inspect.getdoc(method) or "").split("\n")[0],
            code(method.memory),
            code(method.retention),
        ]
        for name, method in METHODS.items()
    ]
    head = ("method", "paper", "what makes the samples", "replay of its paper", "default replay")
    return (
        "# Methods\n\nA method says how samples are made. What the student keeps of them is "
        "[an independent choice](../concepts/retention.md): every method runs with every replay, with and without the "
        "LRA step. A run that names no replay has the one in the last column; that of the method's own paper has the "
        f"name `paper`.\n\n{table(head, rows)}"
    )


def _settings(method: type[Method]) -> str:
    """Everything outside of synthesis that comes with the name: defaults, scales, presets."""
    text = "## Settings\n\n"
    if method.defaults:
        text += f"Outside of synthesis, as published or as stated above:\n\n{_yaml(method.defaults)}\n"
    before = None  # Scales of a kind share what they have for a method.
    for data, scale in yaml.safe_load((DATA / "presets.yaml").read_text())["scales"].items():
        own = scale.get("methods", {}).get(method.name)
        if own and own != before:
            text += f"At the scale `{data}`, over the above and the scale's settings for all methods (ours):\n\n"
            text += f"{_yaml(own)}\n"
        before = own
    named = [
        [code(name), _retention(preset), preset["source"], ", ".join(map(code, chosen_of(name))) or "—"]
        for name, preset in presets().items()
        if preset["method"] == method.name
    ]
    if named:
        text += f"Presets:\n\n{table(('preset', 'retention', 'source of its numbers', 'chosen by us'), named)}"
    return text


def _retention(preset: Mapping[str, Any]) -> str:
    replay = preset.get("replay") or METHODS[preset["method"]].memory
    name = replay["name"] if isinstance(replay, Mapping) else replay
    return code(f"--replay {name}" + (" --meta" if preset.get("meta") else ""))


def _published(name: str) -> str:
    entries = yaml.safe_load((DATA / "published.yaml").read_text())
    names = {name} | {preset.split("/")[0] for preset, settings in presets().items() if settings["method"] == name}
    mine = [e for e in entries if str(e["method"]).partition("+")[0] in names]
    rows = [
        [e["method"], e["dataset"], e["teacher"], e["student"], f"{e['value']:g}", *_evolution(e), e["source"]]
        for e in mine
    ]
    if not rows:
        return "## Published results\n\nOur list of published results has none of this method."
    head = ("name", "data set", "teacher", "student", "accuracy (%)", "μ (%)", "σ²", "source")
    text = "The best test accuracy over epochs, as others published it; none is reproduced here."
    return f"## Published results\n\n{text}\n\n{table(head, rows)}"


def _evolution(entry: Mapping[str, Any]) -> list[str]:
    return [f"{entry[key]:g}" if key in entry else "—" for key in ("mean", "variance")]


def _measured(name: str) -> str:
    found = [f"From [{title}](../{address}):\n\n{rows}" for address, title, rows in about(name)]
    return "## Our results\n\n" + ("\n\n".join(found) or "No page of results has this method yet.")


def _yaml(tree: Mapping[str, Any]) -> str:
    return f"```yaml\n{yaml.safe_dump(dict(tree), sort_keys=False, default_flow_style=None)}```\n"


RESULTS = ROOT / "benchmarks" / "results"


def result_pages() -> Iterator[tuple[str, str]]:
    """Address and Markdown of a list, and of every file of results as it is."""
    files = {file.name: file.read_text() for file in sorted(RESULTS.glob("*.md"))}
    listed = "".join(f"- [{_title(text, name)}]({name})\n" for name, text in files.items())
    board = "[The leaderboard](leaderboard.md) lists the results of sweeps row by row."
    yield "results/index.md", f"# Results\n\nEach page names the commands that repeat it. {board}\n\n{listed}"
    for name, text in files.items():
        yield f"results/{name}", text


def leaderboard_page() -> tuple[str, str]:
    """Address and Markdown of the leaderboard: a table for each file, the highest mean first."""
    text = (
        "# Leaderboard\n\nResults row by row, as they were measured. `lra-bench reproduce ROW` measures a row again; "
        "[how to](../how-to/leaderboard.md) read its verdict and add rows is described separately. Each table is one "
        "sweep, ordered by the mean. Where intervals overlap, the order says nothing, and tables with different "
        "settings cannot be compared.\n"
    )
    for file in sorted(FOLDER.glob("*.csv")):
        rows = sorted(read(file).items(), key=lambda item: -item[1].mean)
        columns: dict[str, Callable[[Row], str]] = {
            "data, networks, budget": lambda row: row.setting,
            "measured": lambda row: row.measured.heading,
            "mean": lambda row: row.interval,
            "seeds": lambda row: str(len(row.seeds)),
            "seconds": lambda row: number_text(row.seconds, 1),
            "from": lambda row: f"{row.source}, {row.version}",
            "hash": lambda row: code(row.hash),
        }
        cells = [[code(name), *(written(row) for written in columns.values())] for name, row in rows]
        text += f"\n## {file.stem}\n\n{table(('row', *columns), cells)}"
    return "results/leaderboard.md", text


@cache
def about(method: str) -> list[tuple[str, str, str]]:
    """Address, title and table of the rows that name a method in their first cell, file by file."""
    found = []
    for address, text in result_pages():
        head: list[str] = []
        kept: list[str] = []
        for line in text.splitlines():
            if not line.startswith("|"):
                head = []
            elif len(head) < 2:
                head.append(line)
            elif re.split(r"[^\w-]", line.strip("|` ").lower())[0] == method:
                kept += ([] if head[0] in kept else ["", *head]) + [line]
        if kept:
            found.append((address, _title(text, address), "\n".join(kept).strip() + "\n"))
    return found


def _title(text: str, otherwise: str) -> str:
    return next((line[2:] for line in text.splitlines() if line.startswith("# ")), otherwise)


TREE = ROOT / "build" / "reference"
"""The package as it is once installed: ``strategies/`` and ``benchmarks/`` inside of ``lra/``."""

FOLDERS = {"lra": "lra", "strategies": "lra.strategies", "benchmarks": "lra.benchmarks"}
"""Folders of the sources, with the packages that they are."""

PRIVATE = ("lra.benchmarks.cli", "lra.benchmarks.commands", "lra.benchmarks.cost", "lra.benchmarks.robustness")
"""What is used through the command line."""


def lay_out() -> None:
    """Copy the sources to where a reader that cannot follow an editable installation finds them."""
    shutil.rmtree(TREE, ignore_errors=True)
    for folder, package in FOLDERS.items():
        shutil.copytree(ROOT / folder, TREE / package.replace(".", "/"), ignore=shutil.ignore_patterns("__pycache__"))


def reference_pages() -> Iterator[tuple[str, str]]:
    """Address and Markdown of the overview, of every package's page, and of every module's."""
    listed = ""
    for name, file in modules().items():
        title = (ast.get_docstring(ast.parse(file.read_text())) or "").partition("\n\n")[0].replace("\n", " ")
        if file.stem == "__init__":
            listed += f"\n## `{name}`\n\n{title}\n\n"
        else:
            listed += f"- [`{name}`]({relpath(module_address(name), 'reference')}): {title}\n"
        yield module_address(name), f"# {name.rpartition('.')[2]}\n\n::: {name}\n"
    yield "reference/index.md", f"# Reference\n\nEvery module, documented by its docstrings.\n{listed}"


def modules() -> dict[str, Path]:
    """Every module that the reference shows, a package before what is in it, with its file."""
    found: dict[str, Path] = {}
    for folder, package in FOLDERS.items():
        for file in sorted(
            (ROOT / folder).rglob("*.py"), key=lambda file: (file.parent, file.stem != "__init__", file)
        ):
            parts = [package, *file.relative_to(ROOT / folder).parent.parts]
            name = ".".join(parts if file.stem == "__init__" else [*parts, file.stem])
            if not name.startswith(PRIVATE):
                found[name] = file
    return found


def module_address(name: str) -> str:
    """Where the reference shows a module."""
    package = modules()[name].stem == "__init__"
    return f"reference/{name.replace('.', '/')}" + ("/index.md" if package else ".md")


def first_line(file: Path, name: str) -> str:
    """What a module says first of a class, a function or a value in it; nothing if it says nothing."""
    body = ast.parse(file.read_text()).body
    for one, below in zip(body, [*body[1:], None], strict=True):
        said = None
        if isinstance(one, ast.ClassDef | ast.FunctionDef) and one.name == name:
            said = ast.get_docstring(one)
        elif isinstance(one, ast.Assign | ast.AnnAssign) and isinstance(below, ast.Expr):
            targets = one.targets if isinstance(one, ast.Assign) else [one.target]
            if any(isinstance(target, ast.Name) and target.id == name for target in targets):
                said = inspect.cleandoc(ast.literal_eval(below.value))
        if said:
            return said.partition("\n\n")[0].replace("\n", " ").replace("``", "`")
    return ""


@cache
def addresses() -> dict[str, str]:
    """Files and folders of the repository that a page is made of, with its address."""
    found = {file.relative_to(ROOT).as_posix(): module_address(name) for name, file in modules().items()}
    found |= {path.removesuffix("/__init__.py"): page for path, page in found.items() if path.endswith("/__init__.py")}
    for name, method in METHODS.items():
        found[f"strategies/methods/{method.__module__.rpartition('.')[2]}.py"] = f"methods/{name}.md"
    found |= {f"benchmarks/results/{file.name}": f"results/{file.name}" for file in RESULTS.glob("*.md")}
    folders = {"strategies/methods": "methods/index.md", "benchmarks/results": "results/index.md"}
    folders["benchmarks/leaderboard"] = "results/leaderboard.md"
    return found | folders
