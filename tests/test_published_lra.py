"""The evidence about the released LRA code says what its page says."""

import importlib
import re
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"


def test_the_published_meta_term_reaches_no_weight_and_ours_does(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    module = importlib.import_module("published_lra")
    module.main()
    printed = [re.split(r"\s{2,}", line.strip()) for line in capsys.readouterr().out.splitlines()]
    reached, distances = [dict(line for line in printed[a:b] if len(line) == 2) for a, b in ((0, 3), (3, 8))]
    assert reached == {
        "as released": "0 of 6, in each of 10 steps",
        "copy_initial_weights=False": "6 of 6, in each of 10 steps",
    }
    assert distances["as released"] == distances["lra, objective=reference_detached"] == "0"
    assert float(distances["copy_initial_weights=False"]) > 1e-3
    assert float(distances["lra, objective=paper"]) > 1e-3
    assert float(printed[-1][1]) < 1e-6
