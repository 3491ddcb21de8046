"""Avalanche's own plugins on a synthesis stream, by name: ``avalanche:ewc`` after ``--replay`` or ``--plugin``.

The stream has no classes, no tasks and no finite dataset. Where a plugin asks for them it gets the teacher's argmax,
one task label 0, and a draw of as many images as the student's steps of the experience take. `GUESTS` is the table of
what each asks for and what becomes of it; ``docs/avalanche-plugins.md`` is written from it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from avalanche.core import BasePlugin
from avalanche.training import plugins
from avalanche.training.storage_policy import (
    BalancedExemplarsBuffer,
    ClassBalancedBuffer,
    ExemplarsBuffer,
    ExperienceBalancedBuffer,
    ReservoirSamplingBuffer,
)

from lra.strategies.method import Setup
from lra.strategies.strategy import DataFreeDistillation

Policy = type[ExemplarsBuffer] | type[BalancedExemplarsBuffer[Any]]

POLICIES: dict[str, Policy] = {
    "reservoir": ReservoirSamplingBuffer,
    "class-balanced": ClassBalancedBuffer,
    "experience-balanced": ExperienceBalancedBuffer,
}
"""Avalanche's storage policies, by the value of ``plugin.storage_policy``."""


class LwF(plugins.LwFPlugin):
    """Learning without Forgetting (Li and Hoiem 2016)."""


class EWC(plugins.EWCPlugin):
    """Elastic Weight Consolidation (Kirkpatrick et al. 2017), online by default (Schwarz et al. 2018)."""

    def __init__(self, ewc_lambda: float = 1.0, mode: str = "online", decay_factor: float | None = None):
        online = mode == "online"
        super().__init__(ewc_lambda, mode, 0.9 if online and decay_factor is None else decay_factor)


class SI(plugins.SynapticIntelligencePlugin):
    """Synaptic Intelligence (Zenke et al. 2017), with copies where Avalanche keeps views.

    On a CPU Avalanche's records of earlier weights share memory with the live ones, so that nothing ever seems to
    have moved, every importance is zero, and the plugin does nothing.
    """

    def __init__(self, si_lambda: float = 1.0, eps: float = 1e-7):
        super().__init__(si_lambda, eps)

    def before_training_exp(self, strategy: DataFreeDistillation, **kwargs: object) -> None:
        """Copy the weights that the experience starts from."""
        super().before_training_exp(strategy, **kwargs)
        _unshare(self.ewc_data[0])

    def before_training_iteration(self, strategy: DataFreeDistillation, **kwargs: object) -> None:
        """Copy the weights that the step starts from."""
        super().before_training_iteration(strategy, **kwargs)
        _unshare(self.syn_data["old_theta"])


def _unshare(records: Mapping[str, Any]) -> None:
    for record in records.values():
        record.data = record.data.clone()


class AGEM(plugins.AGEMPlugin):
    """Averaged Gradient Episodic Memory (Chaudhry et al. 2019)."""

    @classmethod
    def build(cls, setup: Setup, patterns_per_experience: int = 16, sample_size: int | None = None) -> Self:
        """By default, as many samples per reference gradient as a batch has or there are experiences."""
        size = max(setup.batch_size, setup.experiences) if sample_size is None else sample_size
        if size < setup.experiences - 1:
            raise ValueError(
                f"sample_size = {size} gives none to some of {setup.experiences - 1} experiences: raise it to that"
            )
        return cls(patterns_per_experience, size)


class GEM(plugins.GEMPlugin):
    """Gradient Episodic Memory (Lopez-Paz and Ranzato 2017)."""

    def __init__(self, patterns_per_experience: int = 16, memory_strength: float = 0.5):
        super().__init__(patterns_per_experience, memory_strength)


class StoredReplay(plugins.ReplayPlugin):
    """Experience replay from an exemplar buffer (Chaudhry et al. 2019), beside every batch."""

    @classmethod
    def build(
        cls,
        setup: Setup,
        mem_size: int = 1280,
        batch_size_mem: int | None = None,
        storage_policy: str = "reservoir",
    ) -> Self:
        """By default an eighth of a batch from a reservoir, as our own replays."""
        if storage_policy not in POLICIES:
            raise ValueError(f"storage_policy = {storage_policy!r} is none of {', '.join(POLICIES)}")
        if storage_policy == "experience-balanced" and mem_size < setup.experiences:
            raise ValueError(
                f"mem_size = {mem_size} gives no place to some of {setup.experiences} experiences, and the buffer "
                "would freeze: raise mem_size, or choose storage_policy=reservoir"
            )
        size = max(1, setup.batch_size // 8) if batch_size_mem is None else batch_size_mem
        return cls(mem_size, batch_size_mem=size, storage_policy=POLICIES[storage_policy](mem_size))


@dataclass(frozen=True)
class Guest:
    """A row of the table.

    Attributes:
        plugin: the class; ``None`` for one that cannot work here.
        needs: what it asks of a stream.
        gets: what the synthesis stream gives it for that.
        verdict: what to expect of it, or why it is refused.
        stock_data: whether it works on Avalanche's data loaders.
    """

    plugin: type[BasePlugin[Any]] | None
    needs: str
    gets: str
    verdict: str
    stock_data: bool = False


DRAW = "a draw of the experience"
LOGITS = f"{DRAW} with the teacher's logits; the student's distance to them is the loss"

GUESTS: dict[str, Guest] = {
    "lwf": Guest(
        LwF,
        "classes and tasks of past experiences",
        "the teacher's argmax; one task",
        "works; its old model is the student one experience ago, so it holds back little",
    ),
    "ewc": Guest(
        EWC,
        "a labelled dataset after each experience",
        LOGITS,
        "works; `mode=separate` grows with the number of experiences",
    ),
    "si": Guest(
        SI,
        "nothing but the student's path",
        "that",
        "works, with earlier weights copied; as Avalanche has it, it is inert on a CPU",
    ),
    "mas": Guest(plugins.MASPlugin, "unlabelled images after each experience", DRAW, "works"),
    "rwalk": Guest(plugins.RWalkPlugin, "a labelled batch per step", "the step's batch and logits", "works"),
    "agem": Guest(
        AGEM,
        "a labelled dataset to keep samples of",
        LOGITS,
        "works; memory and time grow with the number of experiences",
    ),
    "gem": Guest(
        GEM,
        "a labelled dataset to keep samples of",
        LOGITS,
        "works on short streams: one backward pass per past experience and step",
    ),
    "replay": Guest(
        StoredReplay,
        "data loaders over labelled datasets; classes for `class-balanced`",
        f"{LOGITS}; classes are the teacher's argmax",
        "works; slows down with the number of experiences, which `--replay reservoir` does not",
        stock_data=True,
    ),
    "cwr": Guest(
        None,
        "experiences that bring new classes",
        "nothing: every experience has every class",
        "refused: it would clear the last layer and freeze the rest after the first experience",
    ),
    "from-scratch": Guest(
        None,
        "all past data in every experience",
        "nothing: an experience has its own samples only",
        "refused: a student reset at every generator update learns from the last one alone",
    ),
    "gdumb": Guest(
        None,
        "many epochs on a memory, once",
        "nothing: a step is one pass over a new draw",
        "refused: it resets the student at every generator update",
    ),
    "generative": Guest(
        None,
        "a generator with a strategy of its own and integer classes",
        "nothing: its copies of generator and student cost more than the step",
        "refused: use `--replay generative`, which is made for streams",
    ),
}
"""Name, as typed after ``avalanche:``, to row."""
