"""A new method in one file: a generator of samples that the teacher is sure of and the student disputes.

For every experience, with teacher T, student S, generator G:

    z ~ N(0, I),  x = G(z)
    G <- Adam on  one_hot·CE(T(x), argmax T(x)) - adversarial·D(S(x), T(x))
    then the student's steps, on D(S(x), T(x)) for fresh x
"""

from pathlib import Path

from torch import nn

from lra.benchmarks import configuration, run
from lra.options import NonNegative
from lra.strategies import METHODS, OnlineMethod, OnlineOptions, Parts
from lra.synthesis.terms import Adversarial, OneHot


class DisputedOptions(OnlineOptions):
    one_hot: NonNegative = 1.0
    adversarial: NonNegative = 1.0


class Disputed(OnlineMethod):
    name = "disputed"
    paper = "nowhere yet"
    Options = DisputedOptions
    latent = 64

    def build(self, student: nn.Module) -> Parts:
        o = self.options
        return self.parts(self.online([OneHot(o.one_hot), Adversarial(o.adversarial, self.setup.distance)]))


METHODS[Disputed.name] = Disputed

settings = ("synthesis.adversarial=0.5", "data.size=8", "teacher.epochs=10", "schedule.batch_size=32")
short = {"teacher": "mlp", "student": "mlp", "steps": 40, "set": settings}
# It works with every replay, and with everything that lra-bench does with runs.
for replay, meta in (("none", False), ("reservoir", False), ("reservoir", True)):
    folder = run(configuration(method="disputed", replay=replay, meta=meta, **short), Path("runs"), quiet=True)
    assert folder.result is not None
    print(f"{replay:9} {'LRA' if meta else '   '}  {folder.result['accuracy']['final']:.2f} %  {folder.path}")
