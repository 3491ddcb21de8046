"""The options of the memory generator, declared apart from it: reading them needs no torch."""

from lra.options import NonNegative, Options, Positive, Whole


class MemoryGeneratorOptions(Options):
    """How the memory is trained and sampled."""

    lr: Positive = 5e-4
    """Adam rate of memory generator and encoder (published: generator rate / 40)."""
    latent_lr: Positive = 0.02
    """Adam rate of the self-inference steps on the latents."""
    latent_steps: Whole = 1
    """Self-inference steps: 1 as published, 0 to draw latents straight from the prior."""
    one_hot: NonNegative = 1.0
    balance: NonNegative = 2.171472409516259
    """Weight in nats; the published 5 counts in log10, which is 5 / ln 10 here."""
    kl: NonNegative = 1e-5
    """Weight of the latents' KL divergence from the prior."""
    leak_latent_grad: bool = False
    """Reference behaviour: the self-inference gradient is left in M and enters its next update."""
