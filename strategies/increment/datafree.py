"""Replay without data, as a plugin for an ordinary Avalanche strategy on a class-incremental benchmark.

Before every experience from the second on, with f' a frozen copy of the current model and C' the classes it knows:

    y ~ C',  x = G(z, y)
    G <- Adam on  one_hot·CE(f'(x), y) + bn·R_bn(f'; x) + balance·(-H(mean softmax f'(x)))
                  [+ triplet·L_tri(maps of f; swapped)]

Then, for every minibatch of real samples (x, y) of the new classes C, with equally many x' = G(z, y'):

    L_acq(θ) = CE(f(x; θ), y) + distil_new·KL(softmax f'(x) ‖ softmax f(x; θ), both over C')
    L_ret(θ) = KL(p' ‖ softmax f(x'; θ)),   p' = softmax f'(x') over C', 0 on new classes
    L_feat(θ) = mean of distil_features·‖φ(x; θ) - φ'(x)‖² + distil_importance·‖W'(φ(x; θ) - φ'(x))‖²/|C'|
                over x and x',   φ the penultimate features, W' the head of f' (both off by default)
    minimise   s·L_acq(θ) + (1 - s)·L_ret(θ') + L_feat(θ),   s = |C|/(|C| + |C'|),
    θ' = θ,   or θ - α s ∇L_acq(θ) with the LRA step, one α for each tensor, learned on the same objective

Parts of ABD and R-DFCIL (`abd`, `rdfcil`) can be added: in L_acq the cross-entropy over C alone (``local``), in L_ret
the difference of logits over C' (``distil`` hard), beside L_feat the angles between real images (``relation``) and the
head's cross-entropy over all classes (``head_ce``), final steps in which only the head learns (``head_share``), the
divergence of BatchNorm statistics (``bn_gap``), and a generator that persists across experiences (``persistent``).

Every class has equal weight, and the samples show both how the old classes relate and that they are not new ones.
Sources: Smith et al., "Always Be Dreaming", ICCV 2021 (a generator from the old model alone, distillation of
features); Li and Hoiem, ECCV 2016 (distillation on the new images); Patel et al., CVPR 2023 (the LRA step). New and
replayed samples pass through the model together, in both losses, so that BatchNorm normalises them together.

Weights and BatchNorm statistics are all that is carried from one experience to the next, with ``persistent`` those of
the generator too: no sample is kept. With ``align_steps`` the head is finally fitted to the features of all classes,
see `HeadFit`, and mean and covariance of each class's features are carried as well.
"""

from collections.abc import Sequence
from copy import deepcopy

import torch
from avalanche.training.templates import SupervisedTemplate
from torch import Tensor, nn

from lra.anatomy import classifier
from lra.distances import kl, l1, local_cross_entropy, through_head
from lra.meta.options import LookAheadOptions
from lra.meta.step import LookAheadStep
from lra.problem import Batch
from lra.randomness import sent
from lra.state import State
from lra.strategies.increment.head_fit import Former, HeadFit, Spread
from lra.strategies.increment.options import DataFreeReplayOptions
from lra.strategies.increment.parts import IMPOSSIBLE, BalancedHead, Relation, by_share, refuse_few
from lra.strategies.increment.plugins import CarryingPlugin, FeaturePlugin, joined, refuse_unfit
from lra.strategies.increment.recollection import Recollection

FOLLOWED = 512
"""Synthetic images that, together with the new ones, show how the features of old classes have moved."""


