"""The settings that a method has for digits, as ``lra-bench run --method M`` takes them, and the studies of all."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from lra.strategies.methods import METHODS

STUDIES = Path(__file__).parent.parent / "benchmarks" / "studies"
STEPS = {"aeahl-rg": 800, "gdfq": 200}
"""Student steps of those that do not take 900."""


@pytest.mark.parametrize("study", ["methods-digits", "methods-mnist"])
def test_a_study_of_all_methods_leaves_none_out(study: str) -> None:
    grid = yaml.safe_load((STUDIES / f"{study}.yaml").read_text())
    more_seeds = [part for part in grid.get("also", []) if "seed" in part]
    named = [part["method"] for part in (grid, *grid.get("also", [])) if part not in more_seeds]
    studied = [method for one in named for method in ([one] if isinstance(one, str) else one)]
    assert sorted(studied) == sorted(METHODS)


# The control is not there to teach.
@pytest.mark.slow
@pytest.mark.parametrize("method", [name for name in METHODS if name != "fixed"])
def test_they_teach_a_student_with_the_replay_of_the_paper(
    method: str, tmp_path: Path, lra_bench: Callable[..., Any]
) -> None:
    copy = ("--set", "quantization={}") if method == "gdfq" else ()  # Its student starts as a copy of its teacher.
    done = lra_bench("run", "--method", method, "--replay", METHODS[method].memory, *copy, "--out", tmp_path, "--json")
    result = json.loads(done.out)
    assert result["cost"]["student_steps"] == STEPS.get(method, 900)
    assert result["accuracy"]["final"] > 90
