"""The tutorial is a notebook that runs as it stands, and its page in the documentation shows it."""

import importlib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
NOTEBOOK = ROOT / "examples" / "tutorial.ipynb"


def test_the_tutorial_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for needed in ("nbclient", "ipykernel"):
        pytest.importorskip(needed, reason=f"a notebook needs {needed}, of the extra dev: pip install '.[dev]'")
    nbformat, nbclient = importlib.import_module("nbformat"), importlib.import_module("nbclient")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    (tmp_path / "desk").mkdir()
    notebook: Any = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    shown = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    assert shown, "it is kept with what it gives, which GitHub and the site show"
    assert not [output for output in shown if output.get("name") == "stderr"]
    # Quickly: fewer steps than are shown.
    steps = [cell for cell in notebook.cells if "STEPS = " in cell.source]
    assert len(steps) == 1
    steps[0].source = steps[0].source.replace("STEPS = 1200", "STEPS = 120")
    nbclient.NotebookClient(
        notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(tmp_path / "desk")}}
    ).execute()
    table = notebook.cells[-2].outputs[-1].data["text/markdown"]
    assert [line.split("|")[1].split(",")[0].strip() for line in table.splitlines()[2:5]] == [
        "none + DoubtReplay",
        "none",
        "reservoir",
    ]
    assert len(list((tmp_path / "desk" / "runs").rglob("report.html"))) == 3


def test_its_page_shows_what_was_run_and_what_it_gave(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("latex2mathml", reason="the extra docs is not installed")
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    page = importlib.import_module("generate.notebook").page(NOTEBOOK)
    assert page.startswith("# Tutorial")
    assert "~~~~python\n%%writefile nets.py\n" in page
    assert "~~~~text\nteacher " in page
    assert "](data:image/png;base64," in page
    assert "\n| reservoir |" in page