class DataFreeReplayPlugin(FeaturePlugin, CarryingPlugin):
    """Replays old classes from the model alone; see the module for what it minimises.

    For a `SupervisedTemplate` with a single-head model, whose head grows (`IncrementalClassifier`) or has all classes
    from the start. The replayed samples join the minibatch, labelled with the class the old model predicts, and what
    other plugins add to the loss is kept.

    Args:
        options: of the generator and the step.
        mean: with which the benchmark normalises its images, per channel; omit it if they are in [0, 1].
        std: likewise.
        steps: per experience, if it ends before all of the strategy's epochs are over (needed for ``head_share``).

    Attributes:
        classes: met in earlier experiences.
        head_fit: fits the head, if that is asked for.
        recollection: of the model before the current experience; ``None`` in the first.
        replayed: what was replayed in the current step.
        lookahead: the LRA step in the current experience, if it is taken.
        rates: α of each parameter at the end of the last experience, by parameter name, if they were learned.
        relation: of real images in the current experience, if ``relation`` is on.
        balanced: the final steps of the head alone, if asked for.
        generator_steps: taken in all experiences so far.
    """

    def __init__(
        self,
        options: DataFreeReplayOptions | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        steps: int | None = None,
    ):
        super().__init__()
        self.options = options or DataFreeReplayOptions()
        self.steps = steps
        self.mean, self.std = mean, std
        self.classes: list[int] = []
        self.head_fit = HeadFit(self.options) if self.options.align_steps else None
        self.recollection: Recollection | None = None
        self.replayed: Batch | None = None
        self.lookahead: LookAheadStep | None = None
        self.rates: dict[str, float] = {}
        self.relation: Relation | None = None
        self.balanced: BalancedHead | None = None
        self.generator_steps = 0
        self._weights: State | None = None

    def state_dict(self) -> State:
        """What is carried from one experience to the next in addition to the model."""
        known = {} if self.head_fit is None else self.head_fit.features.known
        features = {str(label): [spread.mean, spread.covariance] for label, spread in known.items()}
        state = {"classes": self.classes, "generator_steps": self.generator_steps, "features": features}
        return state | {"generator": self._weights}

    def load_state_dict(self, state: State) -> None:
        """Restore it."""
        self.classes, self.generator_steps = list(state["classes"]), state["generator_steps"]
        self._weights = state["generator"]
        if self.head_fit is not None:
            self.head_fit.features.known = {int(k): Spread(*moments) for k, moments in state["features"].items()}

    @property
    def class_statistics(self) -> int:
        """How many numbers fitting the head keeps."""
        return 0 if self.head_fit is None else self.head_fit.features.size

    def before_training(self, strategy: SupervisedTemplate, **kwargs: object) -> None:
        """Refuse unsuitable models before any time is spent on them.

        Raises:
            ValueError: for a model with several heads, without the BatchNorm layers that ``bn`` needs, or without the
                linear head that other options need; and for minibatches too small for ``relation``.
        """
        o = self.options
        refuse_unfit(self, strategy.model, o.bn > 0)
        of_head = [name for name in ("align_steps", "distil_importance", "head_ce", "head_share") if getattr(o, name)]
        if of_head and not any(isinstance(m, nn.Linear) for m in strategy.model.modules()):
            raise ValueError(
                f"{type(self).__name__} needs a linear head, and the model has none: "
                f"set {' and '.join(f'{name}=0' for name in of_head)}, or choose a model that ends in a Linear layer"
            )
        if o.relation:
            refuse_few(strategy.train_mb_size, "relation")

    def before_training_exp(self, strategy: SupervisedTemplate, **kwargs: object) -> None:
        """Freeze the model and train a generator from it."""
        if not self.classes:
            return
        # Only for its shape.
        channels, height, width = strategy.experience.dataset[0][0].shape
        mean, std = self.mean or [0.0] * channels, self.std or [1.0] * channels
        old = deepcopy(strategy.model)
        image = channels, height, width
        recollection = Recollection(old, self.classes, image, self.options, mean, std, self._weights)
        recollection.train(strategy.model)
        self._weights = recollection.weights
        self.recollection = recollection
        self.generator_steps += recollection.synthesizer.generator_steps
        if self.options.alpha is not None:
            o = LookAheadOptions(alpha=self.options.alpha, alpha_rate=self.options.alpha_rate, statistics="batch")
            # The strategy's own forward pass moves the statistics.
            self.lookahead = LookAheadStep(o, updates_statistics=False)
        self._open_parts(strategy, image)

    def _open_parts(self, strategy: SupervisedTemplate, image: tuple[int, int, int]) -> None:
        """Open what learns beside the model: projections for angles, and the head by itself."""
        o, along = self.options, []
        if not o.relation + o.head_share:
            return
        head = classifier(strategy.model, image)
        if o.relation:
            self.relation = Relation(next(head.parameters()).shape[1], o.relation_width, strategy)
            along.append(self.relation.optimiser)
        if o.head_share:
            met = {*self.classes, *strategy.experience.classes_in_this_experience}
            steps = self.steps or strategy.train_epochs * len(strategy.dataloader)
            self.balanced = BalancedHead(head, met, o.head_lr, steps, o.head_share)
            along.append(self.balanced.optimiser)
        self.companions = along

    def before_training_iteration(self, strategy: SupervisedTemplate, **kwargs: object) -> None:
        """Add samples of the old classes to the minibatch; freeze the body's statistics where only the head learns."""
        if self.recollection is None:
            return
        if self._head_alone:
            strategy.model.eval()
        images, classes, *_ = strategy.mbatch
        real = len(images)
        wanted = max(1, round(real * self._weight(strategy))) if self.options.balanced else real
        self.replayed = replayed = self.recollection.sample(self.options.size or wanted)
        named = sent(torch.tensor(self.classes), classes.device)[replayed.logits.argmax(dim=1)]
        strategy.mbatch = joined(strategy.mbatch, replayed.images, named)

    @property
    def _head_alone(self) -> bool:
        return self.balanced is not None and self.balanced.alone

    def looks_at_features(self) -> bool:
        """Whether any term needs them."""
        o = self.options
        asked = o.distil_features + o.distil_importance + o.relation + o.head_ce > 0
        return self.recollection is not None and (asked or self._head_alone)

    def before_backward(self, strategy: SupervisedTemplate, **kwargs: object) -> None:
        """Replace the loss of the joint minibatch by the objective."""
        features = self.features()
        if self.recollection is None or self.replayed is None:
            return
        if self._head_alone and features is not None:
            loss = self._of_head(strategy, features)
        else:
            loss = self._of_all(strategy, features)
        strategy.loss += loss - strategy.criterion()

    def _of_all(self, strategy: SupervisedTemplate, features: Tensor | None) -> Tensor:
        """The module's objective ()."""
        assert self.recollection is not None
        assert self.replayed is not None
        o, images, weight = self.options, strategy.mb_x, self._weight(strategy)
        new = len(images) - len(self.replayed.images)
        labels, classes = strategy.mb_y[:new], sorted(strategy.experience.classes_in_this_experience)
        if features is None:
            known, apart = self.recollection.answer(images[:new]), images.new_zeros(())
        else:
            answers, remembered = self.recollection.impression(images)
            known, apart = answers[:new], self._of_features(strategy, features, remembered, new)

        def acquisition(outputs: Tensor) -> Tensor:
            distilled = kl(outputs[:new, self.classes], known, o.temperature).mean()
            if o.local:
                return local_cross_entropy(outputs[:new], labels, classes).mean() + o.distil_new * distilled
            return strategy._criterion(outputs[:new], labels) + o.distil_new * distilled

        def retention(outputs: Tensor) -> Tensor:
            return self._retention(outputs[new:])

        if self.lookahead is None:
            loss = acquisition(strategy.mb_output) + weight * retention(strategy.mb_output)
        else:
            with self.lookahead.open(strategy.model, share=1 / (1 + weight)) as look:
                loss = look.objective(lambda f: acquisition(f(images)), lambda f: retention(f(images)), weight)
        return loss / (1 + weight) + apart

    def _of_features(self, strategy: SupervisedTemplate, features: Tensor, remembered: Tensor, new: int) -> Tensor:
        """Terms () on features (n, d) and the old model's; the first ``new`` rows are of real images."""
        assert self.recollection is not None
        o, image = self.options, strategy.mb_x.shape[1:]
        apart = o.distil_features * (features - remembered).square().sum(dim=1).mean()
        if o.distil_importance:
            apart = (
                apart + o.distil_importance * through_head(features, remembered, self.recollection.head(image)).mean()
            )
        if o.head_ce:
            met = sorted({*self.classes, *strategy.experience.classes_in_this_experience})
            logits = classifier(strategy.model, image)(features.detach())
            each = local_cross_entropy(logits, strategy.mb_y, met)
            apart = apart + o.head_ce * by_share(each, new, 1 / (1 + self._weight(strategy)))
        if self.relation is not None:
            apart = apart + o.relation * self.relation(features[:new], remembered[:new])
        return apart

    def _of_head(self, strategy: SupervisedTemplate, features: Tensor) -> Tensor:
        """Loss () of the head alone: balanced classes, and distillation from the old model."""
        assert self.balanced is not None
        assert self.replayed is not None
        logits = classifier(strategy.model, strategy.mb_x.shape[1:])(features.detach())
        weight, old = self._weight(strategy), logits[-len(self.replayed.images) :]
        return self.balanced.loss(logits, strategy.mb_y) + weight / (1 + weight) * self._retention(old)

    def after_backward(self, strategy: SupervisedTemplate, **kwargs: object) -> None:
        """Learn α and update the projections; or update the head alone."""
        if self.balanced is not None and self._head_alone:
            self.balanced.step(strategy.optimizer)
            return
        if self.lookahead is not None:
            self.lookahead.learn()
        if self.relation is not None:
            self.relation.step(strategy.optimizer.param_groups[0]["lr"])

    def after_training_iteration(self, strategy: SupervisedTemplate, **kwargs: object) -> None:
        """Count down."""
        if self.balanced is not None:
            self.balanced.left -= 1

    def _weight(self, strategy: SupervisedTemplate) -> float:
        """Number of old classes per new one."""
        return len(self.classes) / len(strategy.experience.classes_in_this_experience)

    def _retention(self, outputs: Tensor) -> Tensor:
        """Distance () of outputs (m, K) for the replayed images from the old model's."""
        assert self.replayed is not None
        if self.options.distil == "hard":
            return l1(outputs[:, self.classes], self.replayed.logits).mean()
        answer = torch.full_like(outputs, IMPOSSIBLE)
        answer[:, self.classes] = self.replayed.logits
        return kl(outputs, answer, self.options.temperature).mean()

    def after_training_exp(self, strategy: SupervisedTemplate, **kwargs: object) -> None:
        """Fit the head if asked to, and note the classes; forget everything else."""
        if self.head_fit is not None:
            former = None
            if self.recollection is not None:
                former = Former(self.recollection.model, self.recollection.sample(FOLLOWED).images)
            self.head_fit.after_experience(strategy.model, strategy.experience.dataset, former)
        self.classes = sorted({*self.classes, *strategy.experience.classes_in_this_experience})
        self.rates = {} if self.lookahead is None else self.lookahead.rates(strategy.model)
        self.recollection = self.replayed = self.lookahead = self.relation = self.balanced = None
        self.companions = []
