"""The report of a run: a made-up but plausible run folder in, one self-contained page out."""

import json
import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from shutil import copytree, ignore_patterns, rmtree
from subprocess import run as run_process
from xml.etree import ElementTree

import numpy as np
import pytest
import yaml
from made_up import STEPS, accuracy, made_up, write

from lra.benchmarks.records import ReportError
from lra.benchmarks.reports.report import write_report
from lra.metrics.evolution import evolution_record


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_up(tmp_path_factory.mktemp("runs") / "seed-0")


@pytest.fixture(scope="module")
def page(original: Path) -> str:
    return _page(original)


@pytest.fixture
def run(original: Path, tmp_path: Path) -> Path:
    return copytree(original, tmp_path / "seed-0", ignore=ignore_patterns("report.html"))


def _change(path: Path, **changes: object) -> None:
    write(path, json.loads(path.read_text()) | changes)


def _page(folder: Path) -> str:
    return write_report(folder).read_text(encoding="utf-8")


def _svgs(page: str) -> list[ElementTree.Element]:
    return [ElementTree.fromstring(svg) for svg in re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL)]


def _text(page: str) -> str:
    """What a reader sees: text between tags, on one line."""
    pieces: list[str] = []
    parser = HTMLParser()
    parser.handle_data = pieces.append  # type: ignore[method-assign]
    parser.feed(page)
    return " ".join(" ".join(pieces).split())


def test_page_shows_the_run_at_once(page: str) -> None:
    text = _text(page)
    for words in ("predfkd + generative + meta", "lenet5 → lenet5_half on digits", "student.lr", "3.12.3"):
        assert words in text
    for number in (
        "96.43",
        "97.12",
        "97.5",
        "3.87",
        "−3.55",
        "97.21",
        "0.9433",
        "+0.1234",
        "172,800",
        "63.2 s",
    ):
        assert number in text
    assert "best agreement at any earlier checkpoint minus agreement now (Chaudhry et al. 2018)" in text
    assert "not finished" not in text
    assert "Not drawn" not in text


def test_page_needs_nothing_but_itself(page: str) -> None:
    assert set(re.findall(r"https?://[^\s\"'<]*", page)) <= {
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/1999/xlink",
    }
    assert not re.search(r"<script|<link|@import|javascript:|url\((?!#)", page)
    assert page.count("data:image/png;base64,") >= len(STEPS[::3])
    assert "prefers-color-scheme: dark" in page
    assert len(page) < 2_000_000


def test_every_figure_is_sound_svg_with_ids_of_its_own(page: str) -> None:
    svgs = _svgs(page)
    assert len(svgs) == 10  # the evolution twice, wide and narrow
    ids = [e.get("id") for svg in svgs for e in svg.iter() if e.get("id")]
    assert len(ids) == len(set(ids))
    for svg in svgs:
        assert svg.get("viewBox")
        assert svg.get("aria-label")
        assert not svg.get("width")
        styles = " ".join(e.get("style", "") for e in svg.iter())
        assert "var(--" in styles


def test_same_folder_gives_the_same_bytes_and_leaves_no_draft(run: Path, page: str) -> None:
    assert _page(run) == page
    assert not list(run.glob(".report*"))


def test_strings_from_the_folder_stay_text(run: Path) -> None:
    evil = "<script>alert('$x')</script>\x00\ud800 & {{ 7 * 7 }}"
    _change(run / "result.json", method=evil, config_hash=evil, teacher={"name": evil, "accuracy": evil})
    _change(run / "env.json", **{evil: evil})
    (run / "config.yaml").write_text(yaml.safe_dump({"<img src=x onerror=1>": {"a": "<b>"}}))
    lines = (run / "metrics.jsonl").read_text().splitlines()
    row = json.loads(lines[-1])
    row["synthesis"][evil] = row["synthesis"]["$\\frac{"] = {"raw": 1.0, "weighted": 2.0}
    (run / "metrics.jsonl").write_text("\n".join([*lines[:-1], json.dumps(row), ""]))
    page = _page(run)
    assert "<script" not in page
    assert "<img src=x" not in page
    assert "&lt;script&gt;alert(" in page
    assert "{{ 7 * 7 }}" in page
    assert "$\\frac{" in page
    assert len(_svgs(page)) == 10


