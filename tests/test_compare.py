"""Runs side by side: made-up run folders in, tables and figures out."""

import csv
import io
import json
import re
import shutil
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import yaml
from PIL import Image

from lra.benchmarks.comparison import compare as comparing
from lra.benchmarks.comparison.compare import compare
from lra.benchmarks.comparison.groups import Group
from lra.benchmarks.comparison.groups import labels as naming
from lra.benchmarks.errors import UsageError
from lra.benchmarks.reports.sweep_report import write_sweep_report
from lra.metrics.evolution import evolution_record

Bench = Callable[..., Any]
FINALS = {"none": [94, 95, 96], "memory": [95, 97, 96], "memory+meta": [96, 98, 99]}


def write_run(parent: Path, seed: int, final: float, replay: str = "none", meta: bool = False, **changed: Any) -> Path:
    """A run folder as ``lra-bench run`` leaves it, as far as a comparison reads it."""
    lr = changed.get("lr", 0.1)
    folder = parent / f"predfkd+{replay}{'+meta' if meta else ''}" / f"lr{lr}" / f"seed-{seed}"
    folder.mkdir(parents=True)
    curve = [(step, final * (1 - 2 ** (-step / 60))) for step in (60, 120, 180)] + [(240, float(final))]
    values = [value for _, value in curve]
    mean = sum(values) / 4
    accuracy = {"final": final, "max": final, "mean": mean, "tail_mean": sum(values[2:]) / 2, "curve": curve}
    accuracy |= {"variance": sum((v - mean) ** 2 for v in values) / 4, "tail_variance": 1.0}
    result = {
        "status": "finished",
        "method": "predfkd",
        "replay": replay,
        "meta": meta,
        "seed": seed,
        "dataset": changed.get("dataset", "digits"),
        "teacher": {"name": "lenet5", "sha256": changed.get("teacher", "0f" * 32), "accuracy": 99.2},
        "student": {"name": "mlp", "parameters": 5},
        "accuracy": accuracy if changed.get("tested", True) else None,
        "agreement": 96.0,
        "loyalty": 0.9,
        "forgetting": {"average": 1.5 - seed / 10, "bwt": 2.0},
        "alignment": {"mean": 0.3 if replay != "none" else None},
        "cost": {"student_steps": 240, "seconds": 7.5, "teacher_queries": 6400},
    }
    tree = {
        "method": "predfkd",
        "seed": seed,
        "device": "cpu",
        "threads": 1,
        "data": {"name": result["dataset"], "size": None},
        "teacher": {"network": "lenet5"},
        "student": {"network": "mlp", "lr": lr} | changed.get("student", {}),
        "replay": {"name": replay} | ({"slots": 10} if replay == "memory" else {}),
        "meta": {"enabled": meta, "alpha": 0.01, "alpha_ratio": None},
    }
    rows = [{"student_step": s, "accuracy": a, "forgetting": 3 - s / 100, "probes": {}} for s, a in curve]
    (folder / "result.json").write_text(json.dumps(result))
    (folder / "config.yaml").write_text(yaml.safe_dump(tree))
    steps = [step for step, _ in curve]
    agreement = [[90.0 - row + column if column <= row else None for column in range(4)] for row in range(4)]
    matrix = {"checkpoints": steps, "probes": steps, "agreement": agreement}
    (folder / "forgetting.json").write_text(json.dumps(matrix))
    (folder / "samples").mkdir()
    for step in (60, 240):
        Image.new("L", (64, 8), color=step).save(folder / "samples" / f"step-{step:06}.png")
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    for name, finals in FINALS.items():
        replay, _, meta = name.partition("+")
        for seed, final in enumerate(finals):
            write_run(tmp_path / "runs", seed, final, replay, bool(meta))
    return tmp_path / "runs"


def test_runs_that_differ_in_the_seed_alone_are_one_row(runs: Path) -> None:
    rows = compare([runs]).rows
    assert [(row.group.label, row.seeds) for row in rows] == [("none", 3), ("memory", 3), ("memory + meta", 3)]
    assert [row.estimates["accuracy"].mean for row in rows] == [95, 96, pytest.approx(293 / 3)]


