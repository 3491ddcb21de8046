"""A made-up but plausible run folder, for tests of what is read from one."""

import json
from pathlib import Path

import numpy as np
import yaml
from PIL import Image

from lra.metrics.evolution import evolution_record

STEPS = list(range(30, 901, 30))
BIRTHS = list(range(60, 901, 120))


def accuracy(step: float) -> float:
    return 96.6 - 84 * np.exp(-step / 110) + 1.2 * np.sin(step / 37) * np.exp(-step / 500)


def memory(step: int, birth: int) -> float | None:
    if step < birth:
        return None
    return float(99.5 - 6 * (1 - np.exp(-(step - birth) / 260)) + 1.1 * np.sin(step / 50 + birth))


def _row(i: int, step: int, rng: np.random.Generator) -> dict:
    acquisition = 0.9 * np.exp(-step / 300) + 0.12 + 0.02 * rng.normal()
    terms = {
        "one_hot": (1.0, 0.5),
        "balance": (-2.25, 5.0),
        "batch_norm": (9.0, 1.0),
        "adversarial": (-0.6, 1.0),
    }
    raw = {name: value * np.exp(-step / 500) * (1 + 0.08 * rng.normal()) for name, (value, _) in terms.items()}
    births = [b for b in BIRTHS if b <= step]
    return {
        "evaluation": i,
        "experience": step,
        "student_step": step,
        "epoch": 1 + i // 3,
        "accuracy": accuracy(step),
        "agreement": accuracy(step) + 0.8,
        "alignment": 0.45 * np.exp(-step / 400) + 0.06 * rng.normal(),
        "losses": {
            "acquisition": acquisition,
            "retention": 0.6 * acquisition,
            "acquisition_before": 1.2 * acquisition,
            "acquisition_after": 0.9 * acquisition,
        },
        "synthesis": {k: {"raw": v, "weighted": v * terms[k][1]} for k, v in raw.items()},
        "probes": {"birth": births, "agreement": [memory(step, b) for b in births]},
        "forgetting": 4.1 * (1 - np.exp(-step / 350)) + 0.3 * rng.random() if i else None,
        "alpha": {f"network.layer{k}.weight": 0.01 * 2 ** (k * np.sin(step / 300)) for k in range(4)},
        "classes": rng.multinomial(640, rng.dirichlet(np.full(10, 4 + step / 40))).tolist(),
    }


def pictures(folder: Path, rng: np.random.Generator) -> None:
    """Strips of strokes that come out of noise."""
    folder.mkdir()
    y, x = np.mgrid[0:16, 0:16]
    for step in STEPS[::3]:
        tiles = []
        for digit in range(12):
            stroke = np.exp(-((np.hypot(x - 7.5, y - 7.5) - 2 - digit % 5) ** 2) / 3) * (x > digit % 3 * 4)
            tiles.append(np.clip(stroke + rng.normal(0, 90 / step, (16, 16)), 0, 1))
        strip = np.pad(np.array(tiles), ((0, 0), (1, 1), (1, 1)))
        Image.fromarray((255 * np.hstack(list(strip))).astype(np.uint8)).save(folder / f"step-{step:06}.png")


def _result() -> dict:
    curve = [[s, accuracy(s)] for s in STEPS]
    return {
        "schema": 1,
        "status": "finished",
        "method": "predfkd",
        "replay": "generative",
        "meta": True,
        "seed": 0,
        "dataset": "digits",
        "teacher": {"name": "lenet5", "sha256": "0f" * 32, "accuracy": 97.5},
        "student": {"name": "lenet5_half", "parameters": 15738},
        "accuracy": {**evolution_record([a for _, a in curve]), "final": 96.43, "max": 97.12, "curve": curve},
        "by_class": {"images": [36] * 10, "teacher": [97.5] * 10, "student": [97.5 - k for k in range(10)]},
        "agreement": 97.21,
        "loyalty": 0.9433,
        "loyalty_reference": 0.9781,
        "forgetting": {"average": 3.87, "bwt": -3.55, "maximum": 6.02, "matrix_file": "forgetting.json"},
        "alignment": {"mean": 0.1234, "tail_mean": 0.0567, "count": 30},
        "cost": {
            "student_steps": 900,
            "experiences": 900,
            "generator_steps": 900,
            "images_generated": 172_800,
            "teacher_queries": 115_200,
            "seconds": 63.18,
            "peakmemory_mb": 412.0,
        },
        "config_hash": "9c0ffee1",
        "versions": {"lra": "0.1.0", "torch": "2.12.0"},
    }


def made_up(folder: Path) -> Path:
    """Write a plausible run into a new folder; returns it."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    rows = [_row(i, step, rng) for i, step in enumerate(STEPS)]
    matrix = [[memory(c, b) for b in BIRTHS] for c in STEPS]
    config = {
        "method": "predfkd",
        "replay": "generative",
        "student": {"name": "lenet5_half", "lr": 0.05, "loss": {"kind": "l1"}},
    }
    environment = {"python": "3.12.3", "platform": "Linux", "versions": {"torch": "2.12.0"}}
    write(folder / "result.json", _result())
    write(folder / "forgetting.json", {"checkpoints": STEPS, "probes": BIRTHS, "agreement": matrix})
    write(folder / "confusion.json", {"images": (np.eye(10, dtype=int) * 33 + rng.multinomial(3, [0.1] * 10)).tolist()})
    write(folder / "env.json", environment)
    write(folder / "teacher.json", {"name": "lenet5", "sha256": "0f" * 32, "accuracy": 97.5})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    pictures(folder / "samples", rng)
    pictures(folder / "replayed", rng)
    return folder


def write(path: Path, value: object) -> None:
    """Write JSON."""
    path.write_text(json.dumps(value))
