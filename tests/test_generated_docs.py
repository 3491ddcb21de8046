"""The pages that are made from the code: all is in them, and none needs the network."""

import importlib
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

import lra.benchmarks
import lra.strategies
from lra import __version__
from lra.benchmarks.setup.schema import meaning
from lra.meta.options import LRAOptions
from lra.options import Options
from lra.strategies.methods import METHODS
from lra.strategies.retention import REPLAYS

ROOT = Path(__file__).parents[1]


@pytest.fixture
def generate(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    """Import a module of the generated pages."""
    pytest.importorskip("latex2mathml", reason="the extra docs is not installed")
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    return lambda name: importlib.import_module(f"generate.{name}")


GROUPS: dict[str, type[Options]] = {
    **{name: method.Options for name, method in METHODS.items()},
    **{f"replay {name}": replay for name, replay in REPLAYS.items()},
    "meta": LRAOptions,
}


@pytest.mark.parametrize("name", GROUPS)
def test_every_option_is_in_a_table_with_its_meaning(name: str, generate: Callable[[str], ModuleType]) -> None:
    tables = generate("tables")
    group = GROUPS[name]
    simple = [field for field, info in group.model_fields.items() if not isinstance(info.default, Options)]
    lacking = [field for field in simple if not meaning(group, field)]
    assert not lacking, f"give {', '.join(lacking)} a docstring"
    text, short = tables.options_tables(group, "x."), tables.options_table(group, "x.")
    assert set(short.splitlines()) <= set(text.splitlines())
    for field in group.model_fields:
        assert re.search(rf"^\| `x\.{field}[`.]", text, re.MULTILINE), field


def test_values_and_defaults_are_the_options_own(generate: Callable[[str], ModuleType]) -> None:
    text = generate("tables").options_tables(METHODS["dfq"].Options, "synthesis.")
    assert "| `synthesis.balance` | number ≥ 0 | `20.0` |" in text
    assert "| `synthesis.bn_gap` | `l2`, `mse`, `kl` | `l2` |" in text
    assert "| `synthesis.latent` | integer ≥ 1 or `null` | `null` |" in text


def test_a_methods_page_has_all_its_parts(generate: Callable[[str], ModuleType]) -> None:
    pages = dict(generate("pages").method_pages())
    assert set(pages) == {"methods/index.md", *(f"methods/{name}.md" for name in METHODS)}
    page = pages["methods/dfq.md"]
    for part in ("R_bn = Σ", "weight_decay: 0.0001", "cifar10 | resnet34 | resnet18 | 94.61", "dfq/cifar10"):
        assert part in page, part
    boxes = [line for page in pages.values() for line in page.splitlines() if line.startswith("    ")]
    assert boxes
    assert not [line for line in boxes if "``" in line], "a box is shown as it is, marks of code and all"


def test_rows_of_results_are_found_by_method(
    generate: Callable[[str], ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = generate("pages")
    (tmp_path / "digits.md").write_text(
        "# Digits\n\n| method | accuracy |\n|---|--:|\n| dfq, memory | 97 |\n| `cmi` | 96 |\n| dfq | 95 |\n"
    )
    monkeypatch.setattr(results, "RESULTS", tmp_path)
    results.about.cache_clear()
    expected = "| method | accuracy |\n|---|--:|\n| dfq, memory | 97 |\n| dfq | 95 |\n"
    assert results.about("dfq") == [("results/digits.md", "Digits", expected)]
    assert results.about("fast") == []
    results.about.cache_clear()


def test_every_page_says_the_version_that_it_is_of(generate: Callable[[str], ModuleType]) -> None:
    load_config = pytest.importorskip("mkdocs.config", reason="the extra docs is not installed").load_config
    generate("tables")
    hooks = importlib.import_module("hooks")
    config = hooks.on_config(load_config(str(ROOT / "mkdocs.yml"), hooks=[]))
    assert config.site_name == f"lra {__version__}"
    sys.modules.pop("hooks")


def test_the_page_of_the_public_api_has_each_name_with_what_it_is(generate: Callable[[str], ModuleType]) -> None:
    text = generate("inserts").filled((ROOT / "docs" / "api.md").read_text())
    rows = dict(re.findall(r"^\| \[`(\w+)`\]\(\S+\) \| (.*) \|$", text, re.MULTILINE))
    assert set(rows) == {*lra.PUBLIC, *lra.strategies.PUBLIC, *lra.benchmarks.PUBLIC}
    assert all(rows.values()), "each with the first line of its docstring"


def test_formulas_need_no_script(generate: Callable[[str], ModuleType]) -> None:
    drawn = generate("inserts").formula("a^2\n\\theta'", "math", "math", {}, None)
    assert drawn.count("<math") == 2
    assert "script" not in drawn


@pytest.mark.parametrize(
    ("page", "foreign"),
    [
        ('<script src="https://cdn.example/x.js"></script>', True),
        ('<link rel="stylesheet" href="https://fonts.example/css">', True),
        ('<img alt="a" src="http://example/x.png">', True),
        ('<a href="https://example.org">text</a>', False),
        ('<img alt="a" src="digits.svg"><script src="assets/a.js"></script>', False),
    ],
)
def test_a_page_that_needs_the_network_is_noticed(
    page: str, foreign: bool, generate: Callable[[str], ModuleType]
) -> None:
    pytest.importorskip("mkdocs", reason="the extra docs is not installed")
    generate("tables")
    hooks = importlib.import_module("hooks")
    assert bool(hooks.LOADED.search(page)) == foreign
    sys.modules.pop("hooks")


def test_the_repository_is_linked_where_it_is_public(
    generate: Callable[[str], ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("mkdocs", reason="the extra docs is not installed")
    pages = generate("pages")
    hooks = importlib.import_module("hooks")
    monkeypatch.setattr(pages, "ROOT", tmp_path)
    (tmp_path / "pyproject.toml").write_text("[project]\nname = 'x'\n")
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    assert hooks._repository() == (None, None)
    subprocess.run(["git", "-C", tmp_path, "remote", "add", "origin", "git@example.org:some/one.git"], check=True)
    assert hooks._repository() == ("https://example.org/some/one", "some/one")
    (tmp_path / "pyproject.toml").write_text("[project.urls]\nRepository = 'https://example.org/a/b'\n")
    assert hooks._repository() == ("https://example.org/a/b", "a/b")
    sys.modules.pop("hooks")