def test_half_finished_run_is_reported_from_its_metrics(run: Path) -> None:
    for name in ("result.json", "forgetting.json", "env.json", "teacher.json"):
        (run / name).unlink()
    lines = (run / "metrics.jsonl").read_text().splitlines(keepends=True)
    (run / "metrics.jsonl").write_text("".join(lines[:10]) + lines[10][:40])  # stopped while it wrote
    text = _text(_page(run))
    assert "not finished: what follows is its state after 300 student steps" in text
    assert f"{accuracy(300):.2f} %" in text
    assert "Not drawn: this run has no probe matrix" in text


def test_classes_by_their_names_those_that_lost_most_first(run: Path) -> None:
    teacher, student = [90.0 + k for k in range(10)], [90.0 + k for k in range(10)]
    student[3], student[7], student[9] = 40.0, 60.0, None
    _change(run / "result.json", by_class={"images": [36] * 9 + [0], "teacher": teacher, "student": student})
    assert "Class by class" in _page(run), "numbers do where there are no names"
    names = [f"<kind {k}>" for k in range(10)]
    write(run / "data.json", {"name": "digits", "names": names})
    page = _page(run)
    table = page[page.index("Class by class") :]
    order = [int(number) for number in re.findall(r"<th>&lt;kind (\d)&gt;</th>", table)]
    assert sorted(order) == list(range(10))
    assert order[:2] == [3, 7]
    assert "−53.0" in table
    assert page.count("&lt;kind 5&gt;") == 5, "in the figures too: classes over time, of each class, and in both axes"
    assert "<kind" not in page


@pytest.mark.parametrize(
    "by_class",
    [None, 3, {}, {"images": 3}, {"images": [1], "teacher": [], "student": [2]}, {"images": [None], "teacher": ["x"]}],
)
def test_classes_that_nobody_counted_are_no_table(run: Path, by_class: object) -> None:
    _change(run / "result.json", by_class=by_class)
    write(run / "data.json", {"names": [1, 2]})
    page = _page(run)
    assert "Class by class" not in page


@pytest.mark.parametrize("confusion", [None, {}, {"images": 3}, {"images": [[1, 2]]}, {"images": [["x"], [1]]}])
def test_an_older_run_and_a_damaged_one_have_a_report_that_says_what_it_lacks(run: Path, confusion: object) -> None:
    (run / "confusion.json").unlink()
    if confusion is not None:
        write(run / "confusion.json", confusion)
    rmtree(run / "replayed")
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    for row in rows:
        row["alpha"] = {"a": -1.0, "b": "x"}
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    text = _text(_page(run))
    assert "this run kept no counts (confusion.json)" in text
    assert "this run kept no pictures of it" in text
    assert "this run recorded no learned rates" in text


def test_losses_have_units_and_the_last_samples_are_shown_large(page: str) -> None:
    assert "student loss (mean |Δ logit|)" in page
    assert page.count('alt="the last samples"') == 1
    assert page.count('alt="replayed images at ') == len(STEPS[::3])
    assert "layer3.weight" in page


def test_without_a_test_set_agreement_is_drawn_and_said(run: Path) -> None:
    _change(run / "result.json", accuracy=None, teacher={"name": "mine", "accuracy": None})
    rows = [json.loads(line) | {"accuracy": None} for line in (run / "metrics.jsonl").read_text().splitlines()]
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    text = _text(_page(run))
    assert "There is no test set" in text
    assert "agreement with the teacher on the probes (%)" in text
    assert "test accuracy (%)" not in text
    probes = [np.mean(row["probes"]["agreement"]) for row in rows if row["probes"]["agreement"]]
    assert f"{probes[-1]:.2f} %" in text