def test_a_curve_of_one_evaluation_has_no_mean_and_no_variance_to_compare(tmp_path: Path) -> None:
    short = write_run(tmp_path, 0, 80.0) / "result.json"
    result = json.loads(short.read_text())
    result["accuracy"] = evolution_record([80.0]) | {"curve": [[10, 80.0]]}
    short.write_text(json.dumps(result))
    found = compare([tmp_path])
    assert {"accuracy", "max"} <= found.columns.keys()
    assert not {"mean", "variance", "tail_mean", "tail_variance"} & found.columns.keys()
    for column in ("mean", "variance", "step_mean", "step_variance"):
        with pytest.raises(UsageError, match="it needs a curve of several evaluations"):
            compare([tmp_path], column)


def test_what_the_folder_says_nothing_of_makes_no_other_row(runs: Path) -> None:
    """A run that was resumed with --on-divergence rollback, and another alpha of a meta step that is off."""
    file = runs / "predfkd+none" / "lr0.1" / "seed-1" / "config.yaml"
    tree = yaml.safe_load(file.read_text())
    file.write_text(yaml.safe_dump(tree | {"on_divergence": "rollback", "meta": {"enabled": False, "alpha": 0.03}}))
    none, *_ = compare([runs]).rows
    assert (none.group.label, none.seeds) == ("none", 3)


def test_runs_that_were_stopped_before_their_end_are_said(runs: Path, lra_bench: Bench) -> None:
    assert not any("stopped" in note for note in compare([runs]).notes)
    file = runs / "predfkd+none" / "lr0.1" / "seed-1" / "result.json"
    result = json.loads(file.read_text())
    stopped = {"by": "plugin 'mine:Stops'", "of_experiences": 10}
    file.write_text(json.dumps(result | {"stopped": stopped, "cost": result["cost"] | {"experiences": 2}}))
    said = "1 of 9 runs were stopped before their end, by plugin 'mine:Stops' after 2 of 10 experiences"
    assert compare([runs]).notes[0] == said
    assert said in lra_bench("compare", runs).out
    assert lra_bench("report", runs).code == 0
    page = (runs / "report.html").read_text()
    notice = "none, seed 1: by plugin &#39;mine:Stops&#39; after 2 of 10 experiences"
    assert -1 < page.find(notice) < page.find('<dl class="tiles">')


def test_results_of_increments_are_no_runs(runs: Path, lra_bench: Bench) -> None:
    """Both kinds lie in ``runs`` by default."""
    increment = runs / "increment-split-digits-naive" / "0f0f" / "seed-0"
    increment.mkdir(parents=True)
    (increment / "result.json").write_text(json.dumps({"accuracy_matrix": [[90.0]], "config": {"seed": 0}}))
    assert [row.seeds for row in compare([runs]).rows] == [3, 3, 3]
    assert lra_bench("report", runs).code == 0
    for command in ("compare", "report", "export", "resume"):
        done = lra_bench(command, increment)
        assert (done.code, done.err.count("\n")) == (3, 1), done
    assert "is a run of lra-bench increment" in lra_bench("report", increment).err
    assert not (increment / "report.html").exists()


def test_a_sweep_is_resumed_by_its_own_command(tmp_path: Path, lra_bench: Bench) -> None:
    for file, named in (({}, "GRID"), ({"file": "my grids/a.yaml"}, "'my grids/a.yaml'"), ({"file": "a\nb"}, "GRID")):
        (tmp_path / "sweep.json").write_text(json.dumps({"runs": [], **file}))
        done = lra_bench("resume", tmp_path)
        assert (done.code, done.err.count("\n")) == (2, 1)
        assert f"lra-bench sweep {named} --out {tmp_path}" in done.err


def test_the_meta_step_is_compared_with_its_absence_by_seed(runs: Path) -> None:
    *others, meta = compare([runs]).rows
    assert [row.against for row in others] == [None, None]
    assert meta.against == "memory"
    assert meta.differences["accuracy"].estimate.mean == pytest.approx(5 / 3)
    assert meta.differences["accuracy"].p == 2 / 8


@pytest.mark.parametrize("against", ["none", "replay=none", "replay.name=none"])
def test_a_baseline_by_label_or_setting(runs: Path, against: str) -> None:
    none, *rows = compare([runs], against=against).rows
    assert none.against is None
    assert [row.against for row in rows] == ["none", "none"]
    assert rows[0].differences["accuracy"].estimate.mean == 1


