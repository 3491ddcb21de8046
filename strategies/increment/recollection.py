"""What a model still knows of its classes: samples made from its weights, without a sample it was trained on."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lra.features import FeatureTap
from lra.networks.composed import ConditionedGenerator
from lra.networks.generators import gen_s, sized_for
from lra.networks.normalized import Normalized
from lra.problem import Batch, Teacher
from lra.strategies.increment.options import RecollectionOptions
from lra.synthesis.online import ConditionedOnlineGenerator
from lra.synthesis.terms import Balance, BNStat, OneHot


class Known(nn.Module):
    """A model's logits of some of its classes only.

    Args:
        model: images -> logits (n, K).
        classes: those it has learnt.
    """

    def __init__(self, model: nn.Module, classes: Sequence[int]):
        super().__init__()
        self.model = model
        self.classes = list(classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (n, k) in the order of the classes."""
        return self.model(images)[:, self.classes]


class Recollection:
    """A frozen model and a generator that is trained from it and nothing else.

    Args:
        model: what is remembered; it must not change any more.
        classes: those it has learnt.
        image: (channels, height, width).
        options: of the generator.
        mean: per channel, what the model's images are normalised with; the generator's are in [0, 1] before.
        std: likewise.

    Attributes:
        model: the frozen model, all of its classes.
        synthesizer: the generator with its training and its counters.
    """

    def __init__(
        self,
        model: nn.Module,
        classes: Sequence[int],
        image: tuple[int, int, int],
        options: RecollectionOptions,
        mean: Sequence[float],
        std: Sequence[float],
    ):
        self.model = model
        self._mean, self._std = mean, std
        self._device = device = next(model.parameters()).device
        width, latent = sized_for(image)
        width, latent = options.width or width, options.latent or latent
        generator = ConditionedGenerator(gen_s(latent, image, width=width), len(classes)).to(device)
        self._known = Known(model, classes)
        self.synthesizer = ConditionedOnlineGenerator(
            generator,
            torch.optim.Adam(generator.parameters(), lr=options.generator_lr, betas=(0.5, 0.999)),
            [OneHot(options.one_hot), BNStat(options.bn), Balance(options.balance), options.triplet_term()],
            Teacher(self._normalised(self._known)),
            latent,
            options.generator_batch,
            options.generator_steps,
        )

    def train(self, learner: nn.Module) -> None:
        """Train the generator; ``learner``, the model that will be shown the samples, is only looked at.

        Raises:
            ValueError: if BatchNorm statistics are asked for and the model has none.
        """
        self.synthesizer.step(self._normalised(learner))

    @torch.no_grad()
    def sample(self, n: int) -> Batch:
        """``n`` images, normalised, of classes asked for at random, with the frozen model's answers (n, k)."""
        images = self.synthesizer.draw(n)
        images = self._normalised(nn.Identity())(images)
        return Batch(images, self.answer(images))

    @torch.no_grad()
    def answer(self, images: Tensor) -> Tensor:
        """The frozen model's logits (n, k), in the order of the classes, of normalised images (n, C, H, W)."""
        return self._known(images)

    @torch.no_grad()
    def impression(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """`answer` (n, k), and the frozen model's penultimate features (n, d)."""
        with FeatureTap(self.model, images.shape[1:]) as tap:
            return self.answer(images), tap.features

    def _normalised(self, model: nn.Module) -> Normalized:
        return Normalized(model, self._mean, self._std).to(self._device)
