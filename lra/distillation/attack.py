"""Adversarial-example attack: occasionally the teacher errs, and the student still gets the right class (AEAHL-RG).

A generative network learns, on synthetic images, to perturb an image so that the teacher predicts its least likely
class. In a student step some images are replaced by their attacked versions, including their soft targets, while the
hard labels stay those of the clean images: the soft target is then wrong and the hard label right, as when a teacher
errs on real data.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lra.images import deviations, per_channel, require_side
from lra.networks.generators import reset_parameters_dcgan
from lra.options import AttackOptions, Swap
from lra.problem import Batch, Problem, Teacher
from lra.randomness import sent
from lra.state import State, in_mode
from lra.synthesis.augmentation import Augmentation
from lra.synthesis.terms import Term
from lra.view import View


class Exchange(NamedTuple):
    """A batch after the attack."""

    batch: Batch
    """Labelled with the classes of the clean images."""
    swapped: Tensor
    """Number of images exchanged with their attacked versions."""
    attacked: Tensor
    """Number of images that were then replaced by the other version."""


def exchange(clean: Batch, attacked: Batch, chosen: Tensor, swap: Swap = "exchange") -> Exchange:
    """Swap where the attack made the teacher more confident in the same class, then replace the ``chosen`` images.

    Args:
        clean: n images with the teacher's logits.
        attacked: the same images after the attack, with their logits.
        chosen: (n,) bool.
        swap: see `AttackOptions`.
    """
    before, after = (F.softmax(side.logits, dim=1).max(dim=1) for side in (clean, attacked))
    surer = (after.values >= before.values) & (after.indices == before.indices)
    if swap == "none":
        surer = torch.zeros_like(surer)
    # An image that has changed places and is then attacked is back; released, both places hold the attacked one.
    taken = surer | chosen if swap == "copy" else surer ^ chosen
    images = torch.where(taken.view(-1, 1, 1, 1), attacked.images, clean.images)
    logits = torch.where(taken.view(-1, 1), attacked.logits, clean.logits)
    return Exchange(clean._replace(images=images, logits=logits, labels=clean.classes), surer.sum(), chosen.sum())


class Attacker:
    """A perturbation network that learns to mislead the teacher (GAP; Poursaeed et al., CVPR 2018).

    Args:
        network: normalised images (n, C, H, W) -> (n, C, H, W) in (-1, 1).
        teacher: the network to mislead; it counts these queries too.
        problem: gives the normalisation.
        options: the form of the attack.
        augment: augmentation, for the released form.
    """

    def __init__(
        self, network: nn.Module, teacher: Teacher, problem: Problem, options: AttackOptions, augment: Augmentation
    ):
        self.network = network.to(problem.device)
        self.teacher = teacher
        self.options = options
        self.augment = augment
        self._mean = per_channel(problem.mean, problem.image[0], "mean").to(problem.device)
        self._std = deviations(problem.std, problem.image[0]).to(problem.device)
        self._optimiser = torch.optim.Adam(network.parameters(), lr=options.lr, betas=(0.5, 0.999))

    def perturbed(self, images: Tensor) -> Tensor:
        """Images (n, C, H, W) in [0, 1] plus the network's perturbation, with a graph to its weights."""
        output = self.network((images - self._mean) / self._std)
        if self.options.delta == "linf":
            return (images + self.options.budget * output).clamp(0, 1)
        shifted = images + self._std * (self._std * output + self._mean)
        low, high = (getattr(images, bound)(dim=(0, 2, 3), keepdim=True) for bound in ("amin", "amax"))
        return torch.minimum(torch.maximum(shifted, low), high)

    def learn(self, images: Tensor, logits: Tensor) -> Tensor:
        """One Adam step on ln CE(T(perturbed images), least likely class); returns it, detached.

        Args:
            images: (n, C, H, W) in [0, 1], without a graph.
            logits: (n, K), the teacher's of them.
        """
        self.network.train()
        error = F.cross_entropy(self.teacher(self.perturbed(images)), logits.argmin(dim=1))
        loss = error.clamp_min(max(self.options.floor, torch.finfo(error.dtype).tiny)).log()
        self._optimiser.zero_grad()
        loss.backward()
        self._optimiser.step()
        return loss.detach()

    @torch.no_grad()
    def attack(self, images: Tensor) -> Batch:
        """The attacked images with the teacher's logits."""
        with in_mode(self.network, training=False):
            found = self.perturbed(images)
        if self.options.renormalise:
            found = (self.augment(found) - self._mean) / self._std
        return Batch(found, self.teacher.label(found))

    def applied(self, batch: Batch) -> Exchange:
        """A student's batch after swapping and attacking; each image is attacked with probability pa."""
        device = batch.images.device
        chosen = torch.rand(len(batch.images)) < self.options.probability
        if self.options.swap != "none":
            return exchange(batch, self.attack(batch.images), sent(chosen, device), self.options.swap)
        images, logits, count = batch.images.clone(), batch.logits.clone(), chosen.sum()
        if count:
            where = sent(chosen.nonzero().flatten(), device)
            attacked = self.attack(batch.images[where])
            images[where], logits[where] = attacked.images, attacked.logits
        return Exchange(
            batch._replace(images=images, logits=logits, labels=batch.classes), torch.zeros_like(count), count
        )

    def state_dict(self) -> State:
        """The network and its optimiser."""
        return {"network": self.network.state_dict(), "optimiser": self._optimiser.state_dict()}

    def load_state_dict(self, state: State) -> None:
        """Take up a state of `state_dict`."""
        self.network.load_state_dict(state["network"])
        self._optimiser.load_state_dict(state["optimiser"])


