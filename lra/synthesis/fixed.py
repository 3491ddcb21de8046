"""Sources that never change, so that nothing drifts: what a student forgets of them is its own fluctuation, and noise.

The control for every claim about forgetting, and the floor of accuracy for "no generator learns". The control is ours;
dead leaves are those of Baradad et al., "Learning to See by Looking at Noise", NeurIPS 2021, in their release's form.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from lra.images import Image, per_channel, to_bytes
from lra.problem import Teacher
from lra.randomness import normal, permutation, sent
from lra.state import State, seeded, untouched
from lra.synthesis.synthesizer import FiniteBatch, Sampler, Synthesizer
from lra.synthesis.terms import TermValue

Family = Callable[[int], Tensor]
"""n -> images (n, C, H, W) in [0, 1], independent of one another, from the CPU's random numbers."""


class FixedSource(Synthesizer):
    """Always draws images from the same distribution; it never learns, and does not depend on the student.

    Args:
        family: draws the images.
        teacher: labels a finite set.
        seed: of the finite set, independent of the run's.
        distinct: number of images in all, drawn once and shown in every experience; ``None`` for fresh ones every time.
    """

    divisible = True

    def __init__(self, family: Family, teacher: Teacher, seed: int = 0, distinct: int | None = None):
        super().__init__()
        self.family = family
        self.teacher = teacher
        self.seed = seed
        self.distinct = distinct
        self._held: FiniteBatch | None = None

    def step(self, student: nn.Module) -> dict[str, TermValue]:
        """Update nothing; the first call draws a finite set, if there is one, with its own random numbers."""
        if self.distinct is not None and self._held is None:
            with seeded(self.seed):
                images = self.family(self.distinct)
            self._held = FiniteBatch(to_bytes(images), self.teacher.label(images).argmax(dim=1))
            self.images_generated += self.distinct
        return {}

    def updates(self, index: int) -> int:
        """0."""
        return 0

    @torch.no_grad()
    def draw(self, n: int) -> Tensor:
        """``n`` fresh images; from a finite set, without repetition as far as it has that many.

        Raises:
            ValueError: for a finite set, before the first `step`.
        """
        if self.distinct is None:
            self.images_generated += n
            return self.family(n)
        if self._held is None:
            raise ValueError("no experience is open: step() first")
        device = self._held.images.device
        where = torch.cat([permutation(self.distinct, device) for _ in range(-(-n // self.distinct))])[:n]
        return self.shown(self._held.images[where])

    def peek(self, n: int) -> Tensor:
        """As `draw`, with random states and counters restored."""
        before = self.images_generated
        with untouched():
            images = self.draw(n)
        self.images_generated = before
        return images

    def batch(self) -> FiniteBatch | None:
        """The finite set, the same in every experience."""
        return self._held

    def sampler(self) -> Sampler | None:
        """The random generator, if its images are unlimited; it equals its own average."""
        if self.distinct is not None or not isinstance(self.family, RandomGenerator):
            return None
        return Sampler(self.family.generator, self.family.drawn_by)

    def generator_to_reuse(self) -> nn.Module | None:
        """The random generator, if images are drawn from one."""
        return self.family.generator if isinstance(self.family, RandomGenerator) else None

    def imagine(self, n: int) -> Tensor | None:
        """Images of the random generator, if there is one."""
        return None if self.generator_to_reuse() is None else self.family(n)

    def state_dict(self) -> State:
        """The seed, the finite set, the random generator, counters."""
        generator = self.generator_to_reuse()
        own = {
            "seed": self.seed,
            "held": None if self._held is None else list(self._held),
            "generator": None if generator is None else generator.state_dict(),
        }
        return own | super().state_dict()

    def load_state_dict(self, state: State) -> None:
        """Take up a state of `state_dict`."""
        super().load_state_dict(state)
        self.seed = state["seed"]
        self._held = None if state["held"] is None else FiniteBatch(*state["held"])
        generator = self.generator_to_reuse()
        if generator is not None:
            generator.load_state_dict(state["generator"])


class RandomGenerator:
    """Images of a generator with its initial weights.

    It runs in evaluation mode, so that images do not depend on each other; its BatchNorm has the statistics of 1024
    latents, 64 at a time.

    Args:
        make: builds the generator from random numbers alone, on its device.
        latent: size of its latents.
        seed: of its weights and its statistics.
    """

    def __init__(self, make: Callable[[], nn.Module], latent: int, seed: int = 0):
        self.latent = latent
        with seeded(seed), torch.no_grad():
            self.generator = make().requires_grad_(False)
            norms = [m for m in self.generator.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
            momenta = [norm.momentum for norm in norms]
            for norm in norms:
                norm.reset_running_stats()
                norm.momentum = None  # the plain mean over batches
            self.generator.train()
            for _ in range(16):
                self.generator(self._latents(64))
            for norm, momentum in zip(norms, momenta, strict=True):
                norm.momentum = momentum
        self.generator.eval()

    def _latents(self, n: int) -> Tensor:
        return normal(n, self.latent, device=next(self.generator.parameters()).device)

    def __call__(self, n: int) -> Tensor:
        """Images (n, C, H, W) from fresh latents."""
        return self.drawn_by(self.generator, n)

    @torch.no_grad()
    def drawn_by(self, generator: nn.Module, n: int) -> Tensor:
        """Images (n, C, H, W) from fresh latents, by a copy of the generator."""
        images: Tensor = generator.eval()(self._latents(n))
        return images


class Noise:
    """Each pixel drawn independently from its channel's N(mean, std), clipped to [0, 1].

    Args:
        image: channels, height and width.
        mean: of the data, one per channel.
        std: as ``mean``.
        device: where the images go.
    """

    def __init__(self, image: Image, mean: Sequence[float], std: Sequence[float], device: torch.device):
        self.image = image
        self.mean = per_channel(mean, image[0], "mean").to(device)
        self.std = per_channel(std, image[0], "std").to(device)
        self.device = device

    def __call__(self, n: int) -> Tensor:
        """(n, C, H, W)."""
        return (self.mean + self.std * normal(n, *self.image, device=self.device)).clamp(0, 1)


class DeadLeaves:
    """Opaque single-coloured shapes that fall on each other until the ground is covered: edges at every scale.

    The radius r, as a fraction of the shorter side, is drawn from 200 equal steps of [0.03, 1] with weight 1/r³ - 1,
    and is at least a pixel. With equal probability the shape is a disc, or, inscribed in one, a square, a square at an
    angle, a rectangle, a triangle or a quadrilateral with vertices anywhere on its rim. Colour and position are
    uniform. No image gets more than ``most`` shapes; what is still bare then stays black.

    Args:
        image: channels, height and width.
        device: where the images go.
        most: largest number of shapes per image, 5000 as released.
    """

    def __init__(self, image: Image, device: torch.device, most: int = 5000):
        self.image = image
        self.device = device
        self.most = most
        self.radii = torch.linspace(0.03, 1, 200)
        self.weights = self.radii**-3 - 1

    def __call__(self, n: int) -> Tensor:
        """(n, C, H, W)."""
        channels, height, width = self.image
        images, bare = torch.zeros(n, height * width, channels), torch.ones(n, height * width, dtype=torch.bool)
        together = 8 * max(height, width)
        for fallen in range(0, self.most, together):
            rows = bare.any(dim=1).nonzero().flatten()
            if not len(rows):
                break
            images[rows], bare[rows] = self._fall(images[rows], bare[rows], min(together, self.most - fallen))
        return sent(images.transpose(1, 2).reshape(n, *self.image), self.device)

    def _fall(self, images: Tensor, bare: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """Let ``count`` shapes fall on each image (n, H·W, C), one after another until it is covered.

        Returns:
            The images, and what is still bare of them (n, H·W).
        """
        n, pixels, channels = images.shape
        where, order = self._covered(n, count)
        # When each pixel is first met; the last bare one to be met ends it.
        met = torch.full((n * pixels,), count).scatter_reduce_(0, where, order, "amin").view(n, pixels)
        last = torch.where(bare, met, -1).amax(dim=1)
        counts = order <= last[where // pixels]
        top = torch.full((n * pixels,), -1).scatter_reduce_(0, where[counts], order[counts], "amax").view(n, pixels, 1)
        colours = torch.rand(n, count, channels).gather(1, top.clamp_min(0).expand(-1, -1, channels))
        return torch.where(top >= 0, colours, images), bare & (met == count)

    def _covered(self, n: int, count: int) -> tuple[Tensor, Tensor]:
        """Draw ``count`` shapes for each of ``n`` images: each pixel covered (of n·H·W), and by which shape of them."""
        _, height, width = self.image
        drawn = torch.multinomial(self.weights, n * count, replacement=True)
        radius = (self.radii[drawn] * min(height, width)).clamp_min(1)
        centre = torch.rand(n * count, 2) * torch.tensor([height, width])
        kind = torch.randint(6, (n * count,))
        corners = radius[:, None, None] * self._corners(kind)
        found = []
        # Most are small: only so many pixels are looked at as a shape can reach.
        smaller = 0.0
        for reach in (1, 2, 4, 8, math.inf):
            chosen = ((radius > smaller) & (radius <= reach)).nonzero().flatten()
            smaller = reach
            y, x = (self._window(centre[chosen, axis], reach, side) for axis, side in enumerate((height, width)))
            down, right = y + 0.5 - centre[chosen, :1], x + 0.5 - centre[chosen, 1:]
            apart = torch.stack(torch.broadcast_tensors(down[:, :, None], right[:, None, :]), dim=1).flatten(2)
            inside = _inside(apart, radius[chosen], kind[chosen], corners[chosen])
            at = (chosen[:, None, None] // count * height + y[:, :, None]) * width + x[:, None, :]
            found.append((at.flatten(1)[inside], (chosen % count)[:, None].expand_as(inside)[inside]))
        where, order = zip(*found, strict=True)
        return torch.cat(where), torch.cat(order)

    @staticmethod
    def _window(centre: Tensor, reach: float, side: int) -> Tensor:
        """Pixels (m, w) along one side that a shape around ``centre`` (m,) can cover, and some beside them."""
        size = int(min(side, 2 * reach + 1))
        first = (centre - reach - 0.5).ceil().clamp(0, side - size) if size < side else torch.zeros_like(centre)
        return first.long()[:, None] + torch.arange(size)

    @staticmethod
    def _corners(kind: Tensor) -> Tensor:
        """Corners (m, 4, 2) on the unit circle, anticlockwise, for shapes of kinds 1 to 5 (m,)."""
        m = len(kind)
        quarter, turn, slope = torch.arange(4) * (math.pi / 2) + math.pi / 4, torch.rand(m, 1), torch.rand(m, 1)
        half = slope * (math.pi / 2)
        square = quarter.expand(m, 4)
        turned = 2 * math.pi * turn
        rectangle = torch.cat([half, math.pi - half, math.pi + half, 2 * math.pi - half], dim=1)
        anywhere = 2 * math.pi * torch.rand(m, 4).sort(dim=1).values
        triangle = torch.cat([anywhere[:, :3], anywhere[:, 2:3]], dim=1)
        kinds = torch.stack([square, square, square + turned, rectangle + turned, triangle, anywhere])
        angles = kinds[kind, torch.arange(m)]
        return torch.stack([angles.cos(), angles.sin()], dim=2)


def _inside(apart: Tensor, radius: Tensor, kind: Tensor, corners: Tensor) -> Tensor:
    """Which points (m, p) lie inside each shape, given their offsets (m, 2, p) from its centre."""
    inside = apart.square().sum(dim=1) <= radius[:, None] ** 2
    for start, end in zip(corners.unbind(1), corners.roll(-1, 1).unbind(1), strict=True):
        along, off = (end - start)[..., None], apart - start[..., None]
        inside &= (along[:, 0] * off[:, 1] - along[:, 1] * off[:, 0] >= 0) | (kind == 0)[:, None]
    return inside
