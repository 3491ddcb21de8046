"""Everything a user can get wrong: one line on stderr, the right exit code, nothing written and nothing lost."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from lra.networks import build


@pytest.fixture
def untouched(tmp_path: Path, alone: Path) -> Callable[[], set[Path]]:
    """Every file there is, in the working folder and in the cache."""

    def files() -> set[Path]:
        return {*tmp_path.rglob("*"), *alone.rglob("*")}

    return files


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An own working folder with things that can be taken for others."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a-file").write_text("precious")
    (tmp_path / "broken.yaml").write_text("student: {lr: [")
    (tmp_path / "list.yaml").write_text("- 1")
    (tmp_path / "twice.yaml").write_text("seed: 1\nstudent: {lr: 0.1}\nstudent: {network: mlp}")
    (tmp_path / "typo.yaml").write_text("student: {lrr: 3}")
    (tmp_path / "type.yaml").write_text("student: {lr: fast}")
    (tmp_path / "plugin.yaml").write_text("plugin: {use: 3}")
    (tmp_path / "broken.safetensors").write_bytes(b"\x00" * 40)
    (tmp_path / "broken.pt").write_bytes(b"PK\x03\x04garbage")
    torch.save(build("mlp", 7, (1, 8, 8)).state_dict(), tmp_path / "classes.pt")
    torch.save(build("lenet5", 10, (3, 32, 32)).state_dict(), tmp_path / "channels.pt")
    return tmp_path


NORMALISED = ("--set", "teacher.mean=[0.3]", "--set", "teacher.std=[0.4]")

RUNS: list[tuple[str, int, str]] = [
    ("--method predfdk", 2, "did you mean 'predfkd'"),
    ("--replay memroy", 2, "did you mean 'memory'"),
    ("--dataset digit", 2, "did you mean 'digits'"),
    ("--student mpl", 2, "did you mean 'mlp'"),
    ("--teacher mpl", 2, "did you mean 'mlp'"),
    ("--preset mb-dfkd", 2, "did you mean 'mb-dfkd/"),
    ("--sede 3", 2, "--seed"),
    ("--seed many", 2, "not a valid integer"),
    ("--seed -1", 2, "greater than or equal to 0"),
    ("--steps 0", 2, "schedule.steps = 0"),
    ("--threads 0", 2, "threads = 0"),
    ("--threads 99999999999", 2, "threads = 99999999999"),
    ("--steps 99999999999", 2, "schedule.steps: 99999999999 is more than can be counted"),
    ("--set teacher.seed=4294967296", 2, "teacher.seed = 4294967296"),
    ("--set studnet.lr=1", 2, "did you mean 'student.lr'"),
    ("--set student.lrr=1", 2, "did you mean 'student.lr'"),
    ("--set student.lr", 2, "section.key=value"),
    ("--set student.lr=fast", 2, "student.lr = 'fast'"),
    ("--set student.lr=-1", 2, "student.lr = -1"),
    ("--set schedule.batch_size=0", 2, "schedule.batch_size = 0"),
    ("--meta --set meta.alpha=-0.5", 2, "meta.alpha = -0.5"),
    ("--meta --set meta.alpha=.inf", 2, "finite"),
    ("--meta --set meta.order=3", 2, "meta.order = 3"),
    ("--meta --set meta.objective=papre", 2, "meta.objective = 'papre'"),
    ("--replay memory --set replay.slots=0", 2, "replay.slots = 0"),
    ("--replay memory --set replay.capacity=3", 2, "unknown option 'replay.capacity': it is of reservoir, pool;"),
    ("--config none.yaml", 3, "none.yaml does not exist"),
    ("--config broken.yaml", 2, "not YAML"),
    ("--config list.yaml", 2, "no sections"),
    ("--config twice.yaml", 2, "line 3 gives 'student' a second time"),
    ("--config typo.yaml", 2, "typo.yaml: unknown option 'student.lrr'; did you mean 'student.lr'"),
    ("--config type.yaml", 2, "student.lr = 'fast'"),
    ("--config plugin.yaml", 2, "plugin.use = 3"),
    ("--teacher none.safetensors", 3, "none.safetensors does not exist"),
    ("--set teacher.file=none.pt", 3, "none.pt does not exist"),
    ("--teacher broken.safetensors", 2, "cannot be read"),
    ("--teacher broken.pt", 2, "cannot be read"),
    ("--set teacher.file=classes.pt --set teacher.network=mlp", 2, "classes.pt"),
    ("--set teacher.file=channels.pt --set teacher.network=lenet5", 2, "channels.pt"),
    ("--dataset npz:none.npz", 3, "none.npz does not exist"),
    ("--dataset imagefolder:none", 3, "none does not exist"),
    ("--dataset cifar10", 3, "lra-bench data fetch cifar10"),
    ("--student torchvision:resnet18", 2, "3 channels"),
    ("--student nowhere:network", 3, "PYTHONPATH"),
    ("--set teacher.augment=flip", 2, "teacher.augment: 'flip' is none of"),
    ("--set teacher.augment=2", 2, "teacher.augment: 2.0 is none of"),
    ("--set data.size=4", 2, "data.size = 4"),
    ("--out a-file", 2, "cannot write to"),
    ("--out a-file/below/it", 2, "cannot write to"),
    ("--plugin nowhere:Class", 2, "is it installed?"),
    ("--plugin json:JSONDecoder", 2, "JSONDecoder is not an Avalanche plugin"),
    ("--plugin Class", 2, "package.module:Class"),
    ("--plugin avalanche:mas --plugin avalanche:mas", 2, "once is enough"),
    ("--set plugin.alpha=1", 2, "plugin.alpha"),
    ("--device nonsense", 2, "device = 'nonsense'"),
    ("--device meta", 2, "device = 'meta'"),
    ("--method dfq", 2, "the teacher has no BatchNorm"),
]


@pytest.fixture(scope="module")
def settings(tiny: list[str]) -> list[str]:
    """The tiny run, without what is to be given wrong, and on a teacher that is there already."""
    return [part for part in tiny if part not in ("--steps", "20")]


@pytest.mark.parametrize(("arguments", "code", "said"), RUNS, ids=[arguments for arguments, *_ in RUNS])
def test_a_run_that_cannot_be_done(
    lra_bench: Callable[..., Any],
    settings: list[str],
    here: Path,
    untouched: Callable[[], set[Path]],
    arguments: str,
    code: int,
    said: str,
) -> None:
    given = arguments.split()
    normalised = NORMALISED if "teacher.file=c" in arguments else ()
    # A teacher in the cache is made once for all of these, and is no harm.
    method = given if "dfq" in given else []
    assert lra_bench("teacher", "train", *settings, *method).code == 0
    before = untouched()
    done = lra_bench("run", *settings, *normalised, *given)
    assert done.code == code, done
    assert said in done.err
    assert len(done.err.splitlines()) == 1, done.err
    assert done.err.startswith("lra-bench: ")
    assert done.out == ""
    assert untouched() == before
    assert (here / "a-file").read_text() == "precious"


@pytest.mark.parametrize(
    "error", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")]
)
@pytest.mark.parametrize("command", ["run", "teacher train"])
def test_memory_that_does_not_suffice(
    lra_bench: Callable[..., Any],
    settings: list[str],
    here: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: str,
    error: Exception,
) -> None:
    def load(*_: object) -> None:
        raise error

    for work in ("runs.distillation.obtain", "setup.teacher_training.train"):
        monkeypatch.setattr(f"lra.benchmarks.{work}", load)
    done = lra_bench(*command.split(), *settings, "--set", "teacher.epochs=2")
    assert (done.code, done.out) == (1, ""), done
    assert done.err.startswith("lra-bench: there is not enough memory")
    assert len(done.err.splitlines()) == 1


COMMANDS: list[tuple[str, int, str]] = [
    ("rnu", 2, "No such command 'rnu'"),
    ("foo", 2, "No such command 'foo'; see lra-bench --help"),
    ("teacher trian", 2, "Did you mean 'train'?"),
    ("run somewhere", 2, "(somewhere); see lra-bench run --help"),
    ("list", 2, "Missing argument"),
    ("list nothing", 2, "is not one of"),
    ("resume", 2, "Missing argument"),
    ("resume none", 3, "none"),
    ("resume .", 3, "config.yaml does not exist"),
    ("resume a-file", 3, "config.yaml does not exist"),
    ("report none", 3, "none"),
    ("teacher check none.pt", 3, "none.pt does not exist"),
    ("teacher check broken.pt", 2, "cannot be read"),
    ("teacher train --teacher mpl", 2, "did you mean 'mlp'"),
    ("increment --seed 4294967296", 2, "seed = 4294967296"),
    ("analyse behaviour . --seed 4294967296", 2, "4294967296"),
]


@pytest.mark.parametrize(("arguments", "code", "said"), COMMANDS, ids=[arguments for arguments, *_ in COMMANDS])
def test_a_command_that_cannot_be_done(
    lra_bench: Callable[..., Any],
    here: Path,
    untouched: Callable[[], set[Path]],
    arguments: str,
    code: int,
    said: str,
) -> None:
    before = untouched()
    done = lra_bench(*arguments.split())
    assert (done.code, done.out) == (code, ""), done
    assert said in done.err
    assert len(done.err.splitlines()) == 1, done.err
    assert untouched() == before


def test_a_stored_configuration_that_was_damaged(lra_bench: Callable[..., Any], here: Path) -> None:
    folder = here / "runs" / "a" / "b" / "seed-0"
    folder.mkdir(parents=True)
    for text in ("", "seed: 1\nmethod: gone\n", "replay: {name: gone}\n", "replay: 3\n", "method: predfkd\nseed: x\n"):
        (folder / "config.yaml").write_text(text)
        done = lra_bench("resume", folder)
        assert done.code == 2, text
        assert len(done.err.splitlines()) == 1


def test_meta_needs_something_that_replays(
    lra_bench: Callable[..., Any], tiny: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An installed plugin that is no replay cannot carry the look-ahead; without --meta it runs."""
    from importlib.metadata import EntryPoint

    from lra.strategies import extensions

    point = EntryPoint("mas", "avalanche.training.plugins:MASPlugin", extensions.GROUP)
    monkeypatch.setattr(extensions, "replay_plugins", lambda: {"mas": point})
    done = lra_bench("run", *tiny, "--replay", "mas", "--meta", "--out", tmp_path / "runs")
    assert done.code == 2
    assert "--meta needs a plugin that replays" in done.err
    assert not (tmp_path / "runs").exists()
    done = lra_bench("run", *tiny, "--replay", "mas", "--set", "replay.lambda_regg=1", "--out", tmp_path / "runs")
    assert done.code == 2
    assert "lambda_reg" in done.err
    assert not (tmp_path / "runs").exists()


def test_no_arguments_give_help(lra_bench: Callable[..., Any]) -> None:
    done = lra_bench()
    assert "Usage: lra-bench" in done.out
    assert len(done.out.splitlines()) > 10