@pytest.mark.parametrize(
    "rows",
    [
        [{}],
        [{"student_step": 10}],
        [
            {
                "student_step": None,
                "accuracy": "high",
                "losses": None,
                "synthesis": [],
                "probes": 3,
                "classes": "x",
            }
        ],
        [
            {
                "student_step": 5,
                "accuracy": float("nan"),
                "synthesis": {"a": 3, "b": {"weighted": float("inf")}},
            }
        ],
        [
            {
                "student_step": 5,
                "accuracy": 50,
                "alignment": True,
                "classes": [1, None, 3],
                "losses": {"retention": 1},
            }
        ],
        [{"student_step": 5, "accuracy": 50}, {"student_step": 5, "accuracy": 10**400, "classes": [0, 0]}],
    ],
)
def test_whatever_is_missing_or_odd_is_left_out(run: Path, rows: list[dict]) -> None:
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name in ("config.yaml", "forgetting.json"):
        (run / name).unlink()
    write(run / "result.json", {"accuracy": 3, "cost": None, "forgetting": "no", "teacher": 7, "alignment": []})
    page = _page(run)
    assert "</html>" in page
    _svgs(page)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("result.json", b'{"schema": 1,'),
        ("result.json", b"[1, 2]"),
        ("metrics.jsonl", b'{"student_step": \n{"student_step": 30}\n'),
        ("metrics.jsonl", b"3\n{}\n"),
        ("forgetting.json", b"\xff\xfe"),
        ("config.yaml", b"a: !!python/object/apply:os.system ['true']"),
        ("config.yaml", b"a: [1"),
        ("samples/step-000030.png", b"GIF89a"),
    ],
)
def test_a_damaged_file_is_named_in_one_line(run: Path, name: str, content: bytes) -> None:
    (run / name).write_bytes(content)
    with pytest.raises(ReportError) as caught:
        write_report(run)
    assert str(run / name) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (run / "report.html").exists()


def test_a_report_that_cannot_be_written_leaves_nothing_behind(run: Path) -> None:
    (run / "report.html").mkdir()
    with pytest.raises(ReportError, match=r"report\.html.*make the folder writable"):
        write_report(run)
    assert not list(run.glob(".report*"))


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ReportError, match="give the folder of a run"):
        write_report(tmp_path / "nowhere")


def test_a_yaml_file_of_aliases_does_not_grow_the_page(run: Path) -> None:
    levels = ["l0: &l0 [x, x]"] + [f"l{i}: &l{i} [{', '.join([f'*l{i - 1}'] * 9)}]" for i in range(1, 30)]
    (run / "config.yaml").write_text("\n".join(levels))
    assert len(_page(run)) < 2_000_000


def test_many_sample_pictures_are_thinned_but_keep_first_and_last(run: Path) -> None:
    picture = (run / "samples" / "step-000030.png").read_bytes()
    for step in range(1000, 1200):
        (run / "samples" / f"step-{step:06}.png").write_bytes(picture)
    text = re.findall(r"<span>(step [\d,]+)</span>", _page(run).split("What the replay holds")[0])
    assert (len(text), text[0], text[-1]) == (12, "step 30", "step 1,199")


def test_a_curve_too_short_for_a_mean_and_a_variance_has_dashes_and_a_reason(run: Path) -> None:
    result = json.loads((run / "result.json").read_text())
    accuracy = evolution_record([88.0]) | {"curve": [[100, 88.0]]}
    (run / "result.json").write_text(json.dumps(result | {"accuracy": accuracy, "forgetting": {}}))
    (run / "metrics.jsonl").write_text(json.dumps({"student_step": 100, "accuracy": 88.0}) + "\n")
    page = _page(run)
    for name in ("μ", "σ²", "μ, last half", "σ², last half"):
        assert re.search(rf"<th>{name}</th><td class=\"n\">—</td>", page), name
    assert re.search(r"σ², last half</dt><dd>—.*?one evaluation: μ and σ² are of two", page, re.S)


