"""The settings that a method has for digits, as ``lra-bench run --method M`` takes them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from lra.strategies.methods import METHODS

STUDY = Path(__file__).parent.parent / "benchmarks" / "studies" / "methods-digits.yaml"
STUDIED = yaml.safe_load(STUDY.read_text())["method"]


@pytest.mark.slow
@pytest.mark.parametrize("method", STUDIED)
def test_they_teach_a_student_with_the_replay_of_the_paper(
    method: str, tmp_path: Path, lra_bench: Callable[..., Any]
) -> None:
    done = lra_bench("run", "--method", method, "--replay", METHODS[method].memory, "--out", tmp_path, "--json")
    result = json.loads(done.out)
    assert result["cost"]["student_steps"] == 900
    assert result["accuracy"]["final"] > 90
