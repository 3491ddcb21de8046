"""Any Avalanche strategy learns classes a few at a time, and keeps the old ones without their data."""

import torch
from avalanche.evaluation.metrics import accuracy_metrics
from avalanche.logging import InteractiveLogger
from avalanche.training import Naive
from avalanche.training.plugins import EvaluationPlugin
from sklearn.datasets import load_digits

from lra.networks import build
from lra.strategies import DataFreeReplayOptions, DataFreeReplayPlugin, growing, split

torch.manual_seed(0)
pixels, classes = map(torch.from_numpy, load_digits(return_X_y=True))
images = (pixels.float() / 16).view(-1, 1, 8, 8)
benchmark = split((images[300:], classes[300:]), (images[:300], classes[:300]), order=[*range(10)], experiences=5)

model = growing(build("resnet8", classes=2, image=(1, 8, 8)), classes=2, image=(1, 8, 8))
strategy = Naive(
    model=model,
    optimizer=torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9),
    train_mb_size=32,
    train_epochs=5,
    plugins=[DataFreeReplayPlugin(DataFreeReplayOptions(generator_steps=100))],  # the only line added
    evaluator=EvaluationPlugin(accuracy_metrics(experience=True, stream=True), loggers=[InteractiveLogger()]),
)
for experience in benchmark.train_stream:
    strategy.train(experience, eval_streams=[])
strategy.eval(benchmark.test_stream)