def test_a_baseline_by_setting_is_the_one_that_differs_least(tmp_path: Path) -> None:
    for lr in (0.1, 0.3):
        for meta in (False, True):
            write_run(tmp_path, 0, 90, "memory", meta, lr=lr)
    found = {row.group.label: row.against for row in compare([tmp_path], against="student.lr=0.1").rows}
    assert {label: against for label, against in found.items() if against} == {
        "no meta, student.lr=0.3": "no meta, student.lr=0.1",
        "meta, student.lr=0.3": "meta, student.lr=0.1",
    }


def test_labels_show_what_differs_and_no_more(tmp_path: Path) -> None:
    write_run(tmp_path, 0, 90, "memory", lr=0.1)
    assert [row.group.label for row in compare([tmp_path]).rows] == ["predfkd + memory"]
    write_run(tmp_path, 0, 90, "memory", lr=0.3)
    assert [row.group.label for row in compare([tmp_path]).rows] == ["student.lr=0.1", "student.lr=0.3"]
    write_run(tmp_path, 0, 90, "none", lr=0.3)
    assert [row.group.label for row in compare([tmp_path]).rows] == [
        "none",
        "memory, student.lr=0.1",
        "memory, student.lr=0.3",
    ]


def test_the_pace_of_a_grid_of_equal_seconds_goes_without_saying_but_not_unsaid(tmp_path: Path) -> None:
    for replay, lr, pace in (("none", 0.1, 20), ("memory", 0.1, 17), ("memory", 0.3, 15)):
        folder = write_run(tmp_path, 0, 90, replay, lr=lr)
        config = yaml.safe_load((folder / "config.yaml").read_text())
        schedule = config.get("schedule", {}) | {"steps_per_experience": pace}
        (folder / "config.yaml").write_text(yaml.safe_dump(config | {"schedule": schedule}))
    found = compare([tmp_path], "accuracy")
    labels = {row.group.label for row in found.rows}
    assert labels == {"none", "memory, student.lr=0.1", "memory, student.lr=0.3"}
    said = "rows differ in student steps, see --columns student_steps"
    assert said in found.notes
    assert said not in compare([tmp_path], "accuracy,student_steps").notes
    # Where nothing else tells two rows apart, it is said.
    folder = write_run(tmp_path / "more", 0, 90, "memory", lr=0.3)
    config = yaml.safe_load((folder / "config.yaml").read_text())
    schedule = config.get("schedule", {}) | {"steps_per_experience": 30}
    (folder / "config.yaml").write_text(yaml.safe_dump(config | {"schedule": schedule}))
    labels = [row.group.label for row in compare([tmp_path]).rows]
    assert sum("steps_per_experience=15" in label for label in labels) == 1
    assert sum("steps_per_experience=30" in label for label in labels) == 1


def test_the_step_is_compared_with_the_same_without_it_whatever_the_pace(tmp_path: Path) -> None:
    for meta, lr, pace in ((False, 0.1, 18), (True, 0.1, 13), (True, 0.3, 13)):
        folder = write_run(tmp_path, 0, 90, "memory", meta, lr=lr)
        config = yaml.safe_load((folder / "config.yaml").read_text())
        schedule = config.get("schedule", {}) | {"steps_per_experience": pace}
        (folder / "config.yaml").write_text(yaml.safe_dump(config | {"schedule": schedule}))
    found = {row.group.label: row.against for row in compare([tmp_path], "accuracy").rows}
    assert found == {"no meta": None, "meta, student.lr=0.1": "no meta", "meta, student.lr=0.3": None}


def test_any_setting_can_be_what_is_compared_against(tmp_path: Path) -> None:
    write_run(tmp_path / "single", 0, 90, "memory", student={"precision": "float32"})
    write_run(tmp_path / "half", 0, 91, "memory", student={"precision": "bfloat16"})
    rows = compare([tmp_path], against="student.precision=float32").rows
    found = {row.group.label: row.against for row in rows}
    assert found == {"student.precision=float32": None, "student.precision=bfloat16": "student.precision=float32"}


