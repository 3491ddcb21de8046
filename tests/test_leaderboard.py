"""The leaderboard: rows say what their commands resolve to and what their pages say; sweeps become rows."""

import csv
import importlib
import shlex
import shutil
import subprocess
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from lra.benchmarks.commands.run import increment, run
from lra.benchmarks.comparison.estimates import deviation, estimate, foreseen
from lra.benchmarks.errors import UsageError
from lra.benchmarks.increment.configuration import configuration as increments
from lra.benchmarks.leaderboard.board import FOLDER, Row, board, read, verdict, write
from lra.benchmarks.leaderboard.cells import cell_of, command_of, complaints, configuration_of, facts, names
from lra.benchmarks.setup.resolution import configuration
from lra.benchmarks.sweeps.grid import plan
from lra.benchmarks.text import number_text

ROOT = Path(__file__).parents[1]
FILES = sorted(FOLDER.glob("*.csv"))

PLAIN = "lra-bench run --method dafl --replay none"

ROW = Row(
    name="dafl+none",
    source="here",
    version="0",
    seeds=(0, 1, 2),
    mean=95.0,
    sd=1.0,
    low=92.52,
    high=97.48,
    command=PLAIN,
    **facts(configuration_of(PLAIN)),
)


def test_there_are_rows_of_all_that_fits() -> None:
    rows = board()
    assert len(rows) > 200
    assert {row.meta for row in rows.values()} == {True, False}
    assert {"digits", "mnist", "split-digits"} <= {row.dataset for row in rows.values()}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_rows_command_resolves_to_the_configuration_that_it_states(file: Path) -> None:
    rows = read(file)
    assert not list(complaints(rows)), "if no result changed: lra-bench leaderboard check --restate"
    for name, row in rows.items():
        _, kind, *words = shlex.split(row.command)
        assert _typed(kind, words).provisional == row.hash, f"{name}: as it is typed"


def _typed(kind: str, words: list[str]) -> Any:
    """The configuration of a command as the command itself resolves it."""
    given = {"run": run, "increment": increment}[kind].make_context(kind, words).params
    if kind == "run":
        beside = ("out", "as_json", "dry_run", "no_timing", "tensorboard", "wandb")
        return configuration(**{name: value for name, value in given.items() if name not in beside})
    flags = {name: given[name] for name in ("benchmark", "strategy", "experiences", "steps", "seed", "model")}
    return increments(flags, given["assignments"], given["meta"])


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_numbers_from_a_page_stand_there(file: Path) -> None:
    """On the page as it was at the commit that the row names: pages are measured anew."""
    for name, row in read(file).items():
        if row.source.endswith(".md"):
            page = _page(row.version, row.source)
            if not page:
                pytest.skip("git does not know that far back here")
            cells = [row.interval] + ([] if row.sd is None else [number_text(row.sd, row.measured.digits)])
            lines = (line for line in page.splitlines() if all(f"| {cell} |" in line for cell in cells))
            assert any(lines), f"{name}: no {' and '.join(cells)} on {row.source} at {row.version}"


@cache
def _page(commit: str, file: str) -> str:
    """A file at a commit; empty where git does not have it."""
    return subprocess.run(["git", "-C", ROOT, "show", f"{commit}:{file}"], capture_output=True, text=True).stdout


CONFIGURATIONS = [
    {"method": "fast", "replay": "pool", "meta": True, "dataset": "cifar10", "steps": 50},
    {"preset": "lra-gr/cifar100/resnet34-resnet18", "set": ("student.lr=0.05",)},
    {"preset": "mb-dfkd/digits", "teacher": "resnet8"},
    {"dataset": "mnist", "set": ("scale=published", "data.size=[32, 28]", "data.channels=3", "student.ema=0.99")},
    {"set": ("compute.precision=bfloat16", "evaluation.every=null", "teacher.weight_decay=1e-5", "plugin.use=[]")},
    {"replay": "avalanche:ewc", "set": ("plugin.ewc_lambda=0.4",)},
    {"method": "gdfq", "student": "lenet5", "set": ("quantization.weight_bits=3", "teacher.seed=4")},
]


@pytest.mark.parametrize("given", CONFIGURATIONS, ids=str)
def test_a_configuration_has_a_command(given: dict[str, Any]) -> None:
    config = configuration(**given, seed=3)
    command = command_of(config)
    found = configuration_of(command)
    assert found.provisional == config.provisional, command
    assert _typed("run", shlex.split(command)[2:]).provisional == config.provisional, command
    assert found.seed == 0
    (again,) = plan({"seed": 3} | _grid(command))
    assert again.config.provisional == config.provisional


