"""Pages as a browser shows them: light, dark, on a phone and printed, nothing is missing, cut, overlapping or pale.

All of them are measured in one browser, each in frames of a page of its own. The frames are as wide as what they stand
for, and their style sheets are told that it is dark, or printed.
"""

import html
import json
import re
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from made_up import made_up, write
from test_compare import write_run

from lra.benchmarks.reports.curves import Series
from lra.benchmarks.reports.drawing import NARROW
from lra.benchmarks.reports.report import filled, write_report
from lra.benchmarks.reports.sweep_report import write_sweep_report
from lra.benchmarks.tasks.task_report import task_panels

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
MODES: dict[str, tuple[int, Callable[[str], str]]] = {
    "light": (1200, lambda page: page),
    "dark": (1200, lambda page: page.replace("(prefers-color-scheme: dark)", "(min-width: 0)")),
    "phone": (390, lambda page: page),
    "dark phone": (390, lambda page: page.replace("(prefers-color-scheme: dark)", "(min-width: 0)")),
    "print": (720, lambda page: page.replace("@media screen", "@media speech").replace("@media print", "@media all")),
}
"""How wide, in pixels, and what becomes of a page; 720 is A4 within a printer's margins."""

MEASURE = """
const problems = [];
const about = text => JSON.stringify(text.textContent.trim().slice(0, 60));
const rgb = value => (value.match(/[0-9.]+/g) || [0, 0, 0]).slice(0, 3).map(Number);
const linear = c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
const luminance = value =>
  rgb(value).reduce((sum, c, i) => sum + linear(c / 255) * [0.2126, 0.7152, 0.0722][i], 0.05);
const contrast = (a, b) => Math.max(luminance(a) / luminance(b), luminance(b) / luminance(a));
const seen = element => element.getClientRects().length > 0 && element.getBoundingClientRect().width > 0;

function measure(document, name) {
  const view = document.defaultView, wide = document.documentElement.clientWidth;
  const say = words => problems.push(name + ": " + words);
  const page = view.getComputedStyle(document.body).backgroundColor;
  if (document.documentElement.scrollWidth > wide) say("the page is wider than its window");
  const drawn = [];
  for (const svg of document.querySelectorAll("svg")) {
    if (!seen(svg)) continue;
    const box = svg.getBoundingClientRect(), own = svg.getAttribute("aria-label");
    drawn.push(own);
    if (box.width < 150 || box.height < 60) say(own + " is too small to see");
    if (box.left < -1 || box.right > wide + 1) say(own + " is cut by the page");
    const texts = [...svg.querySelectorAll("text")].filter(text => text.textContent.trim());
    const boxes = texts.map(text => text.getBoundingClientRect());
    texts.forEach((text, i) => {
      const b = boxes[i], fill = view.getComputedStyle(text).fill;
      if (b.left < box.left - 2 || b.right > box.right + 2 || b.top < box.top - 2 || b.bottom > box.bottom + 2)
        say(own + ": " + about(text) + " is cut");
      // What stands on a mark of its own has the colour of the page, or black or white.
      const onMark = ["rgb(0, 0, 0)", "rgb(255, 255, 255)", "rgb(255, 255, 254)", page].includes(fill);
      const size = parseFloat(view.getComputedStyle(text).fontSize) * svg.getScreenCTM().a;
      if (size < 6) say(own + ": " + about(text) + " is too small to read");
      if (!onMark && contrast(fill, page) < 4.5) say(own + ": " + about(text) + " is pale");
      for (let j = 0; j < i; j++) {
        const o = boxes[j], deep = Math.min(b.bottom, o.bottom) - Math.max(b.top, o.top);
        // Boxes are as high as a line of the font, which is more than its letters are.
        if (Math.min(b.right, o.right) - Math.max(b.left, o.left) > 2 && deep > 0.35 * Math.min(b.height, o.height))
          say(own + ": " + about(text) + " and " + about(texts[j]) + " overlap");
      }
    });
  }
  for (const figure of document.querySelectorAll("figure")) {
    if (![...figure.querySelectorAll("svg, img, p")].some(seen)) say(about(figure) + " shows nothing");
  }
  for (const image of document.querySelectorAll("img")) {
    if (!image.complete || !image.naturalWidth) say(image.alt + " is missing");
  }
  for (const table of document.querySelectorAll("table")) {
    const around = table.closest(".scroll"), right = table.getBoundingClientRect().right;
    const hint = around && view.getComputedStyle(around).backgroundImage.includes("gradient");
    if (right > wide + 1 && !hint) say(about(table) + " is cut, and nothing says so");
    if (around && name.includes("print") && around.scrollWidth > around.clientWidth + 1) say(about(table) + " is cut");
  }
  for (const text of document.querySelectorAll("h1, h2, h3, p, dt, dd, figcaption, th, td")) {
    const style = view.getComputedStyle(text), under = text.closest(".notice");
    const behind = under ? view.getComputedStyle(under).backgroundColor : page;
    if (seen(text) && contrast(style.color, behind) < 4.5) say(about(text) + " is pale");
  }
  return drawn;
}
window.onload = () => {
  const drawn = {};
  for (const frame of document.querySelectorAll("iframe"))
    drawn[frame.title] = measure(frame.contentDocument, frame.title);
  document.getElementById("found").textContent = JSON.stringify({problems, drawn});
};
"""


