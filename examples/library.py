"""The toolkit from Python: Avalanche's evaluation and loggers, and a checkpoint to continue from."""

import torch
from avalanche.evaluation.metrics import accuracy_metrics, loss_metrics
from avalanche.logging import InteractiveLogger, TensorboardLogger
from avalanche.training.plugins import EvaluationPlugin

from lra import Normalized, Problem, Teacher
from lra.benchmarks import TeacherOptions, data_set, obtain
from lra.distances import l1
from lra.networks import build
from lra.strategies import (
    LRA,
    METHODS,
    DataFreeDistillation,
    ReservoirReplay,
    Setup,
    SynthesisStream,
    TestExperience,
    capture,
    restore,
)

data = data_set("digits", 8)
test = data.load("test")
trained = obtain(TeacherOptions(network="mlp", epochs=10), data, test)
problem = Problem(data.image, data.classes, trained.mean, trained.std)
setup = Setup(problem, Teacher(trained.network), l1, batch_size=32, steps=5, experiences=10, experiences_per_epoch=5)
student = Normalized(build("mlp", problem.classes, problem.image), problem.mean, problem.std)
parts = METHODS["predfkd"](setup, METHODS["predfkd"].Options()).build(student)
replay = ReservoirReplay().build(setup)

stream = SynthesisStream(parts.synthesizer, setup.teacher, setup.experiences, setup.steps, setup.batch_size)
strategy = DataFreeDistillation(
    model=student,
    optimizer=torch.optim.SGD([*student.parameters(), *parts.objective.parameters()], lr=0.05, momentum=0.9),
    objective=parts.objective,
    train_mb_size=setup.batch_size,
    plugins=[replay, LRA(replay), *parts.plugins],
    evaluator=EvaluationPlugin(
        *accuracy_metrics(stream=True),
        *loss_metrics(epoch=True),
        loggers=[InteractiveLogger(), TensorboardLogger("tensorboard")],
    ),
)


def save() -> None:
    """Save between experiences, when nothing is half done; `restore` brings a newly built run into this state."""
    torch.save(capture(strategy, stream), "checkpoint.pt")


stream.at_rest = save
strategy.train(stream)
restore(torch.load("checkpoint.pt", weights_only=True), strategy, stream)
strategy.eval(TestExperience(test.images, test.classes).origin_stream)