def _grid(command: str) -> dict[str, Any]:
    from lra.benchmarks.leaderboard.cells import grid_of

    row = ROW.model_copy(update={"command": command, "hash": configuration_of(command).provisional})
    return {key: value for key, value in grid_of(row, [0]).items() if key != "seed"}


@pytest.mark.parametrize("given", [{"strategy": "rgal"}, {"benchmark": "split-mnist", "steps": 7, "model": "mlp"}])
def test_increments_have_commands_too(given: dict[str, Any]) -> None:
    for meta in (None, True):
        config = increments(given, ("bn=0", "align_steps=300"), meta)
        assert configuration_of(command_of(config)).provisional == config.provisional


def test_what_only_its_user_has_is_no_cell(tmp_path: Path) -> None:
    np.savez(tmp_path / "own.npz", images=np.zeros((20, 28, 28), np.uint8), labels=np.arange(20) % 10)
    config = configuration(dataset=f"npz:{tmp_path / 'own.npz'}", set=("data.test=false",))
    with pytest.raises(UsageError, match=r"data\.name: it is your own"):
        facts(config)


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("rm -r /", "it is not lra-bench run or increment"),
        ("lra-bench export runs", "it is not lra-bench run or increment"),
        ("lra-bench run 'unclosed", "it is not lra-bench run or increment"),
        ("lra-bench run --methd dafl", "unknown option '--methd'; did you mean 'method'?"),
        ("lra-bench run --seed 3", "unknown option '--seed'"),
        ("lra-bench run --config own.yaml", "unknown option '--config'"),
        ("lra-bench run --method", "--method '': a value is expected"),
        ("lra-bench run --set student.lr", "--set 'student.lr': a value is expected"),
        ("lra-bench run --set student.lr=[", "--set 'student.lr=[': "),
    ],
)
def test_a_command_that_is_none_of_a_row(command: str, words: str) -> None:
    with pytest.raises(UsageError) as refused:
        cell_of(command)
    assert words in str(refused.value)


def test_names_say_what_sets_a_cell_apart() -> None:
    commands = [
        "lra-bench run --method dafl --replay none --set student.lr=0.2",
        "lra-bench run --method dafl --replay memory --meta --set student.lr=0.2 --set meta.alpha_rate=0.0",
        "lra-bench run --method dafl --replay memory --meta --set student.lr=0.2",
    ]
    told = [facts(configuration_of(command)) | {"command": command} for command in commands]
    assert names(told) == ["dafl+none", "dafl+memory+meta,meta.alpha_rate=0.0", "dafl+memory+meta"]


def test_the_interval_is_where_the_mean_of_other_seeds_lies_in_95_of_100_cases() -> None:
    draws = np.random.default_rng(0)
    for n, k in ((2, 1), (3, 3), (5, 2), (10, 20)):
        known, new = draws.normal(90, 2, (20_000, n)), draws.normal(90, 2, (20_000, k))
        halves = foreseen(n, 1.0, k) * known.std(1, ddof=1)
        assert np.mean(np.abs(known.mean(1) - new.mean(1)) <= halves) == pytest.approx(0.95, abs=0.006)
    assert foreseen(3, 2.0, 3) == pytest.approx(stats.t.ppf(0.975, 2) * 2 * np.sqrt(2 / 3))


def test_a_deviation_is_told_by_its_interval() -> None:
    for n in (2, 3, 4):
        found = estimate(list(np.random.default_rng(n).normal(0, 3, n)))
        assert deviation(n, found.low or 0.0, found.high or 0.0) == pytest.approx(found.sd)
    for n in (5, 10, 20):
        told = [estimate(list(np.random.default_rng(seed).normal(0, 3, n))) for seed in range(8)]
        ratios = [deviation(n, one.low or 0.0, one.high or 0.0) / (one.sd or 0.0) for one in told]
        assert np.mean(ratios) == pytest.approx(1, abs=0.1), "of a bootstrap nearly"