def browser() -> str:
    """The browser of this machine; the test is skipped where there is none."""
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    return found or pytest.skip(f"no browser to look with: none of {', '.join(BROWSERS)} is installed")


def run_browser(folder: Path, *arguments: str) -> str:
    own = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", f"--user-data-dir={folder / 'profile'}"]
    done = subprocess.run([browser(), *own, *arguments], capture_output=True, text=True, timeout=120, check=False)
    assert "CONSOLE" not in done.stderr, done.stderr
    return done.stdout


def measured(folder: Path, pages: dict[str, str]) -> dict[str, Any]:
    """What a browser finds wrong with pages, and which figures it shows, by page and mode."""
    frames = []
    for name, page in pages.items():
        # No page has a script, and its policy refuses any; the frame's policy would be that of this page too.
        page = re.sub(r"<meta http-equiv[^>]*>", "", page)
        for mode, (width, changed) in MODES.items():
            shown = html.escape(changed(page), quote=True)
            frames.append(f'<iframe title="{name}, {mode}" width="{width}" height="900" srcdoc="{shown}"></iframe>')
    outer = folder / "pages.html"
    head = '<!doctype html><meta charset="utf-8"><style>iframe { border: 0; display: block }</style>'
    outer.write_text(f'{head}{"".join(frames)}<pre id="found"></pre><script>{MEASURE}</script>', encoding="utf-8")
    dom = run_browser(folder, "--window-size=1300,1000", "--dump-dom", outer.as_uri())
    found = re.search(r'<pre id="found">(.*?)</pre>', dom, flags=re.DOTALL)
    assert found, "the browser came to no end"
    return dict(json.loads(html.unescape(found[1])))


