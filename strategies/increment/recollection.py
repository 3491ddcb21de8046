"""Images of what a model has learnt, made without data: by a generator that is trained from the frozen model alone."""

from collections.abc import Sequence
from copy import deepcopy

import torch
from torch import Tensor, nn

from lra.anatomy import classifier
from lra.features import FeatureTap
from lra.networks.conditional import ConditionedGenerator
from lra.networks.folded import folded
from lra.networks.generators import gen_s, sized_for
from lra.networks.normalized import Normalized
from lra.problem import Batch, Teacher
from lra.state import State
from lra.strategies.increment.options import RecollectionOptions
from lra.strategies.increment.plugins import Known
from lra.synthesis.online import ConditionedOnlineGenerator
from lra.synthesis.terms import Balance, BNStat, OneHot, Smoothness


class Recollection:
    """A frozen model and a generator that is trained from it and nothing else.

    Args:
        model: the model to be remembered; it must not change any more.
        classes: those it has learnt.
        image: (channels, height, width).
        options: of the generator.
        mean: with which the model's images are normalised, per channel; the generator's are in [0, 1] before that.
        std: likewise.
        start: weights of an earlier generator to continue from, as in `weights`.

    Attributes:
        model: the frozen model, with all of its classes.
        synthesizer: the generator with its training and its counters.
        weights: of the trained generator without its class embedding, if it is to be continued from.
    """

    def __init__(
        self,
        model: nn.Module,
        classes: Sequence[int],
        image: tuple[int, int, int],
        options: RecollectionOptions,
        mean: Sequence[float],
        std: Sequence[float],
        start: State | None = None,
    ):
        self.model = model
        self._mean, self._std = mean, std
        self._device = device = next(model.parameters()).device
        width, latent = sized_for(image)
        width, latent = options.width or width, options.latent or latent
        body = gen_s(latent, image, width=width)
        if start is not None:
            body.load_state_dict(start)
        generator = ConditionedGenerator(body, len(classes)).to(device)
        self._persistent, self.weights = options.persistent, start
        self._known = Known(model, classes)
        self._answering = Teacher(self._known)
        self.synthesizer = ConditionedOnlineGenerator(
            generator,
            torch.optim.Adam(generator.parameters(), lr=options.generator_lr, betas=(0.5, 0.999), fused=True),
            [
                OneHot(options.one_hot, options.one_hot_temperature),
                BNStat(options.bn) if options.bn_gap == "l2" else BNStat(options.bn, 0, "kl", "mean", "running"),
                Balance(options.balance),
                Smoothness(options.smooth),
                options.triplet_term(),
            ],
            Teacher(self._normalised(self._known)),
            latent,
            options.generator_batch,
            options.generator_steps,
        )

    def train(self, learner: nn.Module) -> None:
        """Train the generator, once; ``learner``, the model that will see the samples, is not changed.

        Raises:
            ValueError: if BatchNorm statistics are needed and the model has none.
        """
        self.synthesizer.step(self._normalised(learner))
        generator = self.synthesizer.generator.eval()
        assert isinstance(generator, ConditionedGenerator)
        if self._persistent:
            self.weights = deepcopy(generator.generator.state_dict())
        generator.generator = folded(generator.generator)

    @torch.no_grad()
    def sample(self, n: int) -> Batch:
        """``n`` normalised images of random target classes, with the frozen model's logits (n, k)."""
        images = self.synthesizer.draw(n)
        images = self._normalised(nn.Identity())(images)
        return Batch(images, self.answer(images))

    def answer(self, images: Tensor) -> Tensor:
        """The frozen model's logits (n, k), in the order of the classes, for normalised images (n, C, H, W)."""
        return self._answering.label(images)

    @torch.no_grad()
    def impression(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """`answer` (n, k), and the frozen model's penultimate features (n, d)."""
        with FeatureTap(self.model, images.shape[1:]) as tap:
            return self._known(images), tap.features

    def head(self, image: Sequence[int]) -> Tensor:
        """The rows (k, d) of the frozen model's linear head for its classes, for images (C, H, W)."""
        weight = classifier(self.model, image).weight
        assert isinstance(weight, Tensor)
        return weight[self._known.classes]

    def _normalised(self, model: nn.Module) -> Normalized:
        return Normalized(model, self._mean, self._std).to(self._device)