def test_verdicts() -> None:
    half = foreseen(3, ROW.sd or 0.0, 2)
    near, far = (verdict(ROW, [95 + share * half - 0.1, 95 + share * half + 0.1], 360) for share in (0.9, 1.1))
    assert near.agrees is True
    assert far.agrees is False
    assert (near.low, near.high) == (pytest.approx(95 - half), pytest.approx(95 + half))
    assert verdict(ROW.model_copy(update={"mean": 99.0}), [95.0], 360).high == 100.0, "no accuracy is above 100 %"
    assert str(near).startswith("agrees: ")
    assert str(far).startswith("differs: ")
    wild = verdict(ROW, [80.0, 20.0, 60.0], 360)
    assert wild.agrees is False, "scatter of its own does not help"


def test_seeds_that_are_equal_by_chance_ask_for_no_equality() -> None:
    equal = ROW.model_copy(update={"sd": 0.0, "low": 95.0, "high": 95.0})
    assert verdict(equal, [95 + 100 / 360] * 3, 360).agrees is True, "one image"
    assert verdict(equal, [95 + 200 / 360] * 3, 360).agrees is False, "two of them, on both sides without scatter"
    assert verdict(equal, [93.0, 94.0, 95.0], 360).high == pytest.approx(95 + foreseen(3, 1.0, 3)), (
        "the others' scatter"
    )


def test_without_a_deviation_the_interval_tells_it() -> None:
    bare = ROW.model_copy(update={"sd": None})
    assert verdict(bare, [96.0, 97.0], 360).high == pytest.approx(verdict(ROW, [96.0, 97.0], 360).high, abs=0.01)


def test_one_seed_says_nothing_of_others() -> None:
    one = ROW.model_copy(update={"seeds": (0,), "sd": None, "low": None, "high": None})
    assert verdict(one, [95.0], 360).agrees is True
    assert verdict(one, [91.0], 360).agrees is None
    assert "undecided" in str(verdict(one, [91.0], 360))
    assert verdict(one, [94.0, 96.0, 95.5], 360).agrees is True, "it is held against several"
    assert verdict(one, [80.0, 80.5, 81.0], 360).agrees is False


def test_more_seeds_are_the_next_ones() -> None:
    assert ROW.first(2) == [0, 1]
    assert ROW.model_copy(update={"seeds": (4, 2)}).first(4) == [4, 2, 5, 6]