def increments(folder: Path) -> Path:
    """A made-up run of increments."""
    folder.mkdir(parents=True)
    rows = [[98.0 - 3 * (done - e) for e in range(done + 1)] for done in range(5)]
    config = {"kind": "increment", "strategy": "generative", "benchmark": "split-digits", "model": "resnet8"}
    (folder / "config.yaml").write_text(yaml.safe_dump(config | {"experiences": 5, "options": {"alpha": 0.01}}))
    records = [
        {"student_step": 40 * (k + 1), "accuracy": sum(row) / len(row), "accuracies": row} for k, row in enumerate(rows)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return folder


def tasks() -> str:
    """The page of made-up tasks."""
    steps = list(range(0, 400, 20))
    curves = [
        Series(mode, steps, [90 - 80 / (1 + step / (20 + 9 * k)) for step in steps]) for k, mode in enumerate("abcd")
    ]
    content = {"digits": curves, "turned digits": curves}, "agreement with the teacher (%)", "student steps"
    figure = {"wide": task_panels(*content), "narrow": task_panels(*content, width=NARROW)}
    tables = [("", ["task", "reuse", *(f"measure {k}" for k in range(9))], [["digits", *"0123456789"]] * 4, "Means.")]
    return filled("tasks.html", name="mine", tables=tables, figures={"agreement": figure}, failed=[])


def sweep(folder: Path) -> Path:
    """A made-up sweep of ten configurations with long names and several seeds each."""
    for index in range(10):
        for seed in range(5 if index < 2 else 2):
            replay, meta = ("none", "memory", "reservoir", "generative", "pool")[index // 2], bool(index % 2)
            own = write_run(folder, seed, 96 - index / 9 + seed / 7, replay, meta, lr=0.1 + 0.0125 * index)
            result = json.loads((own / "result.json").read_text())
            result["cost"] |= {"seconds": 7.0 * 1.7**index, "teacher_queries": 6400 + index}
            write(own / "result.json", result)
    return folder


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    browser()
    folder = tmp_path_factory.mktemp("pages")
    reports = {
        "run": write_report(made_up(folder / "run" / "seed-0")),
        "increment": write_report(increments(folder / "increment" / "seed-0")),
        "sweep": write_sweep_report(sweep(folder / "sweep")),
    }
    pages = {name: file.read_text(encoding="utf-8") for name, file in reports.items()}
    return measured(folder, pages | {"tasks": tasks()}) | {"folder": folder}


@pytest.mark.parametrize("mode", MODES)
def test_no_page_has_anything_missing_cut_overlapping_or_pale(found: dict[str, Any], mode: str) -> None:
    assert [problem for problem in found["problems"] if f", {mode}:" in problem] == []


@pytest.mark.parametrize("mode", MODES)
def test_every_page_shows_all_of_its_figures(found: dict[str, Any], mode: str) -> None:
    counts = {page: len(found["drawn"][f"{page}, {mode}"]) for page in ("run", "increment", "sweep", "tasks")}
    # Of a sweep: two figures of curves, ranking, swing, two costs, ten maps. Of wide and narrow ones one is shown.
    assert counts == {"run": FIGURES, "increment": 2, "sweep": 2 + 4 + 10, "tasks": 1}
    assert len(set(found["drawn"][f"run, {mode}"])) > 4


FIGURES = 9
"""Of a run: evolution, what is remembered, alignment, rates, two of losses, classes, accuracy and answers by class."""


@pytest.mark.parametrize("page", ["run", "sweep"])
def test_pages_print(found: dict[str, Any], page: str) -> None:
    folder: Path = found["folder"]
    (report,) = (folder / page).rglob("report.html")
    run_browser(folder, f"--print-to-pdf={folder / page}.pdf", "--no-pdf-header-footer", report.as_uri())
    printed = (folder / f"{page}.pdf").read_bytes()
    assert printed.startswith(b"%PDF")
    assert 2 <= len(re.findall(rb"/Type\s*/Page\b", printed)) <= 12


def bad(*content: str, head: str = "") -> str:
    return f"<!doctype html><body style='background: #fff; color: #000'>{head}{''.join(content)}"


def svg(*texts: tuple[int, str], style: str = "width: 300px; height: 100px") -> str:
    drawn = "".join(f"<text x='{x}' y='50' style='fill: #123'>{text}</text>" for x, text in texts)
    return f"<svg aria-label='bad' viewBox='0 0 300 100' style='{style}'>{drawn}</svg>"


PROBLEMS: Sequence[tuple[str, str]] = (
    (bad(svg((20, "one"), (25, "other"))), "overlap"),
    (bad(svg((270, "a label that goes on"))), "is cut"),
    (bad(svg((20, "one"), style="width: 90px; height: 30px")), "too small"),
    (bad(svg((20, "one"), style="width: 300px; height: 100px; font-size: 3px")), "too small to read"),
    (bad(svg((20, "one"), style="width: 2000px; height: 660px")), "cut by the page"),
    (bad("<figure><h3>nothing</h3></figure>"), "shows nothing"),
    (bad("<img alt='picture' src='data:image/png;base64,AAAA'>"), "picture is missing"),
    (bad("<div style='overflow: auto'><table style='width: 3000px'><tr><td>wide</table></div>"), "nothing says so"),
    (bad("<p style='width: 3000px'>wide</p>"), "wider than its window"),
    (bad("<p style='color: #bbb'>text</p>"), "is pale"),
    (bad(svg((20, "one")).replace("#123", "#ccc")), "is pale"),
)


def test_the_net_catches_what_it_is_for(tmp_path: Path) -> None:
    good = bad(svg((20, "one"), (120, "other")), "<figure><p>Not drawn.</p></figure>")
    wrong = measured(tmp_path, {f"page {k}": page for k, (page, _) in enumerate(PROBLEMS)} | {"sound": good})[
        "problems"
    ]
    for place, (_, words) in enumerate(PROBLEMS):
        assert any(p.startswith(f"page {place}, light:") and words in p for p in wrong), (words, wrong)
    assert not [problem for problem in wrong if problem.startswith("sound")]
