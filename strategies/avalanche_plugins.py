"""Avalanche's own plugins, fitted to a synthesis stream: defaults for long streams, and what would fail late refused.

`lra.strategies.guests` gives them their names.
"""

from collections.abc import Mapping
from typing import Any, Self

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


class RWalk(plugins.RWalkPlugin):
    """Riemannian Walk (Chaudhry et al. 2018), with the student kept in training mode, which Avalanche's ends."""

    @classmethod
    def build(cls, setup: Setup, ewc_lambda: float = 0.1, ewc_alpha: float = 0.9, delta_t: int | None = None) -> Self:
        """By default, scores every ten steps, or once in a shorter experience."""
        interval = min(10, setup.steps) if delta_t is None else delta_t
        if interval > setup.steps:
            raise ValueError(
                f"delta_t = {interval} leaves experiences of {setup.steps} steps without a score: lower it"
            )
        return cls(ewc_lambda, ewc_alpha, interval)

    def before_training_iteration(self, strategy: DataFreeDistillation, *args: object, **kwargs: object) -> None:
        """Look at the gradient, and learn with batch statistics all the same."""
        super().before_training_iteration(strategy, *args, **kwargs)
        strategy.model.train()


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


class MIR(plugins.MIRPlugin):
    """Maximally Interfered Retrieval (Aljundi et al. 2019): of a subsample, what the step would undo most."""

    @classmethod
    def build(
        cls, setup: Setup, batch_size_mem: int | None = None, mem_size: int = 1280, subsample: int | None = None
    ) -> Self:
        """By default an eighth of a batch, chosen from as many as a batch has."""
        size = max(1, setup.batch_size // 8) if batch_size_mem is None else batch_size_mem
        pool = max(size, setup.batch_size) if subsample is None else subsample
        if not size < mem_size:
            raise ValueError(f"mem_size = {mem_size} is no more than batch_size_mem = {size}: raise it")
        if pool < size:
            raise ValueError(f"subsample = {pool} is less than batch_size_mem = {size}: raise it")
        return cls(size, mem_size, pool)


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