def test_labels_leave_out_what_nearly_all_have(tmp_path: Path) -> None:
    for lr in (0.1, 0.2, 0.3, 0.4, 0.5):
        folder = write_run(tmp_path, 0, 90, "memory", lr=lr)
    config = yaml.safe_load((folder / "config.yaml").read_text())
    (folder / "config.yaml").write_text(yaml.safe_dump(config | {"schedule": {"epochs": 5}}))
    labels = [row.group.label for row in compare([tmp_path]).rows]
    assert sorted(labels) == ["schedule.epochs=5, student.lr=0.5", *(f"student.lr=0.{i}" for i in (1, 2, 3, 4))]


def test_defaults_go_without_saying() -> None:
    memory = {"method": "predfkd", "replay.name": "memory", "student.lr": 0.1}
    prioritised = memory | {"replay.priority": 0.6}
    usual = memory | {"replay.priority": 0.0}
    ahead = {"meta.enabled": True, "meta.order": 2, "meta.every": 1}
    sparse = ahead | {"meta.every": 4}
    settings = [usual, prioritised, usual | ahead, usual | sparse, prioritised | ahead]
    settings = [{"replay.name": "none"}, *settings]
    assert naming([Group({"method": "predfkd", "meta.enabled": False} | one, {}) for one in settings]) == [
        "none",
        "memory",
        "memory, replay.priority=0.6",
        "memory + meta",
        "memory + meta, meta.every=4",
        "memory + meta, replay.priority=0.6",
    ]
    # Not even where nearly all have another value.
    rates = [
        memory | {"student.lr": lr, "replay.priority": 0.0 if lr == 0.5 else 0.6} for lr in (0.1, 0.2, 0.3, 0.4, 0.5)
    ]
    assert naming([Group(one, {}) for one in rates]) == [
        *(f"student.lr={lr}, replay.priority=0.6" for lr in (0.1, 0.2, 0.3, 0.4)),
        "student.lr=0.5",
    ]
    # Of increments, each strategy has its own.
    steps = [("abd", 10_000), ("abd", 500), ("generative", 1000), ("generative", 500)]
    assert naming([Group({"strategy": name, "generator_steps": n}, {}) for name, n in steps]) == [
        "abd",
        "abd, generator_steps=500",
        "generative",
        "generative, generator_steps=500",
    ]


def test_a_second_replay_is_part_of_the_name() -> None:
    rest = {"method": "predfkd", "meta.enabled": False}
    groups = [
        Group(rest | {"replay.name": "memory"}, {}),
        Group(rest | {"replay.name": "ema", "plugin.use": []}, {}),
        Group(rest | {"replay.name": "ema", "plugin.use": ["memory", "mine:Own"], "plugin.fraction": 0.125}, {}),
    ]
    assert naming(groups) == ["memory", "ema", "ema + memory + Own"]


def test_a_run_found_twice_counts_once(runs: Path) -> None:
    assert [row.seeds for row in compare([runs, next(runs.iterdir()), runs / "."]).rows] == [3, 3, 3]


def test_by_step_weighs_uneven_evaluations(tmp_path: Path) -> None:
    folder = write_run(tmp_path, 0, 96)

    def found() -> dict[str, float]:
        (row,) = compare([tmp_path], "mean,step_mean,variance,step_variance").rows
        return {name: estimate.mean for name, estimate in row.estimates.items()}

    even = found()
    assert (even["step_mean"], even["step_variance"]) == pytest.approx((even["mean"], even["variance"]))
    result = json.loads((folder / "result.json").read_text())
    result["accuracy"]["curve"] = [[100, 50.0], [400, 90.0]]
    (folder / "result.json").write_text(json.dumps(result))
    uneven = found()
    assert (uneven["step_mean"], uneven["step_variance"]) == pytest.approx((80, 300)), "1 of 4 at 50, 3 of 4 at 90"


def test_table_on_the_command_line(runs: Path, lra_bench: Bench) -> None:
    done = lra_bench("compare", runs)
    assert done.code == 0
    head, none, *_ = done.out.splitlines()
    assert head.split()[:4] == ["seeds", "accuracy,", "final", "(%)"]
    assert none.startswith("none")
    assert "95.00 [92.52, 97.48]" in none
    assert "* 3 of 9 runs have no alignment: it needs a replay" in done.out
    assert max(map(len, done.out.splitlines())) <= 120


