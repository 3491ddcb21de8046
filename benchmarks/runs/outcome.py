"""``result.json``: what a finished run comes to."""

from collections.abc import Sequence
from typing import Any

from lra.benchmarks.runs.machine import environment, peak_memory
from lra.benchmarks.runs.run_folder import SCHEMA
from lra.benchmarks.setup.experiment import Experiment
from lra.benchmarks.setup.teachers import TrainedTeacher

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
    config = experiment.config
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
        **experiment.evaluation.outcome(records),
        "rollbacks": list(rollbacks),
        **_stopped(experiment),
        "cost": _cost(experiment) | {"seconds": seconds, "peak_memory_mb": peak_memory(config.device)},
        "config_hash": config_hash,
        "versions": environment()["versions"],
    }


def _stopped(experiment: Experiment) -> Record:
    """What ended the run before its budget, if anything did."""
    by = experiment.strategy.stopped
    return {} if by is None else {"stopped": {"by": by, "of_experiences": experiment.stream.length}}


def _cost(experiment: Experiment) -> Record:
    stream = experiment.stream
    return {
        "student_steps": experiment.strategy.clock.train_iterations,
        "experiences": stream.position,
        "generator_steps": stream.synthesizer.generator_steps,
        "images_generated": stream.synthesizer.images_generated,
        "teacher_queries": stream.teacher.queries,
    }
