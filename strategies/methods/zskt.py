"""ZSKT: generator and student play against each other, and there is no other loss.

Micaelli and Storkey, "Zero-shot Knowledge Transfer via Adversarial Belief Matching", NeurIPS 2019,
https://arxiv.org/abs/1905.09768.

As CMI's benchmark runs it (``form: benchmark``), for every experience, with teacher T, student S, generator G:

    z ~ N(0, I),  x = G(z),  G <- Adam on -adversarial·D(S(x), T(x))          (gradient through S and T)
    5 times:  x = G(z) for fresh z,  S <- SGD on D(S(x), T(x))

As its authors run it (``form: original``, with ``attention`` 250, ``clip`` 5 and 10 student steps per experience; see
the presets zskt-original/...), one z serves for G's step and all of the student's, a final BatchNorm standardises the
images in place of a sigmoid, G and S are always in train mode, G's learning rate follows a cosine, both gradients are
clipped, D is averaged over classes, and the student has one more loss:

    attention·Σ_l mean((a(S_l) - a(T_l))²),   a(A) = φ(vec(mean_c A²)),   l over stages of equal resolution.

Left out: the authors' Adam for the student (at 2e-3); every run here uses SGD. The teacher is queried at each student
step, ten times for the same images. Fast-Datafree's copy of this baseline attacks the teacher instead of the student.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Literal

from lra.options import AdversarialOptions, NonNegative, Positive
from lra.strategies.method import OnlineMethod, OnlineOptions, Parts

if TYPE_CHECKING:
    from avalanche.core import SupervisedPlugin
    from torch import Tensor, nn


class ZSKTOptions(AdversarialOptions, OnlineOptions):
    """Defaults are those of CMI's benchmark."""

    form: Literal["benchmark", "original"] = "benchmark"
    """Which form: that of CMI's benchmark, or its authors' original."""
    adversarial: Positive = 1.0
    attention: NonNegative = 0.0
    """β of attention transfer (original: 250)."""
    clip: Positive | None = None
    """Largest gradient norm of generator and student (original: 5); unlimited if not given."""


class ZSKT(OnlineMethod):
    """An online generator trained only for samples on which student and teacher disagree."""

    name = "zskt"
    paper = "Micaelli and Storkey, NeurIPS 2019"
    Options = ZSKTOptions
    latent = 256
    defaults = {
        "student": {"lr": 0.1, "momentum": 0.9, "weight_decay": 1e-4, "loss": {"kind": "kl"}},
        "schedule": {"batch_size": 256, "steps_per_experience": 5, "experiences_per_epoch": 80, "epochs": 200},
    }

    def distance(self, student: Tensor, teacher: Tensor) -> Tensor:
        """D (n,) of logits (n, K), in either form."""
        classes = self.setup.problem.classes if self.options.form == "original" else 1
        return self.setup.distance(student, teacher) / classes

    def build(self, student: nn.Module) -> Parts:
        """G and its one term; attention transfer, clipping, and the original's cosine for G where asked for.

        Raises:
            ValueError: if ``redraws`` is set in the original form, where an experience has a single batch of latents.
        """
        from torch.optim.lr_scheduler import CosineAnnealingLR

        from lra.distillation.objective import Objective
        from lra.distillation.terms import AttentionTransfer
        from lra.networks.generators import gen_zskt
        from lra.strategies.plugins import ClipGradient, ScheduleByEpoch
        from lra.synthesis.online import SharedLatents
        from lra.synthesis.terms import Adversarial

        o, problem = self.options, self.setup.problem
        objective = Objective(self.distance, [AttentionTransfer(o.attention)], self.setup.teacher)
        terms = [Adversarial(o.adversarial, self.distance)]
        plugins: list[SupervisedPlugin] = [] if o.clip is None else [ClipGradient(o.clip)]
        if o.form == "benchmark":
            return self.parts(self.online(terms, clip=o.clip), objective, plugins)
        if o.redraws:
            raise ValueError(
                f"synthesis.redraws = {o.redraws}: form original has one batch of latents per experience, none to draw "
                "again: leave it, or take form benchmark"
            )
        make = partial(gen_zskt, mean=problem.mean, std=problem.std)
        modes = {"student_mode": "train", "sampling_mode": "train"}
        synthesizer = self.online(terms, make, SharedLatents, clip=o.clip, **modes)
        cosine = CosineAnnealingLR(synthesizer.optimiser, T_max=self.setup.experiences)
        return self.parts(synthesizer, objective, [*plugins, ScheduleByEpoch(cosine, 1)])
