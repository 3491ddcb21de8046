"""Avalanche's plugins by name: ``avalanche:ewc`` after ``--replay`` or ``--plugin``.

A synthesis stream has no classes, no tasks and no finite dataset. Where a plugin needs them, it gets the teacher's
argmax, the single task label 0, and a draw of as many images as the student's steps in the experience use. `GUESTS` is
the table of what each plugin needs and what it gets; the documentation shows it.

The functions adapt a plugin to such a stream: defaults suit many short experiences, and settings that would fail late
are refused at once. They import Avalanche, which the table does not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from avalanche.core import BasePlugin

    from lra.strategies.method import Setup
    from lra.strategies.strategy import DataFreeDistillation

    Plugin: TypeAlias = BasePlugin[Any]

POLICIES = {
    "reservoir": "ReservoirSamplingBuffer",
    "class-balanced": "ClassBalancedBuffer",
    "experience-balanced": "ExperienceBalancedBuffer",
}
"""Avalanche's storage policies, by value of ``plugin.storage_policy``."""


def ewc(setup: Setup, ewc_lambda: float = 1.0, mode: str = "online", decay_factor: float | None = None) -> Plugin:
    """Elastic Weight Consolidation (Kirkpatrick et al. 2017), online by default (Schwarz et al. 2018)."""
    from avalanche.training.plugins import EWCPlugin

    return EWCPlugin(ewc_lambda, mode, 0.9 if mode == "online" and decay_factor is None else decay_factor)


def si(setup: Setup, si_lambda: float = 1.0, eps: float = 1e-7) -> Plugin:
    """Synaptic Intelligence (Zenke et al. 2017), with copies where Avalanche keeps views.

    On a CPU, Avalanche's records of earlier weights share memory with the current ones, so that nothing ever seems to
    have moved, every importance is zero, and the plugin does nothing.
    """
    from avalanche.training.plugins import SynapticIntelligencePlugin

    def unshare(records: Mapping[str, Any]) -> None:
        for record in records.values():
            record.data = record.data.clone()

    class SI(SynapticIntelligencePlugin):
        def before_training_exp(self, strategy: DataFreeDistillation, **kwargs: object) -> None:
            super().before_training_exp(strategy, **kwargs)
            unshare(self.ewc_data[0])

        def before_training_iteration(self, strategy: DataFreeDistillation, **kwargs: object) -> None:
            super().before_training_iteration(strategy, **kwargs)
            unshare(self.syn_data["old_theta"])

    return SI(si_lambda, eps)


def rwalk(setup: Setup, ewc_lambda: float = 0.1, ewc_alpha: float = 0.9, delta_t: int | None = None) -> Plugin:
    """Riemannian Walk (Chaudhry et al. 2018), with the student kept in training mode, which Avalanche's version leaves.

    By default it computes scores every ten steps, or once in a shorter experience.
    """
    from avalanche.training.plugins import RWalkPlugin

    class RWalk(RWalkPlugin):
        def before_training_iteration(self, strategy: DataFreeDistillation, *args: object, **kwargs: object) -> None:
            super().before_training_iteration(strategy, *args, **kwargs)
            strategy.model.train()

    interval = min(10, setup.steps) if delta_t is None else delta_t
    if interval > setup.steps:
        raise ValueError(f"delta_t = {interval} leaves experiences of {setup.steps} steps without a score: lower it")
    return RWalk(ewc_lambda, ewc_alpha, interval)


def agem(setup: Setup, patterns_per_experience: int = 16, sample_size: int | None = None) -> Plugin:
    """Averaged Gradient Episodic Memory (Chaudhry et al. 2019).

    By default, each reference gradient uses as many samples as there are images in a batch, or experiences, if more.
    """
    from avalanche.training.plugins import AGEMPlugin

    size = max(setup.batch_size, setup.experiences) if sample_size is None else sample_size
    if size < setup.experiences - 1:
        raise ValueError(
            f"sample_size = {size} gives none to some of {setup.experiences - 1} experiences: raise it to that"
        )
    return AGEMPlugin(patterns_per_experience, size)


