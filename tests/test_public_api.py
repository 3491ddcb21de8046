"""What is public: it is there, typed and documented, on one page, and enough for all that we show."""

import ast
import importlib
import inspect
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import lra
import lra.benchmarks
import lra.strategies

ROOT = Path(__file__).parents[1]
PACKAGES = {"lra": lra, "lra.strategies": lra.strategies, "lra.benchmarks": lra.benchmarks}
FILES = {"lra": ROOT / "lra", "lra.strategies": ROOT / "strategies", "lra.benchmarks": ROOT / "benchmarks"}
OFFERED = [(package, name) for package, found in PACKAGES.items() for name in found.PUBLIC]
PAGE = (ROOT / "docs" / "api.md").read_text()
WHOLE = ("lra.distances", "lra.networks", "lra.options", "lra.synthesis.terms")
"""Modules of which everything is public."""
EXAMPLES = [file for form in ("*.py", "*.ipynb") for file in sorted((ROOT / "examples").rglob(form))]
SHOWN = [*EXAMPLES, *sorted((ROOT / "docs").rglob("*.md")), ROOT / "README.md"]


@pytest.mark.parametrize(("package", "name"), OFFERED)
def test_what_is_offered_is_there_and_says_what_it_is(package: str, name: str) -> None:
    module = PACKAGES[package].PUBLIC[name]
    assert getattr(PACKAGES[package], name) is getattr(importlib.import_module(module), name)
    assert module.startswith(f"{package}.")
    assert name in dir(PACKAGES[package])
    tree = ast.parse(inspect.getsource(importlib.import_module(module)))
    after = [*tree.body[1:], None]
    for node, below in zip(tree.body, after, strict=True):
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == name:
            assert ast.get_docstring(node)
            return
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if any(isinstance(target, ast.Name) and target.id == name for target in targets):
            assert isinstance(below, ast.Expr), "a string beneath says what it is"
            return
    raise AssertionError(f"{module} imports {name} from elsewhere: name the module that it is defined in")


@pytest.mark.parametrize("package", PACKAGES)
def test_those_who_check_types_see_the_same_names(package: str) -> None:
    tree = ast.parse((FILES[package] / "__init__.py").read_text())
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    imported = {
        name.name: node.module for node in block.body if isinstance(node, ast.ImportFrom) for name in node.names
    }
    assert imported == PACKAGES[package].PUBLIC


def test_what_is_not_offered_is_refused_as_by_any_module() -> None:
    with pytest.raises(AttributeError, match=r"module 'lra\.strategies' has no attribute 'LRAA'"):
        _ = lra.strategies.LRAA  # type: ignore[attr-defined]
    with pytest.raises(ImportError, match="cannot import name 'Nothing'"):
        exec("from lra.benchmarks import Nothing")


def test_nothing_is_imported_before_it_is_asked_for() -> None:
    code = (
        "import sys, lra, lra.strategies, lra.benchmarks\n"
        "dir(lra), dir(lra.strategies), dir(lra.benchmarks)\n"
        "assert not {'torch', 'avalanche', 'numpy', 'pydantic'} & set(sys.modules)\n"
        "lra.Batch\n"
        "assert 'torch' in sys.modules and 'avalanche' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_page_names_what_is_public_as_a_whole() -> None:
    assert "<!-- insert public -->" in PAGE
    listed = PAGE.partition("Public too are")[2].partition("\n\n- ")[2].partition(",\n- ")[0]
    assert tuple(re.findall(r"`(lra\.[\w.]+)`", listed)) == WHOLE


def programs(file: Path) -> list[str]:
    """What a file has in Python: all of it, the cells of a notebook, the blocks of a page."""
    text = file.read_text()
    if file.suffix == ".ipynb":
        cells = ["".join(cell["source"]) for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"]
        return [re.sub(r"^[%!].*$", "", cell, flags=re.MULTILINE) for cell in cells]
    return [text] if file.suffix == ".py" else re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def imports() -> Iterator[tuple[str, str, str]]:
    """File, module and name of every import from this package in examples, documentation and README."""
    for file in SHOWN:
        for text in programs(file):
            for node in ast.walk(ast.parse(text)):
                if isinstance(node, ast.ImportFrom) and str(node.module).split(".")[0] == "lra":
                    yield from ((file.name, str(node.module), name.name) for name in node.names)


def test_what_we_show_needs_nothing_that_is_not_public() -> None:
    found = list(imports())
    assert len(found) > 30
    private = [
        f"{file}: from {module} import {name}"
        for file, module, name in found
        if module not in WHOLE and name not in (*getattr(PACKAGES.get(module), "PUBLIC", ()), "__version__")
    ]
    assert not private, "\n".join(private)
