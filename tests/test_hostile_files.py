"""Files that a stranger made to harm: each is refused in one line, and what it wanted to do has not been done."""

import hashlib
import io
import json
import os
import pickle
import re
import shutil
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from lra.benchmarks.files import CHECKPOINT_SCHEMA, HEADER, write_checkpoint
from lra.benchmarks.runs.runner import run as run_
from lra.benchmarks.setup.resolution import configuration
from lra.networks import build

Write = Callable[[Path], object]


class Gadget:
    """Makes a folder when a careless reader loads it."""

    def __init__(self, canary: Path):
        self.canary = canary

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.canary),)


@pytest.fixture
def canary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What must not appear; the working folder is one below it."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "canary"


def weights() -> dict[str, torch.Tensor]:
    return build("mlp", 10, (1, 8, 8)).state_dict()


def swollen(path: Path, members: dict[str, bytes], claimed: int) -> None:
    """An archive whose members say that they unpack to ``claimed`` bytes each."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
            archive.filelist[-1].file_size = claimed


def unreadable(path: Path, members: dict[str, bytes], claimed: int) -> None:
    """The same, of a version of the format that Python refuses to look into and torch does not mind."""
    swollen(path, members, claimed)
    path.write_bytes(re.sub(rb"(?<=PK\x01\x02..)\x14", b"\x63", path.read_bytes(), flags=re.DOTALL))


def array(shape: str) -> bytes:
    """An .npy file of some zeros that says it has another shape."""
    header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() + bytes(640)


def arrays_file(path: Path, **members: bytes) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name.replace("_up_", "../") + ".npy", content)


def npy(values: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, values, allow_pickle=True)
    return file.getvalue()


def safetensors_header(size: int, text: bytes = b"{}") -> bytes:
    return struct.pack("<Q", size) + text


LABELS = npy(np.arange(10))
TEACHERS: dict[str, tuple[str, Callable[[Path, Path], object]]] = {
    "a gadget in a checkpoint": ("t.pt", lambda file, canary: torch.save({"weight": Gadget(canary)}, file)),
    "a gadget in a bare pickle": ("t.pkl", lambda file, canary: file.write_bytes(pickle.dumps(Gadget(canary)))),
    "a gadget named safetensors": ("t.safetensors", lambda file, canary: torch.save(Gadget(canary), file)),
    "a gadget in the old format": (
        "t.pth",
        lambda file, canary: torch.save([Gadget(canary)], file, _use_new_zipfile_serialization=False),
    ),
    "an oversized header": ("t.safetensors", lambda file, _: file.write_bytes(safetensors_header(2**62))),
    "a header longer than the file": ("t.safetensors", lambda file, _: file.write_bytes(safetensors_header(2**20))),
    "offsets beyond the file": (
        "t.safetensors",
        lambda file, _: file.write_bytes(
            safetensors_header(62, b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,99999999]}}'.ljust(62))
        ),
    ),
    "integers for weights": (
        "t.safetensors",
        lambda file, _: save_file({name: value.to(torch.int32) for name, value in weights().items()}, file),
    ),
    "sparse weights": (
        "t.pt",
        lambda file, _: torch.save({name: value.to_sparse() for name, value in weights().items()}, file),
    ),
    "weights of no substance": (
        "t.pt",
        lambda file, _: torch.save({name: value.to("meta") for name, value in weights().items()}, file),
    ),
    "NaN among the weights": (
        "t.pt",
        lambda file, _: torch.save({name: value * float("nan") for name, value in weights().items()}, file),
    ),
    "one number posing as a terabyte": (
        "t.pt",
        lambda file, _: torch.save({name: torch.zeros(1).expand(10**6, 10**6) for name in weights()}, file),
    ),
    "names that climb": (
        "t.safetensors",
        lambda file, canary: save_file({f"../../{canary.name}": torch.zeros(2)}, file),
    ),
    "a network that climbs": (
        "t.safetensors",
        lambda file, canary: save_file(weights(), file, {"lra-teacher-2": json.dumps({"network": f"../{canary}"})}),
    ),
    "a bomb of another version": (
        "t.pt",
        lambda file, _: unreadable(file, {"archive/data.pkl": b"", "archive/data/0": b"0"}, 2**40),
    ),
    "a bomb": ("t.pt", lambda file, _: swollen(file, {"archive/data.pkl": b"", "archive/data/0": b"0"}, 2**40)),
}


@pytest.mark.parametrize("name", TEACHERS)
def test_a_teacher(lra_bench: Callable[..., Any], tiny: list[str], canary: Path, name: str) -> None:
    file, write = TEACHERS[name]
    write(Path(file), canary)
    given = ["--set", "data.size=8", "--set", "teacher.network=mlp"]
    normalised = ["--set", "teacher.mean=[0.3]", "--set", "teacher.std=[0.4]"]
    refused(lra_bench("run", "--out", "../runs", *tiny, "--teacher", file, *given, *normalised), canary)
    assert not Path("../runs").exists()


DATA: dict[str, Write] = {
    "objects": lambda file: arrays_file(file, images=npy(np.array([Gadget(file.parent / "canary")])), labels=LABELS),
    "a bomb": lambda file: swollen(file, {"images.npy": array("(10, 8, 8)"), "labels.npy": LABELS}, 2**40),
    "an array that claims a petabyte": lambda file: arrays_file(
        file, images=array("(10, 10000, 10**10)"), labels=LABELS
    ),
    "an array larger than memory": lambda file: arrays_file(file, images=array(f"({2**50},)"), labels=LABELS),
    "floats for bytes": lambda file: arrays_file(file, images=npy(np.full((10, 8, 8), np.nan)), labels=LABELS),
    "names that climb": lambda file: arrays_file(file, _up_canary=LABELS),
}


@pytest.mark.parametrize("name", DATA)
def test_a_data_set(lra_bench: Callable[..., Any], canary: Path, name: str) -> None:
    DATA[name](Path("d.npz").absolute())
    refused(lra_bench("run", "--dataset", "npz:d.npz", "--teacher", "mlp", "--student", "mlp"), canary)
    assert {path.name for path in Path().iterdir()} == {"d.npz"}


@pytest.mark.parametrize("part", ["generator", "replay"])
def test_what_an_earlier_run_left(lra_bench: Callable[..., Any], tiny: list[str], canary: Path, part: str) -> None:
    torch.save({"replay": "memory", "image": (1, 8, 8), "state": Gadget(canary)}, "gadget")
    given = ["--replay", "memory", "--set", f"carry.{part}=gadget"]
    refused(lra_bench("run", "--out", "../runs", *tiny, *given), canary)


@pytest.mark.parametrize("folder", ["../elsewhere", "/etc", 3, None])
def test_a_sweep_that_names_runs_elsewhere(lra_bench: Callable[..., Any], canary: Path, folder: object) -> None:
    Path("sweep").mkdir()
    Path("sweep/sweep.json").write_text(json.dumps({"schema": 1, "grid": {}, "runs": [{"folder": folder}]}))
    refused(lra_bench("compare", "sweep"), canary)


def test_a_bomb_for_a_replay(lra_bench: Callable[..., Any], tiny: list[str], canary: Path) -> None:
    swollen(Path("replay.pt"), {"archive/data.pkl": b"", "archive/data/0": b"0"}, 2**40)
    done = lra_bench("run", *tiny, "--replay", "memory", "--set", "carry.replay=replay.pt")
    refused(done, canary)
    assert "which is refused" in done.err


TASK = {"name": "a", "status": "done", "folder": "a", "reason": ""}
CHAIN = {"reuse": "anew", "seed": 0, "tasks": [TASK]}


@pytest.mark.parametrize("command", [("report",), ("resume",), ("analyse", "convergence")], ids=" ".join)
@pytest.mark.parametrize(
    "text",
    [
        *("[" * 100_000, "3", "{}", '{"file": {}, "chains": 3}', '{"file": {}, "chains": [3]}'),
        json.dumps({"file": 3, "chains": [CHAIN]}),
        *(json.dumps({"file": {}, "chains": [{k: v for k, v in CHAIN.items() if k != name}]}) for name in CHAIN),
        *(
            json.dumps({"file": {}, "chains": [CHAIN | {"tasks": [TASK | wrong]}]})
            for wrong in ({"folder": "../elsewhere"}, {"folder": "/etc"}, {"folder": 3}, {"name": ["a"]}, {"status": 3})
        ),
    ],
    ids=lambda text: text[:100],
)
def test_a_record_of_tasks(lra_bench: Callable[..., Any], canary: Path, text: str, command: tuple[str, ...]) -> None:
    Path("tasks").mkdir()
    Path("tasks/tasks.json").write_text(text)
    done = lra_bench(*command, "tasks")
    refused(done, canary)
    assert "tasks.json is damaged" in done.err


@pytest.mark.parametrize("text", ["[" * 100_000, "3", '"<script>"', "{", "\0"])
@pytest.mark.parametrize("file", ["result.json", "metrics.jsonl", "config.yaml", "forgetting.json", "confusion.json"])
def test_other_files_of_a_run(lra_bench: Callable[..., Any], stopped: Path, canary: Path, file: str, text: str) -> None:
    (stopped / "result.json").write_text("{}")
    (stopped / file).write_text(text)
    done = lra_bench("report", stopped)
    assert done.code in (0, 2, 3), done
    assert len(done.err.splitlines()) == (done.code > 0)
    assert "<script>" not in "".join(page.read_text() for page in stopped.glob("report.html"))
    if file in ("result.json", "config.yaml"):
        refused(lra_bench("resume", stopped), canary)


BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{new}: &{new} [{','.join([f'*{old}'] * 9)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)
TEXTS = {
    "a tag that runs": "student: !!python/object/apply:os.mkdir [../canary]",
    "a tag that imports": "student: !!python/module:antigravity",
    "a new object": "student: !!python/object/new:os.system ['mkdir ../canary']",
    "aliases that multiply": BOMB + "student: *i",
    "aliases in a grid": BOMB + "seed: *i",
    "an alias of itself": "student: &a {lr: *a}",
    "a deep pit": "student: " + "[" * 20_000,
    "a month too many": "seed: 2024-13-45",
}


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize("command", [("run", "--config"), ("sweep",)], ids=["run", "sweep"])
def test_yaml(lra_bench: Callable[..., Any], canary: Path, command: tuple[str, ...], name: str) -> None:
    Path("bad.yaml").write_text(TEXTS[name])
    refused(lra_bench(*command, "bad.yaml"), canary)
    if command[0] == "run":
        refused(lra_bench("run", "--set", TEXTS[name].splitlines()[-1].replace(": ", "=", 1)), canary)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny: list[str]) -> Path:
    """A run, to be made hostile."""
    given = tuple(part for part in tiny if "=" in part)
    config = configuration(teacher="mlp", student="mlp", steps=8, replay="memory", set=given)
    return run_(config, tmp_path_factory.mktemp("finished") / "runs", quiet=True).path


@pytest.fixture
def stopped(finished: Path, canary: Path) -> Path:
    """A copy of it, as if it had been stopped."""
    shutil.copytree(finished.parents[2], "../runs")
    folder = Path("../runs", *finished.parts[-3:]).resolve()
    (folder / "result.json").unlink()
    return folder


def nan_state() -> dict[str, Any]:
    return {
        "records": 0,
        "seconds": 0.0,
        "processor_seconds": 0.0,
        "rollbacks": [],
        "student": torch.full((2,), float("nan")),
    }


CHECKPOINTS: dict[str, Callable[[Path, Path], object]] = {
    "a gadget under a right checksum": lambda file, canary: write_checkpoint(file, {"student": Gadget(canary)}),
    "a gadget without one": lambda file, canary: torch.save({"student": Gadget(canary)}, file),
    "no state": lambda file, _: write_checkpoint(file, [1, 2]),  # type: ignore[arg-type]
    "strings for numbers": lambda file, _: write_checkpoint(file, {"records": "x" * 10, "seconds": "never"}),
    "records that were never written": lambda file, _: write_checkpoint(file, nan_state() | {"records": 10**9}),
    "weights of another shape": lambda file, _: write_checkpoint(file, nan_state()),
    "a folder": lambda file, _: file.mkdir(),
}


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_a_checkpoint(lra_bench: Callable[..., Any], stopped: Path, canary: Path, name: str) -> None:
    CHECKPOINTS[name](stopped / "checkpoint.pt", canary)
    before = (stopped / "config.yaml").read_bytes()
    refused(lra_bench("resume", stopped), canary)
    assert (stopped / "config.yaml").read_bytes() == before
    assert not (stopped / "result.json").exists()


def test_a_bomb_for_a_checkpoint(lra_bench: Callable[..., Any], stopped: Path, canary: Path) -> None:
    file = stopped / "checkpoint.pt"
    swollen(file, {"archive/data.pkl": b"", "archive/data/0": b"0"}, 2**40)
    data = file.read_bytes()
    file.write_bytes(HEADER + b"%d\n" % CHECKPOINT_SCHEMA + hashlib.sha256(data).digest() + data)
    done = lra_bench("resume", stopped)
    refused(done, canary)
    assert "which is refused" in done.err


@pytest.mark.parametrize("name", ["log.txt", "metrics.jsonl", "samples", ".lock", "checkpoint.pt"])
def test_a_link_out_of_a_run_folder(lra_bench: Callable[..., Any], stopped: Path, canary: Path, name: str) -> None:
    place = stopped / name
    if place.is_dir():
        shutil.rmtree(place)
    place.unlink(missing_ok=True)
    place.symlink_to(canary)
    refused(lra_bench("resume", stopped), canary)


def test_a_name_that_is_html_stays_text(lra_bench: Callable[..., Any], finished: Path, tmp_path: Path) -> None:
    sweep = tmp_path / "<script>alert(1)<"  # and a slash cannot be in a name
    shutil.copytree(finished.parents[2], sweep)
    done = lra_bench("report", sweep)
    assert done.code == 0, done
    page = Path(done.out.strip()).read_text()
    assert "alert(1)" in page
    assert "<script>alert(1)" not in page


def test_the_gadget_is_live(canary: Path) -> None:
    pickle.loads(pickle.dumps(Gadget(canary)))
    assert canary.exists()


def refused(done: Any, canary: Path) -> None:
    assert done.code in (2, 3), done
    assert len(done.err.splitlines()) == 1, done.err
    assert done.err.startswith("lra-bench: ")
    assert done.out == ""
    assert not canary.exists()