def gem(setup: Setup, patterns_per_experience: int = 16, memory_strength: float = 0.5) -> Plugin:
    """Gradient Episodic Memory (Lopez-Paz and Ranzato 2017)."""
    from avalanche.training.plugins import GEMPlugin

    return GEMPlugin(patterns_per_experience, memory_strength)


def mir(setup: Setup, batch_size_mem: int | None = None, mem_size: int = 1280, subsample: int | None = None) -> Plugin:
    """Maximally Interfered Retrieval (Aljundi et al. 2019): replays those of a subsample that the step would harm most.

    By default an eighth of the batch size, chosen from as many samples as a batch has.
    """
    from avalanche.training.plugins import MIRPlugin

    size = max(1, setup.batch_size // 8) if batch_size_mem is None else batch_size_mem
    pool = max(size, setup.batch_size) if subsample is None else subsample
    if not size < mem_size:
        raise ValueError(f"mem_size = {mem_size} is no more than batch_size_mem = {size}: raise it")
    if pool < size:
        raise ValueError(f"subsample = {pool} is less than batch_size_mem = {size}: raise it")
    return MIRPlugin(size, mem_size, pool)


def replay(
    setup: Setup, mem_size: int = 1280, batch_size_mem: int | None = None, storage_policy: str = "reservoir"
) -> Plugin:
    """Experience replay from an exemplar buffer (Chaudhry et al. 2019), beside every batch.

    By default an eighth of the batch size from a reservoir, as in our own replays.
    """
    from avalanche.training import storage_policy as policies
    from avalanche.training.plugins import ReplayPlugin

    if storage_policy not in POLICIES:
        raise ValueError(f"storage_policy = {storage_policy!r} is none of {', '.join(POLICIES)}")
    if storage_policy == "experience-balanced" and mem_size < setup.experiences:
        raise ValueError(
            f"mem_size = {mem_size} gives no place to some of {setup.experiences} experiences, and the buffer "
            "would freeze: raise mem_size, or choose storage_policy=reservoir"
        )
    size = max(1, setup.batch_size // 8) if batch_size_mem is None else batch_size_mem
    store = getattr(policies, POLICIES[storage_policy])(mem_size)
    return ReplayPlugin(mem_size, batch_size_mem=size, storage_policy=store)


@dataclass(frozen=True)
class Guest:
    """A row of the table.

    Attributes:
        plugin: the class, as ``package.module:Class``, or the function that makes it; ``None`` if it cannot work here.
        needs: what it requires of a stream.
        gets: what the synthesis stream provides instead.
        verdict: what to expect of it, or why it is refused.
        stock_data: whether it works on Avalanche's data loaders.
        classes: Avalanche's own classes that do not work here unchanged (exactly these, no subclasses).
    """

    plugin: str | Callable[..., Plugin] | None
    needs: str
    gets: str
    verdict: str
    stock_data: bool = False
    classes: tuple[str, ...] = ()


DRAW = "a draw of the experience"
LOGITS = f"{DRAW} with the teacher's logits; the student's distance to them is the loss"

GUESTS: dict[str, Guest] = {
    "lwf": Guest(
        "avalanche.training.plugins:LwFPlugin",
        "classes and tasks of past experiences",
        "the teacher's argmax; one task",
        "works; its old model is the student of one experience ago, so that it retains little",
    ),
    "ewc": Guest(
        ewc,
        "a labelled dataset after each experience",
        LOGITS,
        "works; `mode=separate` grows with the number of experiences",
    ),
    "si": Guest(
        si,
        "nothing but the student's weights",
        "these",
        "works, with copies of earlier weights; Avalanche's own version does nothing on a CPU",
        classes=("SynapticIntelligencePlugin",),
    ),
    "mas": Guest("avalanche.training.plugins:MASPlugin", "unlabelled images after each experience", DRAW, "works"),
    "rwalk": Guest(
        rwalk,
        "a labelled batch per step",
        "the step's batch and logits",
        "works, with the student kept in training mode, which Avalanche's own version leaves",
        classes=("RWalkPlugin",),
    ),
    "agem": Guest(
        agem,
        "a labelled dataset to keep samples of",
        LOGITS,
        "works; memory and time grow with the number of experiences",
    ),
    "gem": Guest(
        gem,
        "a labelled dataset to keep samples of",
        LOGITS,
        "works on short streams: one backward pass per past experience and step",
    ),
    "replay": Guest(
        replay,
        "data loaders over labelled datasets; classes for `class-balanced`",
        f"{LOGITS}; classes are the teacher's argmax",
        "works; slows down with the number of experiences, which `--replay reservoir` does not",
        stock_data=True,
    ),
    "mir": Guest(
        mir,
        "labelled datasets to keep samples of, by class",
        f"{LOGITS}; classes are the teacher's argmax",
        "works; slows down with the number of experiences",
    ),
    "cwr": Guest(
        None,
        "experiences that bring new classes",
        "nothing: every experience has every class",
        "refused: it would clear the last layer and freeze the rest after the first experience",
        classes=("CWRStarPlugin",),
    ),
    "from-scratch": Guest(
        None,
        "all past data in every experience",
        "nothing: an experience has its own samples only",
        "refused: a student reset at every generator update learns from the last one alone",
        classes=("FromScratchTrainingPlugin",),
    ),
    "gdumb": Guest(
        None,
        "many epochs on a memory, once",
        "nothing: a step is one pass over a new draw",
        "refused: it resets the student at every generator update",
        classes=("GDumbPlugin",),
    ),
    "generative": Guest(
        None,
        "a generator with a strategy of its own and integer classes",
        "nothing: its copies of generator and student cost more than the step",
        "refused: use `--replay generative`, which is made for streams",
        classes=("GenerativeReplayPlugin", "TrainGeneratorAfterExpPlugin"),
    ),
    "bic": Guest(
        None,
        "classes that come one after another, and a validation set split from each experience",
        "nothing: every experience has every class, and its samples are drawn as they are needed",
        "refused: there is no bias towards new classes to correct",
        classes=("BiCPlugin",),
    ),
    "cope": Guest(
        None,
        "integer classes, and features in place of logits",
        "nothing: the student gives logits, and answers are the teacher's logits",
        "refused: its prototypes and its loss are of classes",
        classes=("CoPEPlugin",),
    ),
    "evaluation": Guest(
        None,
        "metrics and loggers, which are objects",
        "nothing: no option can hold one",
        "refused: a run measures by itself, see `evaluation.every` and `--tensorboard`",
        classes=("EvaluationPlugin",),
    ),
    "feature-distillation": Guest(
        None,
        "a student that keeps its last features as an attribute",
        "nothing: students keep none",
        "refused: use `avalanche:lwf`, on logits",
        classes=("FeatureDistillationPlugin",),
    ),
    "gss": Guest(
        None,
        "integer classes of each minibatch",
        "nothing: answers are the teacher's logits",
        "refused: use `--replay reservoir`, or `avalanche:mir`, which chooses too",
        classes=("GSS_greedyPlugin",),
    ),
    "lfl": Guest(
        None,
        "a student of Avalanche's with `get_features`",
        "nothing: students have none",
        "refused: it would freeze the last layer after the first experience",
        classes=("LFLPlugin",),
    ),
    "lr-scheduler": Guest(
        None,
        "a scheduler of the student's optimiser, which is an object",
        "nothing: no option can hold one",
        "refused: set `schedule.lr`, or step a scheduler in a plugin of your own",
        classes=("LRSchedulerPlugin",),
    ),
    "ncm": Guest(
        None,
        "a student that classifies by class means or covariances",
        "nothing: students have a trained last layer",
        "refused: there are no means to update",
        classes=(
            *("CurrentDataNCMUpdate", "MemoryNCMUpdate", "NCMOracle"),
            *("CurrentDataFeCAMUpdate", "MemoryFeCAMUpdate", "FeCAMOracle"),
        ),
    ),
    "rar": Guest(
        None,
        "integer classes, and a student that torch.fx can trace",
        "nothing: answers are the teacher's logits",
        "refused: it perturbs samples towards other classes",
        classes=("RARPlugin",),
    ),
}
"""The rows, by the name typed after ``avalanche:``."""
