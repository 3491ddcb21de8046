"""The documentation says what is so: its commands are accepted, its grids are grids, its programs run."""

import importlib.util
import itertools
import re
import shlex
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any, NamedTuple

import click
import numpy as np
import pytest
import yaml
from PIL import Image

from lra.benchmarks.cli import cli
from lra.benchmarks.sweeps.grid import plan
from lra.strategies import extensions

ROOT = Path(__file__).parents[1]
PAGES = [*sorted((ROOT / "docs").rglob("*.md")), ROOT / "README.md", ROOT / "examples" / "plugin" / "README.md"]
FENCE = re.compile(r"^```(?:{ \.)?(\w*)(?: })?(?: title=\"(.+)\")?\n(.*?)^```$", re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    """A fenced block of a page."""

    page: Path
    language: str
    title: str
    text: str


def blocks() -> Iterator[Block]:
    for page in PAGES:
        for language, title, text in FENCE.findall(page.read_text()):
            yield Block(page, language, title, text)


BLOCKS = list(blocks())


def commands() -> Iterator[Any]:
    """Every command of a console block, and of the README's, each with the page it is on."""
    for block in BLOCKS:
        for line in block.text.replace("\\\n", " ").splitlines():
            summary = block.language == "" and line.startswith("lra-bench") and "·" not in line
            if block.language == "console" or summary:
                yield pytest.param(block.page, shlex.split(line, comments=True), id=f"{block.page.stem}: {line}")


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Path, list[str]], None]:
    """A folder that holds every file and data set that a command names, and the example plugin."""

    def lay_out(page: Path, words: list[str]) -> None:
        monkeypatch.chdir(tmp_path)
        for word in words:
            kind, _, place = word.partition(":")
            if kind == "npz":
                np.savez(place, images=np.zeros((20, 28, 28), np.uint8), labels=np.arange(20) % 10)
            if kind == "imagefolder":
                for label, number in itertools.product(("cat", "dog"), range(2)):
                    (Path(place) / "test" / label).mkdir(parents=True, exist_ok=True)
                    Image.new("RGB", (64, 48)).save(Path(place) / "test" / label / f"{number}.png")
            file = Path(word)
            if file.suffix in (".yaml", ".safetensors", ".pt") and not file.is_absolute():
                file.parent.mkdir(parents=True, exist_ok=True)
                shown = [b.text for b in BLOCKS if b.page == page and b.title == word and "--8<--" not in b.text]
                there = [(ROOT / word).read_text()] if (ROOT / word).is_file() else ["{}\n"]
                file.write_text([*shown, *there][0])

    hardest = EntryPoint("hardest", "hardest_replay:HardestReplay", extensions.GROUP)
    monkeypatch.setattr(extensions, "replay_plugins", lambda: {"hardest": hardest})
    return lay_out


@pytest.mark.parametrize(("page", "words"), list(commands()))
def test_a_command_is_accepted(
    page: Path, words: list[str], desk: Callable[[Path, list[str]], None], lra_bench: Callable[..., Any]
) -> None:
    """Its options are there; a run is resolved to its configuration, too."""
    program, *rest = words
    if program == "torchrun":
        program, rest = "lra-bench", rest[rest.index("lra.benchmarks") + 1 :]
    if program in ("make", "pip"):
        assert rest[0] in ("demo", "install")
    elif program == "ray":
        assert rest[0] in ("start", "stop")
    elif program == "torchrun":
        assert importlib.util.find_spec(rest[rest.index("-m") + 1])
    elif program == "python":
        found = importlib.util.find_spec(rest[1]) if rest[0] == "-m" else ROOT / rest[0]
        assert found is not None
        assert isinstance(found, importlib.machinery.ModuleSpec) or found.is_file()
    else:
        assert program == "lra-bench"
        desk(page, rest)
        command, arguments = leaf(rest)
        command.make_context(" ".join(rest), list(arguments))
        if command.name in ("run", "quantize"):
            done = lra_bench(*rest, "--dry-run", "--no-timing")
            assert done.code == 0, done.err


def leaf(words: list[str]) -> tuple[click.Command, list[str]]:
    """The command that ``words`` name, and what is left for it."""
    command: click.Command = cli
    rest = list(words)
    while isinstance(command, click.Group):
        command = command.commands[rest.pop(0)]
    return command, rest


def test_a_grid_that_is_shown_is_one() -> None:
    shown = [block for block in BLOCKS if block.title == "grid.yaml"]
    assert shown
    for block in shown:
        assert len(plan(yaml.safe_load(block.text), ROOT / "examples")) > 1


@pytest.mark.parametrize(
    "block",
    [
        pytest.param(block, id=f"{block.page.stem}: {block.text.splitlines()[0]}")
        for block in BLOCKS
        if block.language == "python" and block.page.parent.name == "how-to" and "--8<--" not in block.text
    ],
)
def test_a_program_runs(block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    exec(compile(block.text, str(block.page), "exec"), {"__name__": "shown"})