def test_a_column_for_each_value_of_a_setting(runs: Path, tmp_path: Path, lra_bench: Bench) -> None:
    for seed, final in enumerate(FINALS["none"]):
        write_run(runs / "other", seed, final - 10, student={"network": "lenet5"})
    done = lra_bench("compare", runs, "--across", "replay", "--columns", "accuracy,max", "--format", "md")
    last, largest = done.out.split("**max (%)**")
    table = [[cell.strip() for cell in line.strip("|").split("|")] for line in last.splitlines() if line[:1] == "|"]
    assert table[0] == ["", "none", "memory"], "as replays are listed"
    found = {row[0]: [cell.partition(" ")[0] for cell in row[1:]] for row in table[2:]}
    assert found == {
        "no meta, student lenet5": ["85.00", ""],
        "no meta, student mlp": ["95.00", "96.00"],
        "meta, student mlp": ["", "97.67"],
    }
    assert largest.count("96.00 [") == 1
    assert "p is from" not in done.out
    page = tmp_path / "page.md"
    lra_bench("compare", runs, "--across", "meta", "--write", page)
    assert "| memory" in page.read_text()
    assert "--across meta" in page.read_text()


def test_what_a_setting_decides_goes_with_it(tmp_path: Path, lra_bench: Bench) -> None:
    for replay, teacher, lr in (("none", "aa", 0.1), ("memory", "bb", 0.2)):
        write_run(tmp_path, 0, 90, replay, teacher=teacher * 32, lr=lr)
    said = lra_bench("compare", tmp_path, "--across", "replay", "--columns", "accuracy", "--allow-different").out
    assert re.search(r"none +memory\n +90.00 +90.00", said)


def test_all_combinations_of_two_settings_have_their_place(tmp_path: Path, lra_bench: Bench) -> None:
    for n, (lr, momentum) in enumerate(product((0.1, 0.02), (0.5, 0.9))):
        write_run(tmp_path / str(n), 0, 90 + n, student={"lr": lr, "momentum": momentum})
    said = lra_bench("compare", tmp_path, "--across", "student.lr", "--columns", "accuracy").out
    assert re.search(r"0.02 +0.1\n.*momentum=0.5 +92.00 +90.00\n.*momentum=0.9 +93.00 +91.00", said)


def test_no_configuration_takes_the_place_of_another(tmp_path: Path, lra_bench: Bench) -> None:
    write_run(tmp_path, 0, 90)
    write_run(tmp_path / "older", 0, 91, "memory")
    config = write_run(tmp_path / "newer", 0, 95, "memory") / "config.yaml"
    config.write_text(config.read_text().replace("  slots: 10", "  slots: 10\n  priority: 0.0"))
    done = lra_bench("compare", tmp_path, "--across", "replay")
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert "have the same place" in done.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("replay", "--format", "csv"), "--across makes tables to read, table, md, latex"),
        (("replay", "--against", "replay=none"), "--across shows no differences"),
        (("method",), "is predfkd in all of them"),
        (("student.momentun",), "is in none of them"),
    ],
)
def test_a_table_that_cannot_be_made_is_one_line(
    runs: Path, lra_bench: Bench, arguments: tuple[str, ...], words: str
) -> None:
    done = lra_bench("compare", runs, "--across", *arguments)
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert words in done.err


def test_markdown_latex_csv_json(runs: Path, lra_bench: Bench) -> None:
    columns = ("--columns", "accuracy,forgetting")
    table = lra_bench("compare", runs, *columns, "--format", "md").out.splitlines()
    assert {line.count("|") for line in table[:5]} == {table[0].count("|")}
    latex = lra_bench("compare", runs, *columns, "--format", "latex").out
    assert r"accuracy, final (\%)" in latex
    rows = list(csv.DictReader(io.StringIO(lra_bench("compare", runs, *columns, "--format", "csv").out)))
    assert [float(row["mean"]) for row in rows if row["column"] == "accuracy"][:2] == [95, 96]
    found = json.loads(lra_bench("compare", runs, *columns, "--format", "json").out)
    assert found["rows"][4]["p"] == 0.25
    tested = [row["p"] for row in found["rows"] if row["column"] == found["rows"][4]["column"] and row["p"] is not None]
    assert found["rows"][4]["p_holm"] == min(1.0, 0.25 * len(tested))
    assert found["rows"][4]["seeds"] == [0, 1, 2]


