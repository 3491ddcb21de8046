"""Imports go down only: benchmarks -> strategies -> lra, and each layer meets its own libraries only."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LAYERS = {"lra": "lra", "strategies": "lra.strategies", "benchmarks": "lra.benchmarks"}
FORBIDDEN = {
    "lra": ("avalanche", "click", "lra.strategies", "lra.benchmarks"),
    "strategies": ("click", "lra.benchmarks"),
    "benchmarks": ("avalanche",),
}


def modules() -> dict[str, Path]:
    """Every module of the package, by its import name."""
    found = {}
    for folder, package in LAYERS.items():
        for file in (ROOT / folder).rglob("*.py"):
            parts = file.relative_to(ROOT / folder).with_suffix("").parts
            found[".".join([package, *(part for part in parts if part != "__init__")])] = file
    return found


MODULES = modules()


def layer_of(module: str) -> str:
    return next((folder for folder, package in list(LAYERS.items())[1:] if module.startswith(package)), "lra")


def imports(file: Path, everywhere: bool = True) -> Iterator[tuple[int, str]]:
    """(relative level, module) of each import in a file; without ``everywhere`` only of those that run at import."""
    tree = ast.parse(file.read_text())
    nodes = list(ast.walk(tree)) if everywhere else _at_import(tree)
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from ((0, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.level, node.module or ""
            # from lra.strategies import extensions: a module too.
            yield from ((node.level, f"{node.module}.{alias.name}") for alias in node.names)


def _at_import(tree: ast.Module) -> list[ast.AST]:
    nodes: list[ast.AST] = []
    pending: list[ast.AST] = [tree]
    while pending:
        node = pending.pop()
        nodes.append(node)
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            pending.extend(ast.iter_child_nodes(node))
    return nodes


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_down_only(module: str) -> None:
    for level, name in imports(MODULES[module]):
        assert level == 0, f"{module} imports relatively"
        assert name.split(".")[0] not in ("strategies", "benchmarks", "tests"), f"{module} imports {name}"
        for banned in FORBIDDEN[layer_of(module)]:
            assert not (name + ".").startswith(banned + "."), f"{module} imports {name}"


def test_no_module_imports_itself_in_a_circle() -> None:
    graph = {
        module: {name for _, name in imports(file, everywhere=False) if name in MODULES and name != module}
        for module, file in MODULES.items()
    }
    done: set[str] = set()

    def visit(module: str, path: list[str]) -> None:
        assert module not in path, " -> ".join([*path, module])
        if module not in done:
            for below in graph[module]:
                visit(below, [*path, module])
            done.add(module)

    for module in graph:
        visit(module, [])


def test_no_folder_of_the_core_imports_another_that_imports_it() -> None:
    folders = {module.split(".")[1] for module, file in MODULES.items() if file.parent.parent == ROOT / "lra"}
    above = {
        folder: {
            name.split(".")[1]
            for module, file in MODULES.items()
            if module.startswith(f"lra.{folder}.")
            for _, name in imports(file)
            if name.startswith("lra.") and name.split(".")[1] in folders - {folder}
        }
        for folder in folders
    }
    while free := {folder for folder, below in above.items() if not below}:
        above = {folder: below - free for folder, below in above.items() if folder not in free}
    assert not above, "folders that import each other in a circle"


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["--version"]])
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    program = (
        "import sys\n"
        f"sys.argv = ['lra-bench', *{arguments}]\n"
        "from lra.benchmarks.cli import main\n"
        "try:\n    main()\nexcept SystemExit as left:\n    assert not left.code\n"
        "heavy = {'torch', 'avalanche', 'numpy', 'pydantic', 'yaml', 'sklearn'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout
