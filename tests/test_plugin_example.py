"""The example package: installed beside lra it is a replay of its own name; uninstalled it is a plugin by its class."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from lra.strategies import extensions
from lra.strategies.lra import LRA
from lra.strategies.strategy import DataFreeDistillation
from lra.strategies.stream import SynthesisStream

EXAMPLE = Path(__file__).parents[1] / "examples" / "plugin"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for PYTHONPATH with the package installed from a copy."""
    source, target = tmp_path_factory.mktemp("source") / "plugin", tmp_path_factory.mktemp("site")
    shutil.copytree(EXAMPLE, source, ignore=shutil.ignore_patterns("build", "*.egg-info", "__pycache__"))
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation"]
    done = subprocess.run([*pip, "--target", target, source], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return target


def test_installed_it_runs_under_its_name(command: str, installed: Path, tiny: list[str], tmp_path: Path) -> None:
    """In a process of its own, as a user has it."""
    arguments = [command, "run", "--json", "--meta", "--replay", "hardest", *tiny, "--set", "replay.capacity=20"]
    environment = os.environ | {"PYTHONPATH": str(installed)}
    done = subprocess.run(arguments, capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert (result["replay"], result["meta"]) == ("hardest", True)
    assert result["alignment"]["count"] == 5, "it replays at every evaluation"


def test_installed_it_is_listed(
    lra_bench: Callable[..., Any], installed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(installed))
    extensions.replay_plugins.cache_clear()
    for what in ("plugins", "replays"):
        assert "hardest" in lra_bench("list", what).out
    assert "hardest_replay:HardestReplay" in lra_bench("list", "plugins").out
    monkeypatch.undo()
    extensions.replay_plugins.cache_clear()
    assert "hardest" not in lra_bench("list", "plugins").out


def test_uninstalled_it_is_used_by_its_class(
    lra_bench: Callable[..., Any], tiny: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLE))
    plugin = ("--plugin", "hardest_replay:HardestReplay", "--set", "plugin.capacity=20")
    done = lra_bench("run", "--json", "--replay", "none", *plugin, *tiny, "--out", tmp_path)
    assert done.code == 0, done.err
    result = json.loads(done.out)
    assert result["replay"] == "none"
    assert result["alignment"]["count"] == 5


def test_it_keeps_the_hardest(
    make_stream: Callable[..., SynthesisStream],
    make_strategy: Callable[..., DataFreeDistillation],
    student: nn.Module,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLE))
    replay = extensions.load("hardest_replay:HardestReplay")(size=2, capacity=10)  # type: ignore[call-arg]
    make_strategy(student, [replay, LRA(replay)]).train(make_stream(length=4))
    images, logits, hardness = replay.kept
    assert len(images) == len(logits) == 10
    assert torch.equal(hardness, hardness.sort(descending=True).values)


@pytest.fixture
def entry(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Offer a class under a name, as an installed package does."""

    def offer(name: str, value: str) -> None:
        monkeypatch.setattr(extensions, "replay_plugins", lambda: {name: EntryPoint(name, value, extensions.GROUP)})

    return offer


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("nocolon", "write it as package.module:Class"),
        ("no_such_module:Class", "is it installed?"),
        ("json:JSONDecoder", "JSONDecoder is not an Avalanche plugin; derive it from"),
        ("json:nothing", "json has no 'nothing'; name a class"),
        ("json:dumps", "dumps is not an Avalanche plugin; derive it from"),
        (":", "importing  failed"),
    ],
)
def test_what_is_no_plugin_is_refused_in_one_line(spec: str, said: str) -> None:
    with pytest.raises(extensions.ExtensionError) as error:
        extensions.load(spec)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["raise SystemError('bad\\nnews')", "import sys; sys.exit(3)"])
def test_a_module_that_fails_to_import_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    (tmp_path / "broken_plugin.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(extensions.ExtensionError, match="importing broken_plugin failed"):
        extensions.load("broken_plugin:Class")


def test_what_builds_no_plugin_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = "from avalanche.core import SupervisedPlugin"
    (tmp_path / "odd_plugin.py").write_text(
        f"{base}\nclass Odd(SupervisedPlugin):\n    @classmethod\n    def build(cls, setup):\n        return 3\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(extensions.ExtensionError, match="returns no Avalanche plugin but 3"):
        extensions.build("odd_plugin:Odd", {}, None)  # type: ignore[arg-type]


def test_options_that_a_plugin_does_not_take_are_named(entry: Callable[..., None]) -> None:
    entry("lwf", "avalanche.training.plugins:LwFPlugin")
    with pytest.raises(extensions.ExtensionError, match="it takes: alpha, temperature"):
        extensions.build("lwf", {"alhpa": 1}, None)  # type: ignore[arg-type]
    assert extensions.accepted(extensions.load("lwf")) == ["alpha", "temperature"]


def test_a_replay_that_raises_when_it_is_asked_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLE))
    spec = "hardest_replay:HardestReplay"
    replay = extensions.build(spec, {"capacity": 4}, SimpleNamespace(batch_size=8))  # type: ignore[arg-type]
    replay.kept = [None]
    with pytest.raises(extensions.PluginFailed, match=rf"plugin '{spec}' raised in recall: ValueError: .*; fix it"):
        replay.recall()