@pytest.mark.parametrize("draw", ["ranking", "cost"])
def test_figures_of_the_ranking_and_of_the_cost(runs: Path, tmp_path: Path, lra_bench: Bench, draw: str) -> None:
    file = tmp_path / "figure.svg"
    done = lra_bench("compare", runs, "--columns", "accuracy,seconds", "--figure", file, "--draw", draw)
    assert (done.code, ElementTree.parse(file).getroot().tag.rpartition("}")[2]) == (0, "svg")
    alone = lra_bench("compare", runs, "--columns", "accuracy", "--figure", file, "--draw", draw)
    said = "" if draw == "ranking" else "--draw cost: a cost must be among --columns"
    assert (alone.code, said in alone.err) == (2 if said else 0, True)


@pytest.mark.parametrize("suffix", ["svg", "png"])
def test_figure(runs: Path, tmp_path: Path, lra_bench: Bench, suffix: str) -> None:
    file = tmp_path / f"figure.{suffix}"
    assert lra_bench("compare", runs, "--figure", file).code == 0
    if suffix == "png":
        with Image.open(file) as image:
            assert image.size[0] > 1500
    else:
        svg = ElementTree.parse(file).getroot()
        assert svg.tag == "{http://www.w3.org/2000/svg}svg"
        text = " ".join(svg.itertext())
        assert all(word in text for word in ("memory + meta 97.7", "teacher 99.2", "forgetting of probes", "prefers-"))


def test_runs_without_a_test_set_compare_by_what_they_have(tmp_path: Path, lra_bench: Bench) -> None:
    write_run(tmp_path, 0, 90, tested=False)
    done = lra_bench("compare", tmp_path)
    assert done.code == 0
    assert "no run has accuracy: it needs a test set" in done.out
    asked = lra_bench("compare", tmp_path, "--columns", "accuracy")
    assert (asked.code, asked.err) == (2, "lra-bench: none of 1 runs has a value for 'accuracy': it needs a test set\n")


@pytest.mark.parametrize("changed", [{"teacher": "ab" * 32}, {"dataset": "fashion"}])
def test_different_teachers_or_data_are_refused(
    runs: Path, tmp_path: Path, lra_bench: Bench, changed: dict[str, str]
) -> None:
    other = write_run(tmp_path / "other", 0, 90, "memory", **changed)
    done = lra_bench("compare", runs, other)
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
    assert "--allow-different" in done.err
    assert lra_bench("compare", runs, other, "--allow-different").code == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--columns", "acuracy"), "did you mean 'accuracy'"),
        (("--columns", ","), "empty"),
        (("--against", "memry"), "there are: 'none', 'memory', 'memory + meta'"),
        (("--against", "replay=pool"), "replay.name is memory, none"),
        (("--against", "replai=pool"), "in no configuration"),
        (("--figure", "figure.gif"), ".svg or .png"),
    ],
)
def test_wrong_options_are_one_line(runs: Path, lra_bench: Bench, arguments: tuple[str, str], words: str) -> None:
    done = lra_bench("compare", runs, *arguments)
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert words in done.err


def test_no_runs_are_missing_input(tmp_path: Path, lra_bench: Bench) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    for place in (empty, tmp_path / "nowhere"):
        done = lra_bench("compare", place)
        assert (done.code, done.err.count("\n")) == (3, 1)


def test_unfinished_runs_are_left_out(runs: Path, lra_bench: Bench) -> None:
    (next(runs.rglob("seed-0")) / "result.json").unlink()
    assert "left out: 1 unfinished run\n" in lra_bench("compare", runs).out
    for file in runs.rglob("result.json"):
        file.unlink()
    done = lra_bench("compare", runs)
    assert (done.code, done.err.count("\n")) == (3, 1)


def test_a_damaged_result_is_named(runs: Path, lra_bench: Bench) -> None:
    file = next(runs.rglob("result.json"))
    file.write_text("{")
    done = lra_bench("compare", runs)
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert str(file) in done.err


def test_a_sweep_compares_the_runs_it_lists(runs: Path) -> None:
    listed = [{"folder": str(folder.relative_to(runs))} for folder in sorted(runs.rglob("seed-1"))]
    (runs / "sweep.json").write_text(json.dumps({"runs": [*listed, {"folder": "never/started"}]}))
    assert [row.seeds for row in compare([runs]).rows] == [1, 1, 1]


