"""Every example runs as it is printed, in a folder of its own."""

import runpy
from pathlib import Path
from unittest.mock import patch

import pytest

from lra.strategies.methods import METHODS

EXAMPLES = sorted((Path(__file__).parents[1] / "examples").glob("*.py"))


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_it_runs(example: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    # A method that an example adds is not for other tests.
    with patch.dict(METHODS):
        runpy.run_path(str(example), run_name="__main__")
