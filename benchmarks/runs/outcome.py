"""``result.json``: what a finished run comes to."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from lra.benchmarks.records import spread
from lra.benchmarks.runs.machine import environment, peak_memory
from lra.benchmarks.runs.run_folder import SCHEMA
from lra.benchmarks.setup.experiment import Experiment
from lra.benchmarks.setup.teachers import TrainedTeacher
from lra.metrics.forgetting import Forgetting

Record = dict[str, Any]


def result(
    experiment: Experiment,
    teacher: TrainedTeacher,
    records: Sequence[Record],
    seconds: float,
    config_hash: str,
    rollbacks: Sequence[Record] = (),
) -> Record:
    """The result of an experiment that is trained, from it, the records of its evaluations and its rollbacks."""
    config, last = experiment.config, records[-1]
    forgetting = experiment.forgetting.matrix.summary()
    parameters = sum(parameter.numel() for parameter in experiment.strategy.model.parameters())
    return {
        "schema": SCHEMA,
        "status": "finished",
        "method": config.method,
        "replay": config.replay["name"],
        "meta": config.meta.enabled,
        "seed": config.seed,
        "dataset": config.data.name,
        "teacher": teacher.record(),
        "student": {"name": config.student.network, "parameters": parameters},
        **({} if experiment.quantization is None else {"quantization": experiment.quantization}),
        "accuracy": _accuracy(records),
        "by_class": experiment.fidelity.by_class,
        "agreement": last.get("agreement"),
        "loyalty": last.get("loyalty"),
        "loyalty_reference": last.get("loyalty_reference"),
        "forgetting": _forgetting(forgetting, len(records)) | {"matrix_file": "forgetting.json"},
        "alignment": _alignment(records),
        "rollbacks": list(rollbacks),
        **_stopped(experiment),
        **({"attack": last["attack"]} if "attack" in last else {}),
        "cost": _cost(experiment) | {"seconds": seconds, "peak_memory_mb": peak_memory(config.device)},
        "config_hash": config_hash,
        "versions": environment()["versions"],
    }


def matrix(experiment: Experiment) -> Record:
    """``forgetting.json``: agreement on every probe at every checkpoint, ``None`` before a probe's birth."""
    found = experiment.forgetting.matrix
    return {
        "checkpoints": found.checkpoints,
        "probes": found.births,
        "agreement": [row + [None] * (len(found.births) - len(row)) for row in found.rows],
    }


def _accuracy(records: Sequence[Record]) -> Record | None:
    curve = [(r["student_step"], r["accuracy"]) for r in records if r["accuracy"] is not None]
    if not curve:
        return None
    return spread([accuracy for _, accuracy in curve]) | {"curve": curve}


def _forgetting(found: Forgetting | None, evaluations: int) -> Record:
    """With the reason where there is nothing to tell."""
    if found is not None:
        return asdict(found)
    few = "one evaluation" if evaluations == 1 else "no probe was evaluated twice"
    return {"reason": f"{few}: what is forgotten shows from the second on"}


def _stopped(experiment: Experiment) -> Record:
    """What ended the run before its budget, if anything did."""
    by = experiment.strategy.stopped
    return {} if by is None else {"stopped": {"by": by, "of_experiences": experiment.stream.length}}


def _alignment(records: Sequence[Record]) -> Record:
    cosines = [r["alignment"] for r in records if r.get("alignment") is not None]
    tail = cosines[len(cosines) // 2 :]
    return {
        "mean": float(np.mean(cosines)) if cosines else None,
        "tail_mean": float(np.mean(tail)) if tail else None,
        "count": len(cosines),
    }


def _cost(experiment: Experiment) -> Record:
    stream = experiment.stream
    return {
        "student_steps": experiment.strategy.clock.train_iterations,
        "experiences": stream.position,
        "generator_steps": stream.synthesizer.generator_steps,
        "images_generated": stream.synthesizer.images_generated,
        "teacher_queries": stream.teacher.queries,
    }
