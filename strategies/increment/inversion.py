"""A generator that inverts a frozen model, and what the published strategies that replay from it have in common.

Smith et al., "Always Be Dreaming", ICCV 2021. With o the logits of the n old classes, and p̄ the mean of softmax o over
the batch:

    G <- Adam on  one_hot·CE(o/τ, argmax o) + balance·Σ_k p̄_k ln p̄_k / ln n
                  + bn·mean_l KL(N(M_l, V_l) ‖ N(m_l, v_l)) + smooth·‖x - blur x‖²/numel

M, V are the running statistics of BatchNorm layer l, m, v those of the batch. At the published τ = 1000 the first term
has almost no gradient. In train mode G's images have mean 0 and variance 1 per channel; for the model they are rescaled
to the mean and standard deviation of the benchmark's images, measured in the first experience unless given.
"""

from abc import abstractmethod
from collections.abc import Sequence
from math import log
from typing import ClassVar, cast

import torch
from avalanche.training.templates import SupervisedTemplate
from torch import Tensor, nn
from torch.utils.data import DataLoader

from lra.anatomy import classifier
from lra.features import FeatureTap
from lra.networks.generators import Rescale, UpsamplingGenerator, deepened, sized_for
from lra.problem import Batch, Teacher
from lra.randomness import sent
from lra.state import State, random_states, restore_random_states
from lra.strategies.increment.options import InversionOptions
from lra.strategies.increment.plugins import CarryingPlugin, FeaturePlugin, Known, frozen_copy, joined, refuse_unfit
from lra.synthesis.online import OnlineGenerator
from lra.synthesis.terms import Balance, BNStat, OneHot, Smoothness


