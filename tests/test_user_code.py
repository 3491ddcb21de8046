"""Code named by module:name: found where the user stands, told apart by what it says, never a stranger's."""

import json
import sys
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import yaml
from safetensors.torch import load_file, save_file

from lra.benchmarks.errors import UsageError
from lra.benchmarks.increment.configuration import configuration as increment
from lra.benchmarks.runs.distillation import stored_configuration
from lra.benchmarks.setup import user_code
from lra.benchmarks.setup.config import TeacherOptions
from lra.benchmarks.setup.datasets import data_set
from lra.benchmarks.setup.resolution import configuration
from lra.benchmarks.setup.teachers import cached_path
from lra.benchmarks.setup.user_code import find, identity

pytestmark = pytest.mark.usefixtures("plain_report")

NETS = """
from torch import nn
import own_layers

def small(classes, image):
    pixels = image[0] * image[1] * image[2]
    return nn.Sequential(nn.Flatten(), nn.Linear(pixels, 8), own_layers.act(), nn.Linear(8, classes))
"""

PLUGIN = """
from avalanche.core import SupervisedPlugin

class Counts(SupervisedPlugin):
    def after_training_iteration(self, strategy, **kwargs):
        pass
    def state_dict(self):
        return {}
    def load_state_dict(self, state):
        pass
"""

Fresh = Callable[[], None]


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[Fresh]:
    """Be as a new process: nothing of the user's own is loaded, found or looked at."""
    path = list(sys.path)

    def renew() -> None:
        sys.path[:] = path
        user_code.identity.cache_clear()
        for name in [name for name in sys.modules if name.startswith("own_")]:
            del sys.modules[name]

    renew()
    yield renew
    renew()


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fresh: Fresh) -> Path:
    """The user's folder, which is the working directory, with networks and a plugin."""
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "own_nets.py").write_text(NETS)
    (folder / "own_layers.py").write_text("from torch import nn\nact = nn.ReLU\n")
    (folder / "own_plugins.py").write_text(PLUGIN)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("LRA_CACHE", str(tmp_path / "cache"))
    return folder


@pytest.fixture
def lra(lra_bench: Callable[..., Any], fresh: Fresh) -> Callable[..., Any]:
    """``lra-bench`` as if in a process of its own."""

    def call(*arguments: object) -> Any:
        fresh()
        return lra_bench(*arguments)

    return call


@pytest.fixture
def quick(tiny: list[str]) -> list[str]:
    """A run shorter still."""
    return [*tiny, "--steps", "4", "--set", "evaluation.samples=0"]


def folder_of(done: Any) -> Path:
    assert done.code == 0, done.err
    return Path(json.loads(done.out)["run_dir"])


def half_done(folder: Path) -> Path:
    """A run folder as a kill leaves it before the first checkpoint."""
    (folder / "result.json").unlink()
    return folder


