"""The wheel holds the whole of lra/, strategies/ and benchmarks/, and nothing else."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = {"lra": "lra", "strategies": "lra/strategies", "benchmarks": "lra/benchmarks"}
NOT_SHIPPED = {"__pycache__", "results", "studies"}
"""Folders inside the three that are no part of the package: what was found, and the grids that were run for it."""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Names in a wheel built from a copy of the tree, so that no stale build folder can help."""
    copy = tmp_path_factory.mktemp("source")
    for name in FOLDERS:
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        if (ROOT / name).is_file():
            shutil.copy(ROOT / name, copy)
    pip = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation"]
    done = subprocess.run([*pip, "-w", copy / "out", copy], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (file,) = (copy / "out").glob("*.whl")
    return zipfile.ZipFile(file).namelist()


def shipped() -> set[str]:
    names = set()
    for folder, package in FOLDERS.items():
        for file in (ROOT / folder).rglob("*"):
            inside = file.relative_to(ROOT / folder)
            if file.is_file() and (file.suffix == ".py" or not NOT_SHIPPED & set(inside.parts)):
                names.add(f"{package}/{inside.as_posix()}")
    return names


def test_the_wheel_holds_every_file_of_the_tree(wheel: list[str]) -> None:
    assert {name for name in wheel if name.startswith("lra/")} == shipped()
    assert "lra/benchmarks/presets.yaml" in wheel
    assert "lra/py.typed" in wheel


def test_the_wheel_puts_one_name_into_site_packages(wheel: list[str]) -> None:
    assert {name.split("/")[0] for name in wheel if ".dist-info/" not in name} == {"lra"}


def test_the_wheel_offers_the_command(wheel: list[str]) -> None:
    assert any(name.endswith(".dist-info/entry_points.txt") for name in wheel)
    assert any(name.endswith("licenses/LICENSE") for name in wheel)