class Inversion:
    """A generator with its optimiser, which can be trained from one frozen model after another.

    Args:
        options: of the generator.
        image: (channels, height, width).
        mean: of the images that the models take, per channel.
        std: likewise.
        device: where to train.

    Attributes:
        generator_steps: taken so far.
    """

    def __init__(
        self,
        options: InversionOptions,
        image: tuple[int, int, int],
        mean: Sequence[float],
        std: Sequence[float],
        device: torch.device,
    ):
        self.options = options
        width, latent = sized_for(image)
        width, self.latent = options.width or width, options.latent or latent
        channels, zero, one = deepened((width, width, max(1, width // 2)), image), [0.0] * image[0], [1.0] * image[0]
        self.generator = UpsamplingGenerator(
            self.latent, image, channels=channels, head="standardised", bias=True, bn_eps=0.8, mean=zero, std=one
        ).to(device)
        self.optimiser = torch.optim.Adam(self.generator.parameters(), lr=options.generator_lr, fused=True)
        self.rescale = Rescale(image[0], mean, std).to(device)
        self.generator_steps = 0
        self._synthesizer: OnlineGenerator | None = None

    def train(self, model: nn.Module, classes: Sequence[int]) -> None:
        """Train it from ``model``, which is frozen and has learnt ``classes``.

        Raises:
            ValueError: if BatchNorm statistics are needed and the model has none.
        """
        o = self.options
        # A single class is always balanced.
        balance = o.balance / log(len(classes)) if len(classes) > 1 else 0.0
        self._synthesizer = OnlineGenerator(
            self.generator,
            self.optimiser,
            [
                OneHot(o.one_hot, o.one_hot_temperature),
                Balance(balance),
                BNStat(o.bn, gap="kl", reduce="mean", order="running"),
                Smoothness(o.smooth),
            ],
            Teacher(nn.Sequential(self.rescale, Known(model, classes))),
            self.latent,
            o.generator_batch,
            o.generator_steps,
        )
        self._synthesizer.step(nn.Identity())
        self.generator_steps += self._synthesizer.generator_steps

    @torch.no_grad()
    def sample(self, n: int) -> Tensor:
        """``n`` images (n, C, H, W), normalised as the model takes them."""
        assert self._synthesizer is not None
        return cast(Tensor, self.rescale(self._synthesizer.draw(n)))

    def forget(self) -> None:
        """Keep the generator, but let go of the model."""
        self._synthesizer = None

    def state_dict(self) -> State:
        """Generator and optimiser."""
        return {"generator": self.generator.state_dict(), "optimiser": self.optimiser.state_dict()}

    def load_state_dict(self, state: State) -> None:
        """Restore them."""
        self.generator.load_state_dict(state["generator"])
        self.optimiser.load_state_dict(state["optimiser"])


class InversionPlugin(FeaturePlugin, CarryingPlugin):
    """Replays from an `Inversion` of the model before the experience; a subclass defines the loss.

    For a `SupervisedTemplate` with a single-head model, whose head grows (`IncrementalClassifier`) or has all classes
    from the start. What other plugins add to the loss is kept.

    Args:
        options: of the inversion and the loss; the published ones if not given.
        mean: of the images of the benchmark, per channel; measured in the first experience if not given.
        std: likewise.

    Attributes:
        classes: met in earlier experiences, in order.
        new: those of the current experience.
        old: the frozen model before the current experience; ``None`` in the first.
        inversion: of that model.
    """

    persistent = True
    """Whether generator and optimiser persist from one experience to the next."""
    together = True
    """Whether real and synthetic images pass through the model in one batch, and count in the strategy's metrics."""

    published: ClassVar[type[InversionOptions]] = InversionOptions
    """The class of its options."""

    def __init__(
        self,
        options: InversionOptions | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ):
        super().__init__()
        self.options = options or self.published()
        self.mean, self.std = mean, std
        self.classes: list[int] = []
        self.new: list[int] = []
        self.old: nn.Module | None = None
        self.inversion: Inversion | None = None
        self.replayed: Batch | None = None
        self._saved: State | None = None

    def state_dict(self) -> State:
        """Classes, mean and standard deviation of images, and the generator if it persists."""
        saved = self._saved if self.inversion is None else self.inversion.state_dict()
        state = {"classes": self.classes, "mean": self.mean, "std": self.std, "generator_steps": self.generator_steps}
        return state | {"inversion": saved}

    def load_state_dict(self, state: State) -> None:
        """Restore them."""
        self.classes, self.generator_steps = list(state["classes"]), state["generator_steps"]
        self.mean, self.std, self._saved = state["mean"], state["std"], state["inversion"]

    def before_training(self, strategy: SupervisedTemplate, **kwargs: object) -> None:
        """Refuse models that cannot be inverted, before any time is spent on them.

        Raises:
            ValueError: for a model with several heads, without the BatchNorm layers that ``bn`` needs, or without a
                linear head.
        """
        refuse_unfit(self, strategy.model, self.options.bn > 0)
        if not any(isinstance(module, nn.Linear) for module in strategy.model.modules()):
            raise ValueError(
                f"{type(self).__name__} needs a linear head, and the model has none: "
                "choose one that ends in a Linear layer"
            )

    def before_training_exp(self, strategy: SupervisedTemplate, **kwargs: object) -> None:
        """Freeze the model and invert it."""
        self.new = sorted(strategy.experience.classes_in_this_experience)
        if not self.classes:
            if self.mean is None or self.std is None:
                self.mean, self.std = moments_of(strategy.experience.dataset)
            return
        assert self.mean is not None
        assert self.std is not None
        channels, height, width = strategy.experience.dataset[0][0].shape
        self.old = frozen_copy(strategy.model)
        if self.inversion is None or not self.persistent:
            device = next(self.old.parameters()).device
            random = random_states()
            self.inversion = Inversion(self.options, (channels, height, width), self.mean, self.std, device)
            if self._saved is not None:
                self.inversion.load_state_dict(self._saved)
                restore_random_states(random)  # a generator that goes on has drawn no weights
            self._saved = None
        before = self.inversion.generator_steps
        self.inversion.train(self.old, self.classes)
        self.generator_steps += self.inversion.generator_steps - before

    def before_training_iteration(self, strategy: SupervisedTemplate, **kwargs: object) -> None:
        """Draw as many images as there are real ones; with ``together`` they join the minibatch."""
        if self.inversion is None or self.old is None:
            return
        images = self.inversion.sample(len(strategy.mbatch[0]))
        with torch.no_grad():
            self.replayed = Batch(images, self.old(images)[:, self.classes])
        if self.together:
            strategy.mbatch = joined(strategy.mbatch, images, self.named)

    @property
    def named(self) -> Tensor:
        """The classes (m,) that the old model predicts for the replayed images."""
        assert self.replayed is not None
        found = self.replayed.logits.argmax(dim=1)
        return sent(torch.tensor(self.classes), found.device)[found]

    def head(self, strategy: SupervisedTemplate) -> nn.Module:
        """The layer that maps features to the model's logits, for all classes, met or not."""
        return classifier(strategy.model, strategy.mb_x.shape[1:])

    def old_head(self, image: Sequence[int]) -> Tensor:
        """The rows (k, d) of the old model's head for its classes."""
        assert self.old is not None
        weight = classifier(self.old, image).weight
        assert isinstance(weight, Tensor)
        return weight[self.classes]

    def looks_at_features(self) -> bool:
        """Whether there is an old model whose features matter."""
        return self.old is not None

    @torch.no_grad()
    def remembered(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The old model's logits (n, k) for its classes, and its penultimate features (n, d)."""
        assert self.old is not None
        with FeatureTap(self.old, images.shape[1:]) as tap:
            return self.old(images)[:, self.classes], tap.features

    def before_backward(self, strategy: SupervisedTemplate, **kwargs: object) -> None:
        """Replace the minibatch's loss by the strategy's own."""
        features = self.features()
        if self.old is None or features is None:
            return
        strategy.loss += self.loss(strategy, strategy.mb_output, features) - strategy.criterion()

    @abstractmethod
    def loss(self, strategy: SupervisedTemplate, outputs: Tensor, features: Tensor) -> Tensor:
        """Loss () of the model's outputs (n, K) and penultimate features (n, d) for the minibatch; called from the
        second experience on."""

    def after_training_exp(self, strategy: SupervisedTemplate, **kwargs: object) -> None:
        """Note the classes, and forget everything that does not persist."""
        self.classes = sorted({*self.classes, *self.new})
        self.old = self.replayed = None
        if self.inversion is not None:
            self.inversion.forget()
        if not self.persistent:
            self.inversion = None


def moments_of(data: Sequence[tuple[Tensor, object]]) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each channel over all pixels of the images of an experience."""
    images = torch.cat([batch[0].double() for batch in DataLoader(data.eval(), 512)])  # type: ignore[attr-defined]
    variance, mean = torch.var_mean(images, (0, 2, 3), correction=0)
    return mean.tolist(), variance.sqrt().clamp_min(1e-3).tolist()