def test_report_of_many_runs(runs: Path, lra_bench: Bench) -> None:
    swept = [{"folder": str(f.relative_to(runs)), "status": "done"} for f in sorted(runs.rglob("seed-*"))]
    failed = {"folder": "", "label": "replay=<b>pool</b>", "status": "failed", "reason": "no <i>room</i>"}
    (runs / "sweep.json").write_text(json.dumps({"grid": {"replay": ["none"]}, "runs": [*swept, failed]}))
    done = lra_bench("report", runs)
    assert (done.code, done.out) == (0, f"{runs / 'report.html'}\n")
    page = (runs / "report.html").read_text()
    svgs = [ElementTree.fromstring(svg) for svg in re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL)]
    # Curves wide and narrow, ranking, mean against variance, and three maps; all runs cost the same.
    assert len(svgs) == 2 + 2 + 3
    ids = [element.get("id") for svg in svgs for element in svg.iter() if element.get("id")]
    assert len(ids) == len(set(ids))
    assert page.count('alt="samples of ') == 3 * 2
    assert "Failed runs (1):" in page
    assert "&lt;b&gt;pool&lt;/b&gt;: no &lt;i&gt;room&lt;/i&gt;" in page
    assert set(re.findall(r"https?://[^\s\"'<]*", page)) <= {
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/1999/xlink",
    }
    assert not re.search(r"<script|<link|@import|url\((?!#)", page)


def test_report_draws_costs_that_differ_and_many_configurations(tmp_path: Path) -> None:
    for index in range(9):
        folder = write_run(tmp_path, 0, 90 + index, lr=0.1 + index)
        result = json.loads((folder / "result.json").read_text())
        result["cost"] |= {"seconds": 7.0 * 2**index, "teacher_queries": 100 * (index + 1)}
        (folder / "result.json").write_text(json.dumps(result))
    page = write_sweep_report(tmp_path).read_text()
    assert page.count("<svg") == 2 * 2 + 4 + 9
    assert "Accuracy at a cost in time" in page


def test_report_without_a_test_set(tmp_path: Path) -> None:
    write_run(tmp_path, 0, 90, tested=False)
    page = write_sweep_report(tmp_path).read_text()
    assert "By forgetting (points)" in page


def test_published_numbers_stand_beside_ours(runs: Path, monkeypatch: pytest.MonkeyPatch, lra_bench: Bench) -> None:
    entry = {"method": "lra-mb", "teacher": "LeNet5", "student": "MLP", "dataset": "digits", "source": "a paper"}
    monkeypatch.setattr(comparing, "printed", lambda: [entry | {"value": 97.25}])
    done = lra_bench("compare", runs, "--columns", "accuracy", "--format", "md")
    head, _, none, _, meta, *_ = done.out.splitlines()
    assert head.startswith("|  | seeds | paper | accuracy")
    assert head.endswith("| hours |")
    assert meta.startswith("| memory + meta | 3 | 97.25 | 97.67")
    assert none.startswith("| none | 3 |  |")


def test_a_page_says_how_to_repeat_it(runs: Path, tmp_path: Path, lra_bench: Bench) -> None:
    folders = sorted(file.parent for file in runs.rglob("result.json"))
    for folder in folders:
        (folder / "env.json").write_text(json.dumps({"cuda": None, "threads": 1, "versions": {"torch": "2.0"}}))
    record = {
        "file": "grids/seeds.yaml",
        "grid": {"seed": [0, 1, 2]},
        "runs": [{"folder": str(f.relative_to(runs))} for f in folders],
    }
    (runs / "sweep.json").write_text(json.dumps(record))
    lra_bench("compare", runs, "--columns", "accuracy", "--write", tmp_path / "page.md")
    written = (tmp_path / "page.md").read_text()
    assert written.startswith(f"# page\n\n```\nlra-bench sweep grids/seeds.yaml --out {runs}\nlra-bench ")
    assert "```yaml\nseed: [0, 1, 2]\n```" in written
    assert "9 runs, CPU, torch threads: 1, torch 2.0." in written
    assert "| memory + meta | 3 | 97.67" in written


def test_runs_of_the_old_layout_without_config_still_compare(runs: Path) -> None:
    shutil.copytree(runs, runs.parent / "bare", ignore=shutil.ignore_patterns("config.yaml"))
    assert len(compare([runs.parent / "bare"]).rows) == 3
