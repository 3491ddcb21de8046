"""Tab completion, by click's own means: what a shell asks for and gets; and help."""

import subprocess
import sys
from collections.abc import Sequence

import pytest
from click.shell_completion import ShellComplete
from click.testing import CliRunner

from lra.benchmarks.cli import cli
from lra.strategies.methods import METHODS
from lra.strategies.retention import REPLAYS


def completed(words: Sequence[str], incomplete: str = "") -> list[str]:
    found = ShellComplete(cli, {}, "lra-bench", "_LRA_BENCH_COMPLETE").get_completions(list(words), incomplete)
    return [item.value for item in found if item.type == "plain"]


def test_names_are_completed_to_those_there_are() -> None:
    assert set(completed(["run", "--method"])) == set(METHODS)
    assert {*REPLAYS, "avalanche:ewc"} <= set(completed(["run", "--replay"]))
    assert completed(["run", "--preset"], "lra-mb/dig") == ["lra-mb/digits"]
    assert {"digits", "cifar10", "npz:"} <= set(completed(["teacher", "train", "--dataset"]))
    assert {"resnet18", "timm:"} <= set(completed(["quantize", "--teacher"]))
    assert "resnet18" in completed(["increment", "--model"], "resnet1")
    assert "split-digits" in completed(["increment", "--benchmark"])
    assert "generative" in completed(["increment", "--strategy"], "gen")
    assert "fashion-mnist" in completed(["data", "fetch"], "fa")
    assert "dfq" in completed(["list", "options"], "df")
    assert completed(["list", "methods"], "df") == []


def test_keys_of_set_are_those_of_the_method_and_replay_that_are_given() -> None:
    assert completed(["run", "--set"], "student.l") == [
        "student.lr=",
        "student.loss.kind=",
        "student.loss.temperature=",
    ]
    every = completed(["run", "--set"], "synthesis.")
    own = completed(["run", "--method", "dfq", "--set"], "synthesis.")
    assert "synthesis.bn_gap=" in own
    assert set(own) < set(every)
    assert completed(["run", "--replay", "none", "--set"], "replay.") == ["replay.fraction="]
    assert "generator_steps=" in completed(["increment", "--set"], "gen")
    assert "student.lr=" in completed(["tasks", "file.yaml", "--set"], "student.l")


def test_what_is_no_name_may_be_a_file() -> None:
    found = ShellComplete(cli, {}, "lra-bench", "_LRA_BENCH_COMPLETE").get_completions(["run", "--teacher"], "weights")
    assert [(item.value, item.type) for item in found] == [("weights", "file")]


@pytest.mark.parametrize("group", [(), ("analyse",), ("leaderboard",), ("teacher",), ("data",)], ids=" ".join)
def test_a_terminal_of_eighty_columns_has_room_for_what_each_command_is(group: Sequence[str]) -> None:
    done = CliRunner().invoke(cli, [*group, "--help"], env={"COLUMNS": "80"})
    assert "..." not in done.output.partition("Commands:")[2]


def test_help_says_the_defaults_of_the_command_that_is_asked_and_the_flags_that_matter_to_it() -> None:
    said = {
        name: CliRunner().invoke(cli, [*name.split(), "--help"]).output for name in ("run", "quantize", "teacher train")
    }
    assert "default: by the scale" in said["run"]
    assert "default: gdfq" in said["quantize"]
    assert "predfkd" not in said["quantize"]
    assert "--student" not in said["teacher train"]
    taken = CliRunner().invoke(cli, ["teacher", "train", "--student", "mlp", "--dry-run", "--no-timing"])
    assert taken.exit_code == 0, "those of a run can be given all the same"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_documented_line_installs_it_without_importing_what_trains(shell: str) -> None:
    code = (
        "import sys; from lra.benchmarks.cli import main; sys.argv = ['lra-bench']\n"
        "try: main()\n"
        "finally: assert not {'torch', 'avalanche'} & set(sys.modules)"
    )
    environment = {"PATH": "/usr/bin:/bin", "_LRA_BENCH_COMPLETE": f"{shell}_source"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert "Error" not in done.stderr
    assert "_LRA_BENCH_COMPLETE" in done.stdout
