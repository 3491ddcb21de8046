"""DAFL: the first online generator for data-free distillation.

Chen et al., "Data-Free Learning of Student Networks", ICCV 2019, https://arxiv.org/abs/1904.01186; here in the form
and with the settings of CMI's benchmark (Fang et al., IJCAI 2021), which later papers compare with.

For every experience, with teacher T, student S, generator G:

    z ~ N(0, I),  x = G(z)
    G <- Adam on  one_hot·CE(T(x), argmax T(x)) + balance·(-H(mean softmax T(x))) + activation·(-mean |f_T(x)|)
    5 times:  x = G(z) for fresh z,  S <- SGD on D(S(x), T(x))

G's loss does not involve the student, and no sample is kept: what the student forgets is left to ``--replay``.

The paper has 1000 latent dimensions, balance 5 and activation 0.1, and takes one step of G and S on the same batch
(``latent``, ``balance``, ``activation``, ``schedule.steps_per_experience`` 1; the two batches still differ here), and
its generator ends in a BatchNorm. AdaDFKD's benchmark sets Adam's ``betas`` to (0.9, 0.99) and takes L1 for D.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lra.options import ActivationOptions, BalanceOptions, NonNegative, OneHotOptions
from lra.strategies.method import OnlineMethod, OnlineOptions, Parts

if TYPE_CHECKING:
    from torch import nn


class DAFLOptions(OneHotOptions, BalanceOptions, ActivationOptions, OnlineOptions):
    """Defaults are those of CMI's benchmark."""

    one_hot: NonNegative = 1.0
    balance: NonNegative = 20.0
    activation: NonNegative = 1e-3


class DAFL(OnlineMethod):
    """An online generator trained for confident, balanced and strongly activating samples."""

    name = "dafl"
    paper = "Chen et al., ICCV 2019"
    Options = DAFLOptions
    latent = 512
    defaults = {
        "student": {"lr": 0.1, "momentum": 0.9, "weight_decay": 1e-4, "loss": {"kind": "kl"}},
        "schedule": {"batch_size": 256, "steps_per_experience": 5, "experiences_per_epoch": 80, "epochs": 200},
    }

    def build(self, student: nn.Module) -> Parts:
        """G and its three terms."""
        from lra.synthesis.terms import Activation, Balance, OneHot

        o = self.options
        terms = [OneHot(o.one_hot), Balance(o.balance), Activation(o.activation)]
        return self.parts(self.online(terms))