class PerturbationTraining(Term):
    """A term without a loss: an attacker learns on the images of every synthesis step, with the teacher's logits.

    Args:
        attacker: the one that learns; its state is this term's.
    """

    name = "perturbation"

    def __init__(self, attacker: Attacker):
        super().__init__(1.0)
        self.attacker = attacker
        self._seen: tuple[Tensor, Tensor] | None = None

    def __call__(self, view: View) -> Tensor:
        """0, with the attacker's last loss as a note."""
        self._seen = view.images.detach(), view.teacher_logits.detach()
        return view.images.new_zeros(())

    def learn(self) -> None:
        """Update the attacker."""
        assert self._seen is not None
        self.notes["loss"] = self.attacker.learn(*self._seen)
        self._seen = None

    def state_dict(self) -> State:
        """The attacker, and its last loss."""
        return {"attacker": self.attacker.state_dict(), "notes": dict(self.notes)}

    def load_state_dict(self, state: State) -> None:
        """Take up a state of `state_dict`."""
        self.attacker.load_state_dict(state["attacker"])
        self.notes = dict(state["notes"])


class PerturbationNetwork(nn.Module):
    """Residual image-to-image network in the style of Johnson et al. (GAP; Poursaeed et al., CVPR 2018; AEAHL-RG).

    A 7x7 convolution, two downsamplings by 2, residual blocks, two upsamplings by 2, a 7x7 convolution and tanh; 7.84 M
    parameters at width 64 and three channels. Weights from N(0, 0.02), BatchNorm's from N(1, 0.02), biases 0.
    """

    def __init__(self, channels: int, side: int, *, width: int = 64, blocks: int = 6) -> None:
        """Build it.

        Args:
            channels: of the images.
            side: the shorter side of the images; 8 pixels or more.
            width: channels after the first convolution; four times as many in the blocks.
            blocks: number of residual blocks.

        Raises:
            ValueError: if the images are too small.
        """
        super().__init__()
        require_side((channels, side, side), 8, "the perturbation network")
        self.layers = nn.Sequential(
            nn.ReflectionPad2d(3),
            *_stage(nn.Conv2d(channels, width, 7, bias=False)),
            *_stage(nn.Conv2d(width, 2 * width, 3, 2, 1, bias=False)),
            *_stage(nn.Conv2d(2 * width, 4 * width, 3, 2, 1, bias=False)),
            *(_Residual(4 * width) for _ in range(blocks)),
            *_stage(nn.ConvTranspose2d(4 * width, 2 * width, 3, 2, 1, 1, bias=False)),
            *_stage(nn.ConvTranspose2d(2 * width, width, 3, 2, 1, 1, bias=False)),
            nn.ReflectionPad2d(3),
            nn.Conv2d(width, channels, 7),
            nn.Tanh(),
        )
        reset_parameters_dcgan(self)

    def forward(self, images: Tensor) -> Tensor:
        """Map images (n,C,H,W) to perturbations (n,C,H,W) in (-1,1)."""
        # Two halvings round up, so that the doublings may end a few pixels beyond the image.
        return self.layers(images)[..., : images.shape[2], : images.shape[3]]


class _Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        convolutions = [nn.Conv2d(width, width, 3, bias=False) for _ in range(2)]
        self.layers = nn.Sequential(
            nn.ReflectionPad2d(1),
            *_stage(convolutions[0]),
            nn.ReflectionPad2d(1),
            convolutions[1],
            nn.BatchNorm2d(width),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


def _stage(convolution: nn.Conv2d | nn.ConvTranspose2d) -> tuple[nn.Module, nn.Module, nn.Module]:
    return convolution, nn.BatchNorm2d(convolution.out_channels), nn.ReLU()
