"""Quick settings of every method and replay: runs of about a second that use all the state they have.

The tests build theirs from these too. A new method needs none of its own, unless a part of it would stand still.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from lra.benchmarks.setup.config import RunConfig, Tree
from lra.benchmarks.setup.resolution import resolve
from lra.strategies.methods import METHODS
from lra.strategies.retention import REPLAYS

SIZES = {"width": 8, "images": 20, "warmup": 2, "bank": 64, "negatives": 64, "life": 3, "renew_first_at": 4}
"""Sizes for any method that has such an option; buffers wrap around, and a generator's life ends, within the run."""
EXTRA: dict[str, dict[str, Any]] = {
    "predfkd": {"phase": 1.0, "phase_length": 2},
    "aeahl-rg": {"hard_loss": True, "aea": {"width": 4, "probability": 0.1}},
    "zskd": {"restart": False},
    "cudfkd": {"adversarial": 0.1, "adversarial_slope": 0.1, "age_rate": 0.1},
    "adadfkd": {"adversarial": 0.1, "adversarial_slope": 0.1, "age_rate": 0.1},
}
"""What makes parts of a method move that otherwise stand still in so short a run."""
REPLAY: dict[str, dict[str, Any]] = {
    "memory": {"slots": 3, "period": 1},
    "reservoir": {"capacity": 24},
    "generative": {"latent": 10, "width": 8},
    # BatchNorm has nothing to normalise in a single new image.
    "pool": {"least": 2},
}


def quick(method: str, replay: str, meta: bool) -> Tree:
    """Settings of twelve experiences of two student steps, an evaluation every second one.

    Args:
        method: how samples are made.
        replay: what is seen again.
        meta: whether to take the LRA step.
    """
    fields = METHODS[method].Options.model_fields
    synthesis = {name: value for name, value in SIZES.items() if name in fields} | EXTRA.get(method, {})
    if "images" in fields:
        synthesis["steps"] = 3
    return {
        "method": method,
        "threads": 1,
        "teacher": {"network": "lenet5-half-bn", "epochs": 3},
        "student": {"network": "lenet5-half-bn", "lr": 0.02},
        "replay": {"name": replay, **REPLAY.get(replay, {})},
        "meta": meta,
        "synthesis": synthesis,
        "schedule": {"batch_size": 16, "steps_per_experience": 2, "experiences_per_epoch": 2, "steps": 24},
        "evaluation": {"probe_size": 16, "samples": 0},
    }


def small(method: str, replay: str, meta: bool, **more: Any) -> RunConfig:
    """A run with the settings of `quick`, and more of them section by section."""
    return resolve([quick(method, replay, meta), more])


def every(methods: Sequence[str] = (), replays: Sequence[str] = ()) -> Iterator[tuple[str, str, bool]]:
    """All combinations that make sense, of all methods and replays or some: nothing to retain, no meta step."""
    for method in methods or METHODS:
        for replay in replays or REPLAYS:
            for meta in (False, True) if replay != "none" else (False,):
                yield method, replay, meta
