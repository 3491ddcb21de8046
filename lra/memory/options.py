"""The options of pool and memory generator, declared apart from them: reading these needs no torch."""

from typing import Literal

from lra.options import Count, NonNegative, Options, Positive, Whole


class PoolOptions(Options):
    """What a pool keeps."""

    policy: Literal["unbounded", "reservoir", "fifo"] = "unbounded"
    """Everything, as published; or a uniform sample of it; or the latest."""
    capacity: Count = 51200
    """Images held by ``reservoir`` and ``fifo``; an unbounded pool grows to what the run makes."""


class MemoryGeneratorOptions(Options):
    """How the memory is trained and sampled."""

    lr: Positive = 5e-4
    """Adam rate of memory generator and encoder (published: generator rate / 40)."""
    latent_lr: Positive = 0.02
    """Adam rate of the self-inference steps on the latents."""
    latent_steps: Whole = 1
    """Self-inference steps: 1 as published, 0 to draw latents straight from the prior."""
    one_hot: NonNegative = 1.0
    """Weight of the cross-entropy of the teacher's answer with its own class."""
    balance: NonNegative = 2.171472409516259
    """Weight in nats; the published 5 counts in log10, which is 5 / ln 10 here."""
    kl: NonNegative = 1e-5
    """Weight of the latents' KL divergence from the prior."""
    leak_latent_grad: bool = False
    """Reference behaviour: the self-inference gradient is left in M and enters its next update."""