def test_spread_uses_population_variance_and_the_last_half() -> None:
    got = evolution_record([None, 10.0, 20.0, 60.0, 70.0])
    assert got["mean"] == 40
    assert got["variance"] == 650
    assert (got["tail_mean"], got["tail_variance"], got["final"], got["max"]) == (65, 25, 70, 70)
    assert evolution_record([None]) == {}


def test_reports_need_no_torch() -> None:
    code = "import sys, lra.benchmarks.reports.report; sys.exit('torch' in sys.modules)"
    assert run_process([sys.executable, "-c", code], check=False).returncode == 0


def _not_evaluated(run: Path, **data: object) -> str:
    """The page of a run that was stopped before its first evaluation."""
    for name in ("result.json", "forgetting.json"):
        (run / name).unlink()
    (run / "metrics.jsonl").write_text("")
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["data"] = {"name": "digits"} | data
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    return _text(_page(run))


@pytest.mark.parametrize("data", [{"test": True}, {"test": False}, {}])
def test_a_run_that_was_not_evaluated_yet_says_so(run: Path, data: dict[str, object]) -> None:
    text = _not_evaluated(run, **data)
    assert "has not reached its first evaluation: nothing has been measured yet" in text
    assert "no test set" not in text
    assert "student steps." not in text, "of no state at no step"
    assert ("final agreement on probes" in text) == (data.get("test") is False)


def test_one_evaluation_is_a_state(run: Path) -> None:
    (run / "result.json").unlink()
    first = (run / "metrics.jsonl").read_text().splitlines(keepends=True)[0]
    (run / "metrics.jsonl").write_text(first)
    text = _text(_page(run))
    assert f"its state after {json.loads(first)['student_step']} student steps" in text
    assert "has not reached" not in text


def test_a_test_set_that_no_evaluation_knows_is_not_called_absent(run: Path) -> None:
    config = yaml.safe_load((run / "config.yaml").read_text())
    (run / "config.yaml").write_text(yaml.safe_dump(config | {"data": {"name": "digits", "test": True}}))
    _change(run / "result.json", accuracy=None)
    rows = [json.loads(line) | {"accuracy": None} for line in (run / "metrics.jsonl").read_text().splitlines()]
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    text = _text(_page(run))
    assert "No evaluation has an accuracy on the test set" in text
    assert "no test set" not in text


def test_a_run_that_a_plugin_stopped_says_so_before_its_numbers(run: Path) -> None:
    assert "was stopped by" not in _text(_page(run))
    cost = json.loads((run / "result.json").read_text())["cost"]
    stopped = {"by": "plugin 'mine:<b>Stops'", "of_experiences": 1200}
    _change(run / "result.json", stopped=stopped, cost=cost | {"experiences": 2})
    page = _page(run)
    text = _text(page)
    said = "This run was stopped by plugin 'mine:<b>Stops' after 2 of 1,200 experiences: what follows is"
    assert said in text
    assert text.index(said) < text.index("final accuracy")
    assert "<b>" not in page.split("<main")[-1].split("</main")[0].replace("&lt;b&gt;", "")
    for damaged in ("a stranger's", {"by": None, "of_experiences": "ten"}, [1]):
        _change(run / "result.json", stopped=damaged)
        _page(run)


def test_a_run_that_diverged_and_went_on_says_so(run: Path) -> None:
    note = {"cause": "diverged: loss <b> is inf", "to_experience": 6, "student_lr_times": 0.5}
    _change(run / "result.json", rollbacks=[note, "a stranger's"])
    page = _page(run)
    assert "This run diverged: loss <b> is inf. It went back to experience 6" in _text(page)
    assert "<b>" not in page.split("<main")[-1].split("</main")[0].replace("&lt;b&gt;", "")
