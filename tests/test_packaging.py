"""What ships: the wheel, with all of lra/, strategies/ and benchmarks/ and nothing else, and what it says of itself."""

import os
import re
import runpy
import shutil
import subprocess
import sys
import tomllib
import zipfile
from datetime import date
from email import message_from_bytes
from email.message import Message
from pathlib import Path

import jsonschema
import pytest
import yaml

ROOT = Path(__file__).parents[1]
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text())
FOLDERS = {"lra": "lra", "strategies": "lra/strategies", "benchmarks": "lra/benchmarks"}
NOT_SHIPPED = {"__pycache__", "results", "studies"}
"""Folders inside the three that are no part of the package: what was found, and the grids that were run for it."""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """A wheel built from a copy of the tree, so that no stale build folder can help."""
    copy = tmp_path_factory.mktemp("source")
    for name in FOLDERS:
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    pip = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation"]
    done = subprocess.run([*pip, "-w", copy / "out", copy], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (file,) = (copy / "out").glob("*.whl")
    return zipfile.ZipFile(file)


@pytest.fixture(scope="module")
def wheel(built: zipfile.ZipFile) -> list[str]:
    """Names in the wheel."""
    return built.namelist()


@pytest.fixture(scope="module")
def metadata(built: zipfile.ZipFile) -> Message:
    """What an index says of the wheel."""
    (name,) = (name for name in built.namelist() if name.endswith(".dist-info/METADATA"))
    return message_from_bytes(built.read(name))


def shipped() -> set[str]:
    names = set()
    for folder, package in FOLDERS.items():
        for file in (ROOT / folder).rglob("*"):
            inside = file.relative_to(ROOT / folder)
            if file.is_file() and (file.suffix == ".py" or not NOT_SHIPPED & set(inside.parts)):
                names.add(f"{package}/{inside.as_posix()}")
    return names


def test_the_wheel_holds_every_file_of_the_tree(wheel: list[str]) -> None:
    assert {name for name in wheel if name.startswith("lra/")} == shipped()
    assert "lra/benchmarks/presets.yaml" in wheel
    assert "lra/py.typed" in wheel


def test_the_wheel_puts_one_name_into_site_packages(wheel: list[str]) -> None:
    assert {name.split("/")[0] for name in wheel if ".dist-info/" not in name} == {"lra"}


def test_the_wheel_offers_the_command(wheel: list[str]) -> None:
    assert any(name.endswith(".dist-info/entry_points.txt") for name in wheel)
    assert any(name.endswith("licenses/LICENSE") for name in wheel)


def test_its_name_is_not_that_of_another_tool(metadata: Message) -> None:
    assert metadata["Name"] == "lra-distill"


def test_a_tree_without_git_is_of_the_version_that_is_written_down(metadata: Message) -> None:
    pytest.importorskip("setuptools_scm", reason="a version needs setuptools-scm, of the extra dev")
    assert metadata["Version"] == SETTINGS["tool"]["setuptools_scm"]["fallback_version"]


def test_a_clone_and_an_archive_are_of_the_version_that_is_tagged(tmp_path: Path) -> None:
    pytest.importorskip("setuptools_scm", reason="a version needs setuptools-scm, of the extra dev")
    clone, archive = tmp_path / "clone", tmp_path / "archive"

    def git(*arguments: object) -> None:
        who = ("-c", "user.name=nobody", "-c", "user.email=nobody@localhost", "-c", "commit.gpgsign=false")
        subprocess.run(["git", "-C", clone, *who, *map(str, arguments)], check=True, capture_output=True)

    def version(folder: Path) -> str:
        done = subprocess.run([sys.executable, "-m", "setuptools_scm"], cwd=folder, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    clone.mkdir()
    for name in (".gitattributes", ".git_archival.txt", "pyproject.toml"):
        shutil.copy(ROOT / name, clone)
    git("init", "-q")
    git("add", ".")
    git("commit", "-qm", "one")
    git("tag", "v3.2.0")
    git("archive", "--format=zip", "--output", tmp_path / "archive.zip", "HEAD")
    shutil.unpack_archive(tmp_path / "archive.zip", archive)
    assert version(clone) == version(archive) == "3.2.0\n"


def test_installed_it_says_the_version_of_the_wheel_everywhere(
    built: zipfile.ZipFile, metadata: Message, tmp_path: Path
) -> None:
    built.extractall(tmp_path / "site")
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "site")}
    code = "import lra, lra.benchmarks.runs.machine as of; print(of.environment()['versions']['lra'], lra.__file__)"
    for command, said in (
        (["-m", "lra.benchmarks", "--version"], f"lra-bench, version {metadata['Version']}"),
        (["-c", code], f"{metadata['Version']} {tmp_path / 'site' / 'lra' / '__init__.py'}"),
    ):
        done = subprocess.run([sys.executable, *command], cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.stdout.strip() == said, done.stderr


def test_a_folder_that_was_never_installed_has_no_version(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "lra", tmp_path / "lra", ignore=shutil.ignore_patterns("__pycache__"))
    code = "import lra; print(lra.__version__)"
    done = subprocess.run([sys.executable, "-S", "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout == "0+unknown\n", done.stderr


def test_nobody_is_named_and_addresses_are_complete_once_there_are_any(metadata: Message) -> None:
    assert metadata["Author"] == "The lra contributors"
    assert not metadata["Author-email"]
    assert "data-free" in metadata["Keywords"]
    addresses = dict(text.split(", ") for text in metadata.get_all("Project-URL", []))
    assert set(addresses) in (set(), {"Documentation", "Repository", "Changelog"})
    assert all(address.startswith("https://") for address in addresses.values())


def test_the_readme_renders_on_an_index_of_packages(metadata: Message) -> None:
    markdown = pytest.importorskip("readme_renderer.markdown", reason="the extra dev brings readme-renderer")
    page = markdown.render(metadata.get_payload())
    assert page, "it does not render"
    assert "<h1" in page
    away = re.findall(r'\b(?:src|srcset|href)="(?!#|https://|mailto:)([^"]*)"', page)
    assert not away, f"{away} lead nowhere from there"


@pytest.mark.parametrize(
    ("text", "alone", "beside"),
    [
        ("[a](b.md)", "a", "[a](https://h/r/blob/HEAD/b.md)"),
        ("![a](b.svg)", "", "![a](https://h/r/raw/HEAD/b.svg)"),
        ("[`a[0]`](b.md#c)", "`a[0]`", "[`a[0]`](https://h/r/blob/HEAD/b.md#c)"),
        ("[![a](b.svg)](c.md)", "", "[![a](https://h/r/raw/HEAD/b.svg)](https://h/r/blob/HEAD/c.md)"),
        ('<img alt="a" src="b.svg">', "", '<img alt="a" src="https://h/r/raw/HEAD/b.svg">'),
        ("[a](#b) and [c](https://d)", "[a](#b) and [c](https://d)", "[a](#b) and [c](https://d)"),
        ("`list [DIR]` (all)", "`list [DIR]` (all)", "`list [DIR]` (all)"),
    ],
)
def test_links_of_the_readme_lead_to_the_repository_or_nowhere(text: str, alone: str, beside: str) -> None:
    index_page = runpy.run_path(str(ROOT / "setup.py"))["index_page"]
    assert index_page(text, None) == alone
    assert index_page(text, "https://h/r") == beside


KINDS = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
"""Of entries in a changelog, by the rules it names."""


def test_the_changelog_has_every_version_with_its_date_and_kinds_of_entries() -> None:
    first, *released = re.split(r"^## ", (ROOT / "CHANGELOG.md").read_text(), flags=re.MULTILINE)[1:]
    assert first.startswith("[Unreleased]\n")
    for section in (first, *released):
        kinds = re.findall(r"^### (.*)$", section, re.MULTILINE)
        assert len(kinds) == len(set(kinds))
        assert set(kinds) <= KINDS
    heads = [re.match(r"\[(\d+)\.(\d+)\.(\d+)\] - (\d{4}-\d\d-\d\d)\n", section) for section in released]
    versions = [(date.fromisoformat(head[4]), *map(int, head.groups()[:3])) for head in heads if head]
    assert len(versions) == len(released), "a version is a heading such as ## [1.2.3] - 2026-11-28"
    assert versions == sorted(versions, reverse=True)


def test_the_last_version_is_the_same_wherever_it_is_written_down() -> None:
    (version, day), *_ = re.findall(r"^## \[([\d.]+)\] - (.*)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert version == SETTINGS["tool"]["setuptools_scm"]["fallback_version"] == cited["version"]
    assert day == cited["date-released"]


AUTHOR = {
    "oneOf": [
        {"required": ["name"], "properties": {"name": {"type": "string"}}, "additionalProperties": False},
        {
            "required": ["family-names", "given-names"],
            "properties": {"family-names": {"type": "string"}, "given-names": {"type": "string"}},
            "additionalProperties": False,
        },
    ]
}
AUTHORS = {"type": "array", "minItems": 1, "items": AUTHOR}
REFERENCE = {
    "required": ["type", "title", "authors"],
    "properties": {
        "type": {"enum": ["article", "conference-paper"]},
        "title": {"type": "string"},
        "authors": AUTHORS,
        "collection-title": {"type": "string"},
        "year": {"type": "integer"},
        "url": {"type": "string", "pattern": "^https://"},
    },
    "additionalProperties": False,
}
CITATION = {
    "required": ["cff-version", "message", "title", "authors"],
    "properties": {
        "cff-version": {"const": "1.2.0"},
        "message": {"type": "string"},
        "title": {"type": "string"},
        "abstract": {"type": "string"},
        "type": {"enum": ["software", "dataset"]},
        "authors": AUTHORS,
        "license": {"const": "Apache-2.0"},
        "version": {"type": "string"},
        "date-released": {"type": "string", "pattern": "^\\d{4}-\\d{2}-\\d{2}$"},
        "keywords": {"type": "array", "items": {"type": "string"}, "uniqueItems": True, "minItems": 1},
        "repository-code": {"type": "string", "pattern": "^https://"},
        "url": {"type": "string", "pattern": "^https://"},
        "references": {"type": "array", "items": REFERENCE},
    },
    "additionalProperties": False,
}
"""What the Citation File Format 1.2.0 asks for and allows, as far as our file goes."""


def test_the_citation_is_one_that_tools_read() -> None:
    jsonschema.validate(yaml.safe_load((ROOT / "CITATION.cff").read_text()), CITATION)


def test_the_workflow_tries_each_python_that_is_promised_and_targets_that_there_are() -> None:
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())["jobs"]
    check, wheel = (jobs[name]["strategy"]["matrix"] for name in ("check", "wheel"))
    promised = {
        text.rpartition(" ")[2]
        for text in SETTINGS["project"]["classifiers"]
        if re.fullmatch(r"Programming Language :: Python :: 3\.\d+", text)
    }
    assert set(wheel["python"]) == promised
    assert {*check["python"], *(one["python"] for one in check["include"] if one["target"] == "test")} == promised
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert {*check["target"], *(one["target"] for one in check["include"])} <= targets