def test_the_site_has_every_row(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("latex2mathml", reason="the extra docs is not installed")
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    address, page = importlib.import_module("generate.pages").leaderboard_page()
    assert address == "results/leaderboard.md"
    for name, row in board().items():
        assert any(f"| `{name}` |" in line and f" {row.interval} |" in line for line in page.splitlines()), name


def test_a_file_is_read_as_it_was_written(tmp_path: Path) -> None:
    for file in FILES:
        copy = tmp_path / file.name
        write(copy, read(file).values())
        assert copy.read_text() == file.read_text()


COLUMNS = list(Row.model_fields)

WRONG: list[tuple[Callable[[list[list[str]]], Any], str]] = [
    (lambda rows: rows[0].__setitem__(10, "meen"), "unknown column 'meen'; did you mean 'mean'?"),
    (lambda rows: [row.pop(11) for row in rows], "column 'sd' is missing"),
    (lambda rows: [row.append(row[0]) for row in rows], "column 'name' appears twice"),
    (lambda rows: rows[1].append("more"), "line 2: it has more cells than the 20 columns"),
    (lambda rows: rows[1].pop(), "line 2: it has fewer cells than the 20 columns"),
    (lambda rows: rows[1].__setitem__(0, ""), "line 2: name is empty"),
    (lambda rows: rows[1].__setitem__(0, "a b"), "line 2: name = 'a b'"),
    (lambda rows: rows[1].__setitem__(10, "101"), "line 2: mean = '101': input should be less than or equal to 100"),
    (lambda rows: rows[1].__setitem__(10, "nan"), "line 2: mean = 'nan'"),
    (lambda rows: rows[1].__setitem__(10, "much"), "line 2: mean = 'much'"),
    (lambda rows: rows[1].__setitem__(10, "90"), "line 2: mean = 90.0: it is not in the interval from 92.52 to 97.48"),
    (lambda rows: rows[1].__setitem__(11, "-1"), "line 2: sd = '-1'"),
    (lambda rows: rows[1].__setitem__(12, ""), "line 2: low, high: an interval of several seeds"),
    (lambda rows: rows[1].__setitem__(9, "0 1 1"), "line 2: seeds: each once"),
    (lambda rows: rows[1].__setitem__(9, "0 one"), "line 2: seeds.1 = 'one'"),
    (
        lambda rows: rows[1].__setitem__(8, "accurcy"),
        "line 2: quantity 'accurcy' is not in percent; did you mean 'accuracy'?",
    ),
    (lambda rows: rows[1].__setitem__(7, "0"), "line 2: steps = '0'"),
    (lambda rows: rows[1].__setitem__(3, "perhaps"), "line 2: meta = 'perhaps'"),
    (lambda rows: rows[1].__setitem__(18, "xyz"), "line 2: hash = 'xyz'"),
    (lambda rows: rows.append(rows[1]), "line 3: row 'dafl+none' appears twice"),
    (lambda rows: rows.append(["other", *rows[1][1:]]), "line 3: 'other' is the cell of 'dafl+none' again"),
    (lambda rows: rows[1].__setitem__(19, "lra-bench run --methd dafl"), "board/dafl+none: command: unknown option"),
    (lambda rows: rows[1].__setitem__(19, "lra-bench run --method dfal"), "board/dafl+none: unknown method 'dfal'"),
]


@pytest.mark.parametrize(("spoil", "words"), WRONG, ids=[words for _, words in WRONG])
def test_a_wrong_file_is_refused_in_a_line(
    spoil: Callable[[list[list[str]]], Any], words: str, lra_bench: Callable[..., Any], tmp_path: Path
) -> None:
    file = tmp_path / "board.csv"
    write(file, [ROW])
    assert lra_bench("leaderboard", "check", file).code == 0
    rows = list(csv.reader(file.open()))
    spoil(rows)
    with file.open("w") as out:
        csv.writer(out).writerows(rows)
    done = lra_bench("leaderboard", "check", file)
    assert (done.code, done.out) == (2, "")
    assert words in done.err
    assert len(done.err.splitlines()) == 1, done.err


def test_what_is_no_table_is_refused_in_a_line(lra_bench: Callable[..., Any], tmp_path: Path) -> None:
    for content in (b"\xff\xfe\x00", b'name,"unclosed', b"", b"PK\x03\x04"):
        (tmp_path / "board.csv").write_bytes(content)
        done = lra_bench("leaderboard", "check", tmp_path / "board.csv")
        assert done.code == 2
        assert len(done.err.splitlines()) == 1, done.err
    assert lra_bench("leaderboard", "check", tmp_path / "none.csv").code == 3


def test_a_row_whose_options_were_added_to_is_restated(lra_bench: Callable[..., Any], tmp_path: Path) -> None:
    file = tmp_path / "board.csv"
    write(file, [ROW.model_copy(update={"hash": "00000000", "steps": 800})])
    done = lra_bench("leaderboard", "check", file)
    assert done.code == 2
    assert f"board/dafl+none: hash is '00000000', and its command resolves to '{ROW.hash}'" in done.err
    assert "steps is 800, and its command resolves to 900" in done.err
    refused = lra_bench("reproduce", "board/dafl+none", "--board", file)
    assert refused.code == 2
    assert f"row board/dafl+none: its command resolves to {ROW.hash} and the row says 00000000" in refused.err
    assert lra_bench("leaderboard", "check", "--restate", file).code == 0
    assert read(file) == {"board/dafl+none": ROW}


def test_a_row_that_cannot_be_measured_here_is_refused_in_a_line(
    lra_bench: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LRA_DATA", str(tmp_path / "data"))
    for name, code, words in (
        ("digits/predfkd+memry", 2, "unknown row 'digits/predfkd+memry'; did you mean 'digits/predfkd+memory'?"),
        ("nothing", 2, "unknown row 'nothing'; see lra-bench list leaderboard"),
        ("methods-mnist/dafl+none", 3, "row methods-mnist/dafl+none: data set mnist is not in"),
        ("digits/predfkd+memory --device cudda", 2, "device = 'cudda' cannot be used"),
    ):
        done = lra_bench("reproduce", *name.split())
        assert done.code == code, done
        assert words in done.err
        assert len(done.err.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished sweep of two cells with two seeds each."""
    from lra.benchmarks.commands.sweep import done
    from lra.benchmarks.runs.runner import run as do
    from lra.benchmarks.sweeps.engines import LocalEngine

    out = tmp_path_factory.mktemp("sweep") / "small"
    settings = {"data.size": 8, "teacher.epochs": 3, "schedule.batch_size": 16, "schedule.steps_per_experience": 2}
    settings |= {"evaluation.probe_size": 16, "evaluation.samples": 0}
    grid = {"teacher": "mlp", "student": "mlp", "steps": 8, "seed": [0, 1], "replay": ["none", "memory"]}
    tree = grid | {"set": settings}
    for planned in plan(tree):  # In this process: others take long to start.
        do(planned.config, out, quiet=True)
    done(tree, plan(tree), out, LocalEngine(1, []), False, Path("small.yaml"))
    return out


def test_a_sweep_becomes_rows_and_they_become_the_sweep_again(
    swept: Path, lra_bench: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = lra_bench("leaderboard", "add", swept)
    assert done.code == 2
    assert "no folder benchmarks/leaderboard here" in done.err
    (tmp_path / "benchmarks" / "leaderboard").mkdir(parents=True)
    done = lra_bench("leaderboard", "add", swept)
    assert done.code == 0, done.err
    file = Path("benchmarks/leaderboard/small.csv")
    assert done.out == f"{file}: 2 rows; propose it as a change of the repository\n"
    first = file.read_text()
    assert lra_bench("leaderboard", "add", swept).code == 0
    assert file.read_text() == first, "written anew, the same"
    assert lra_bench("leaderboard", "check", file).code == 0
    rows = read(file)
    assert list(rows) == ["small/predfkd+none", "small/predfkd+memory"]
    row = rows["small/predfkd+memory"]
    assert (row.seeds, row.steps, row.source, row.student) == ((0, 1), 8, "small.yaml", "mlp")
    assert row.seconds is not None
    assert "CPU, torch threads: 1" in row.hardware
    # In the folder of a sweep all its runs are finished.
    copy = shutil.copytree(swept, tmp_path / "again")
    again = lra_bench("reproduce", "small/predfkd+memory", "--board", file, "--out", copy)
    assert again.code == 0, again.err
    assert "2: 2 finished before" in again.out
    assert f"verdict     agrees: {row.mean:.2f} is in" in again.out
    listed = lra_bench("reproduce", "small/predfkd+memory", "--board", file, "--seeds", 3, "--dry-run", "--no-timing")
    assert listed.out.splitlines()[-1] == "3 runs, 3 to do"


def test_a_row_that_is_not_so_is_not_reproduced(swept: Path, lra_bench: Callable[..., Any], tmp_path: Path) -> None:
    file = tmp_path / "small.csv"
    assert lra_bench("leaderboard", "add", swept, "--to", file).code == 0
    row = read(file)["small/predfkd+none"]
    write(file, [row.model_copy(update={"mean": 99.0, "low": 98.9, "high": 99.1, "sd": 0.1, "seeds": (0, 1, 2, 3, 4)})])
    copy = shutil.copytree(swept, tmp_path / "again")
    done = lra_bench("reproduce", "small/predfkd+none", "--board", file, "--out", copy, "--seeds", 2, "--json")
    assert done.code == 1
    assert "row small/predfkd+none is not reproduced" in done.err
    assert '"agrees": false' in done.out


def test_what_cannot_be_a_row_is_refused_in_a_line(
    swept: Path, lra_bench: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for arguments, code, words in (
        ([tmp_path / "none", "--to", "rows.csv"], 3, "does not exist"),
        ([swept, "--to", "rows.txt"], 2, "a file of the leaderboard ends in .csv"),
        ([swept, "--to", "rows.csv", "--quantity", "acuracy"], 2, "did you mean 'accuracy'?"),
        ([swept, "--to", "rows.csv", "--quantity", "average_mean"], 2, "have no average_mean"),
        ([swept, "--to", "rows.csv", "--quantity", "seconds"], 2, "quantity 'seconds' is not in percent"),
    ):
        done = lra_bench("leaderboard", "add", *arguments)
        assert (done.code, done.out) == (code, ""), done
        assert words in done.err
        assert len(done.err.splitlines()) == 1, done.err
    (result,) = swept.glob("*none*/*/seed-0/result.json")
    kept = result.read_text()
    result.unlink()
    try:
        done = lra_bench("leaderboard", "add", swept, "--to", "rows.csv")
    finally:
        result.write_text(kept)
    assert done.code == 2
    assert "1 of 4 runs" in done.err
    assert not Path("rows.csv").exists()