def test_code_of_the_working_directory_is_found_and_found_again_from_elsewhere(
    lra: Callable[..., Any], project: Path, quick: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = ("--student", "own_nets:small", "--plugin", "own_plugins:Counts")
    folder = folder_of(lra("run", "--json", *quick, *own, "--out", "runs")).absolute()
    stored = yaml.safe_load((folder / "config.yaml").read_text())
    assert stored["code"] == {"own_nets": str(project), "own_plugins": str(project)}
    before = (folder / "metrics.jsonl").read_bytes()
    (tmp_path / "else").mkdir()
    monkeypatch.chdir(tmp_path / "else")
    half_done(folder)
    assert folder_of(lra("resume", folder, "--json")) == folder
    assert (folder / "metrics.jsonl").read_bytes() == before
    again = folder_of(lra("run", "--json", "--config", folder / "config.yaml", "--out", "again"))
    assert again.parts[-3:] == folder.parts[-3:]
    assert lra("export", folder).code == 0
    # The folder of the code is moved: the run goes on where it is found.
    moved = project.rename(tmp_path / "moved")
    half_done(moved / folder.relative_to(project))
    done = lra("resume", moved / folder.relative_to(project))
    assert (done.code, len(done.err.splitlines())) == (2, 1), done
    assert "own_nets, own_plugins, which the run began with, is not found: go to the folder it lies in" in done.err
    monkeypatch.chdir(moved)
    assert folder_of(lra("resume", moved / folder.relative_to(project), "--json")).is_relative_to(moved)


def test_edited_code_is_another_run_and_a_half_done_one_stops(
    lra: Callable[..., Any], project: Path, quick: list[str]
) -> None:
    options = ("run", "--json", *quick, "--student", "own_nets:small", "--plugin", "own_plugins:Counts")
    first = folder_of(lra(*options))
    assert folder_of(lra(*options)) == first, "nothing changed"
    half_done(first)
    for file, text in (
        ("own_layers.py", "from torch import nn\nact = nn.Tanh\n"),
        ("own_nets.py", NETS.replace("8", "9")),
        ("own_plugins.py", PLUGIN + "    other = 1\n"),
    ):
        before = (project / file).read_text()
        (project / file).write_text(text)
        done = lra("resume", first)
        assert (done.code, len(done.err.splitlines())) == (2, 1), done
        assert f"module {file[:-3]} changed since the run began" in done.err
        assert "lra-bench run --config" in done.err
        assert not (first / "result.json").exists()
        (project / file).write_text(before)
    (project / "own_layers.py").write_text("from torch import nn\nact = nn.Tanh\n")
    assert folder_of(lra(*options)) != first, "another activation is another run"
    (project / "own_layers.py").write_text("from torch import nn\nact = nn.ReLU\n")
    assert folder_of(lra(*options)) == first, "and the old one goes on when it is put back"


def test_an_edited_network_is_another_teacher(project: Path, fresh: Fresh) -> None:
    """Not the weights of one activation in the code of another."""
    options, data = TeacherOptions(network="own_nets:small"), data_set("digits", 8)
    configuration(teacher="own_nets:small")
    first = cached_path(options, data)
    (project / "own_layers.py").write_text("from torch import nn\nact = nn.Tanh\n")
    fresh()
    configuration(teacher="own_nets:small")
    assert cached_path(options, data) != first


@pytest.mark.parametrize("made", ["trained", "exported"])
def test_weights_are_not_loaded_into_other_code_than_they_were_trained_in(
    lra: Callable[..., Any], project: Path, quick: list[str], tmp_path: Path, made: str
) -> None:
    """ReLU's weights in the code of tanh, which have the same names and shapes."""
    file = tmp_path / "teacher.safetensors"
    if made == "trained":
        trained = [*quick[4:], "--teacher", "own_nets:small", "--set", "teacher.epochs=12"]
        folder = folder_of(lra("run", "--json", *trained, "--student", "mlp", "--out", "runs"))
        (kept,) = (tmp_path / "cache" / "teachers").glob("own_nets*.safetensors")
        file.write_bytes(kept.read_bytes())
    else:
        learnt = [*quick, "--student", "own_nets:small", "--steps", "200", "--set", "student.lr=0.05"]
        folder = folder_of(lra("run", "--json", *learnt, "--out", "runs"))
        done = lra("export", folder, "--format", "safetensors")
        assert done.code == 0, done.err
        file.write_bytes((folder / "export" / "student.safetensors").read_bytes())
    settings = ("--set", "data.size=8", "--set", "teacher.network=own_nets:small")
    check = ("teacher", "check", file, *settings)
    as_teacher = ("run", *quick[4:], "--teacher", file, *settings, "--student", "mlp", "--out", "again")
    weights = load_file(file)
    done = lra(*check)
    assert "trained with other code" not in done.err
    assert done.code == 0, done.err
    (project / "own_layers.py").write_text("from torch import nn\nact = nn.Tanh\n")
    for command in (check, as_teacher):
        done = lra(*command)
        said = [line for line in done.err.splitlines() if line.startswith("lra-bench")]
        assert (done.code, len(said)) == (2, 1), done
        assert "with other code of own_nets:small than there is now (module 'own_layers' changed): rest" in done.err
    assert not Path("again").exists()
    save_file(weights, file)
    done = lra(*check, "--set", "teacher.mean=[0.3]", "--set", "teacher.std=[0.3]")
    assert "trained with other code" not in done.err, "the remedy that is named is one"
    assert done.code in (0, 1), "right or not, in the code of tanh"


@pytest.mark.parametrize("command", ["sweep", "tasks"])
def test_grids_and_tasks_find_code_and_notice_edits(
    lra: Callable[..., Any], project: Path, command: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    settings = {
        **{"data.size": 8, "teacher.epochs": 3, "schedule.batch_size": 16, "schedule.steps_per_experience": 2},
        **{"evaluation.probe_size": 16, "evaluation.samples": 0, "data.test": False},
    }
    tree: dict[str, Any] = {"teacher": "mlp", "student": "own_nets:small", "steps": 4, "set": settings}
    tree |= {"tasks": [{"name": "one"}]} if command == "tasks" else {}
    (project / "file.yaml").write_text(yaml.safe_dump(tree))
    extra = ("--workers", 1) if command == "sweep" else ()

    def folders() -> set[str]:
        done = lra(command, "file.yaml", "--out", "out", *extra)
        assert done.code == 0, done.err
        return {file.parent.parent.name for file in Path("out").rglob("teacher.json")}

    first = folders()
    assert len(first) == 1
    assert folders() == first
    (project / "own_layers.py").write_text("from torch import nn\nact = nn.Tanh\n")
    assert len(folders()) == 2
    if command == "tasks":
        monkeypatch.chdir(tmp_path)
        assert lra("resume", project / "out").code == 0


def test_increments_notice_edits(project: Path, fresh: Fresh) -> None:
    given = {"model": "own_nets:small"}
    first = increment(given, (), False).identity()
    (project / "own_layers.py").write_text("from torch import nn\nact = nn.Tanh\n")
    fresh()
    assert increment(given, (), False).identity() != first


def test_a_strangers_configuration_runs_no_code(
    lra: Callable[..., Any], project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not that of a folder of its choice; once the user has named it himself, it is his."""
    evil = tmp_path / "evil"
    evil.mkdir()
    (evil / "own_evil.py").write_text(f"open({str(tmp_path / 'canary')!r}, 'w')\n")
    run = evil / "run" / "seed-0"
    run.mkdir(parents=True)
    for code in (str(evil), "..", "../.."):
        text = yaml.safe_dump({"student": {"network": "own_evil:net"}, "code": {"own_evil": code}})
        (run / "config.yaml").write_text(text)
        for command in (("run", "--config", run / "config.yaml"), ("resume", run)):
            done = lra(*command)
            assert done.code in (2, 3), done
            assert len(done.err.splitlines()) == 1
            assert not (tmp_path / "canary").exists()
    done = lra("run", "--config", run / "config.yaml", "--student", "own_evil:net")
    assert "if you trust it, give --set code.own_evil=" in done.err, "naming it is not knowing where it is from"
    assert not (tmp_path / "canary").exists()
    lra("run", "--config", run / "config.yaml", "--set", f"code.own_evil={evil}")
    assert (tmp_path / "canary").exists()


def test_what_a_file_names_in_the_working_directory_is_said(
    lra: Callable[..., Any], project: Path, quick: list[str]
) -> None:
    (project / "run.yaml").write_text("student: {network: 'own_nets:small'}\n")
    options = ("run", "--json", *quick[2:], "--config", "run.yaml")
    options = tuple(o for i, o in enumerate(options) if o != "--student" and options[i - 1] != "--student")
    done = lra(*options, "--teacher", "mlp")
    assert done.code == 0, done.err
    assert done.err.startswith(f"lra-bench: student.network is code from the working directory, {project}\n")
    assert "working directory" not in lra(*options, "--teacher", "mlp", "--seed", 1).err, "it is known by now"


def test_nothing_installed_is_shadowed(project: Path, fresh: Fresh) -> None:
    (project / "yaml.py").write_text("raise AssertionError\n")
    (project / "json.py").write_text("raise AssertionError\n")
    before = list(sys.path)
    for module in ("yaml", "json"):
        assert user_code.importable({"student.network": module}, {}) == {}
        assert find(module).installed  # type: ignore[union-attr]
    assert sys.path == before, "and nothing is added for what is found anyway"
    assert user_code.importable({"student.network": "own_nets"}, {}) == {"own_nets": str(project)}
    assert sys.path == [*before, str(project)]


def test_the_source_is_all_that_is_imported_from_the_same_folder(project: Path, fresh: Fresh) -> None:
    package = project / "own_package"
    (package / "deep").mkdir(parents=True)
    (package / "__init__.py").write_text("from . import first\n")
    (package / "first.py").write_text("import torch\nfrom own_package.deep import second\n")
    (package / "deep" / "__init__.py").write_text("")
    (package / "deep" / "second.py").write_text("from ..third import thing\ndef f():\n    import own_late\n")
    (package / "third.py").write_text("thing = 1\nimport own_package.deep.second\n")
    (package / "unused.py").write_text("")
    (project / "own_late.py").write_text("import nowhere_at_all\n")
    sys.path.append(str(project))
    found = identity("own_package.deep.second")
    names = ("first", "deep", "deep.second", "third")
    assert set(found) == {"own_package", *(f"own_package.{name}" for name in names), "own_late"}
    (package / "unused.py").write_text("# an edit elsewhere\n")
    fresh()
    sys.path.append(str(project))
    assert identity("own_package.deep.second") == found


def test_where_it_lies_is_no_part_of_what_it_says(project: Path, fresh: Fresh, tmp_path: Path) -> None:
    configuration(student="own_nets:small")
    first = identity("own_nets")
    fresh()
    sys.path.append(str(project.rename(tmp_path / "elsewhere")))
    assert identity("own_nets") == first


def test_what_is_installed_counts_by_its_version() -> None:
    assert identity("torch.nn") == {"torch": metadata.version("torch")}
    assert identity("json") == {"json": identity("json")["json"]}
    assert identity("nowhere_at_all.module") == {}


def test_code_edited_while_a_run_starts_is_not_taken_for_what_it_was(project: Path) -> None:
    config = configuration(student="own_nets:small")
    config.fingerprint("x")
    user_code.refuse_edited(config.tree())
    (project / "own_layers.py").write_text("from torch import nn\nact = nn.Tanh\n")
    with pytest.raises(UsageError, match="module own_layers was edited while this started"):
        user_code.refuse_edited(config.tree())


def test_two_modules_of_one_name_are_told_apart(project: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "own_nets.py").write_text(NETS)
    configuration(student="own_nets:small")
    __import__("own_nets")
    sys.path.insert(0, str(other))
    with pytest.raises(UsageError, match="cannot be used beside that in"):
        configuration(student="own_nets:small")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--student", "own_nets.py:small"], "'own_nets.py' is not a module: write own_nets:small"),
        (["--teacher", "./own_nets.py:small"], "is not a module: write own_nets:small"),
        (["--plugin", "sub/own_plugins.py:Counts"], "write own_plugins:Counts, and call lra-bench from sub"),
        (["--student", "https://host/own_nets.py:small"], "is a URL"),
        (["--student", r"C:\own_nets.py:small"], "is a Windows path"),
        (["--student", "own_nets:smal"], "own_nets.py) has no function 'smal'"),
        (["--student", "own_mets:small"], "go to the folder it lies in"),
        (["--plugin", "own_mets:Counts"], "folder it lies in"),
    ],
)
def test_what_is_no_module_is_said_in_one_line(
    lra: Callable[..., Any], project: Path, quick: list[str], arguments: list[str], said: str
) -> None:
    done = lra("run", *quick, *arguments)
    assert done.code in (2, 3), done
    *before, line = done.err.splitlines()
    assert said in line
    assert not any(line.startswith("lra-bench") for line in before)


def test_a_configuration_without_own_code_says_none(tmp_path: Path) -> None:
    tree = configuration().tree()
    assert "code" not in tree
    assert "code" not in configuration().identity("x")
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "config.yaml").write_text(yaml.safe_dump(tree))
    assert stored_configuration(folder) == configuration()
