"""The strategy: an Avalanche `SupervisedTemplate` whose student learns from a teacher on a synthesis stream.

Avalanche's loop, callbacks, clock and evaluator are kept. Its data layer is bypassed on synthesis experiences,
because it indexes sample by sample and grows with the number of experiences; other experiences (a real test set,
for example) go through it as usual.

A student step, from start to end:

    1. new samples are drawn, a `Replay` provides replayed ones, and the minibatch is composed of both, or of the new
       ones alone where a `StudentStep` passes the replayed ones through the student separately;
    2. ``before_training_iteration`` of every plugin, which may `alter` what the student learns from;
    3. the student's forward pass, or that of the `StudentStep`, in which a view of the minibatch collects what the
       objective needs, and then the objective;
    4. ``before_backward`` of every plugin, which may add to the loss, or replace it by one with another gradient;
    5. the backward pass, the update, and ``after_training_iteration``.

Plugins are called in their order, which matters for step 4 alone: what plugins before the `StudentStep` add is part of
the loss along which it looks ahead.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar

import torch
from avalanche.core import BasePlugin, SupervisedPlugin
from avalanche.models import MultiTaskModule
from avalanche.training.plugins import EvaluationPlugin
from avalanche.training.templates import SupervisedTemplate
from torch import Tensor, nn
from torch.nn import functional as F

from lra.distillation.objective import Objective
from lra.networks.folded import folded
from lra.problem import Batch, Teacher, joined
from lra.randomness import drawn_on_device
from lra.state import Owner, State
from lra.strategies.stream import Draws, Slices, SynthesisExperience, SynthesisStream, TestExperience
from lra.view import StudentView


class Replay(SupervisedPlugin, Owner, ABC):
    """Decides which earlier samples the student sees beside the new ones, and what to remember of each experience.

    Args:
        size: images replayed per step.

    Attributes:
        held: name of the option for the total number of images held, if there is one; several processes share it.
        displaced: new images of each step that replayed ones replace.
        most_displaced: the most that it may come to replace.
        completed: experiences seen, including those of earlier tasks where it has taken over their memory.
    """

    held: ClassVar[str | None] = None
    displaced: int = 0
    most_displaced: int = 0
    completed: int = 0

    def __init__(self, size: int):
        super().__init__()
        self.size = size

    @abstractmethod
    def recall(self) -> Batch | None:
        """The samples to replay at this step, or ``None`` while there is nothing to remember."""

    def shown(self, count: int) -> Tensor | None:
        """At most ``count`` images (n, C, H, W) in [0, 1] of those it would replay, for display.

        Has no side effects. ``None`` while there is nothing to show, or if the replay does not support it.
        """
        return None

    @abstractmethod
    def remember(self, strategy: "DataFreeDistillation") -> None:
        """Store what is to be remembered of the experience that ends: number ``completed``, counted from 1."""

    def classes(self) -> Tensor | None:
        """(N,) int64: the classes of the images it holds; ``None`` if it holds none."""
        return None

    def after_training_exp(self, strategy: "DataFreeDistillation", **kwargs: object) -> None:
        """Count the experience, and remember it."""
        self.completed += 1
        self.remember(strategy)

    @abstractmethod
    def state_dict(self) -> State:
        """The state of the memory; subclasses add their own to it."""
        return {"completed": self.completed}

    @abstractmethod
    def load_state_dict(self, state: State) -> None:
        """Restore a state from `state_dict`; subclasses call this before they restore their own."""
        self.completed = state["completed"]

    def begin_with(self, state: State, teacher: Teacher) -> None:
        """Start a task from the `state_dict` of an earlier task's replay; ``teacher`` renews any stored logits.

        Raises:
            KeyError, RuntimeError, ValueError: if the state does not fit.
        """
        self.load_state_dict(state)


def leave_new_images(plugins: Sequence[object], batch_size: int) -> None:
    """Check that the replays among ``plugins`` leave room for new images in a step of ``batch_size``.

    Raises:
        ValueError: if together they may replace all.
    """
    most = sum(plugin.most_displaced for plugin in plugins if isinstance(plugin, Replay))
    if most >= batch_size:
        raise ValueError(
            f"what is replayed may replace {most} of the {batch_size} new images of a step and leave none: replay a "
            "smaller fraction, or replay beside the new images"
        )


class StudentStep(SupervisedPlugin):
    """Computes the student's step in its own way, as `lra.strategies.lra.LRA` does; a run has at most one."""

    def apart(self, strategy: "DataFreeDistillation") -> bool:
        """Whether replayed samples stay out of the next minibatch, and the plugin passes them through the student."""
        return False

    def view(self, strategy: "DataFreeDistillation") -> StudentView | None:
        """The minibatch seen through a forward pass other than the student's own; ``None`` to use the student's own."""
        return None


class DataFreeDistillation(SupervisedTemplate):
    """Distils ``teacher logits`` of drawn images into ``model``, one student step per minibatch.

    Args:
        model: the student, images in [0, 1] -> logits (n, K).
        optimizer: of the student.
        objective: what the student minimises on a batch.
        train_mb_size: new images per student step.
        eval_mb_size: images per evaluation batch.
        plugins: Avalanche plugins, in the order in which they are called; the one that schedules evaluations last.
        evaluator: Avalanche's evaluator; `QuietEvaluation` saves time on long streams.
        device: where to train.
        precision: of the student's training passes, by autocast: ``torch.bfloat16`` halves their time for a ResNet on
            hardware that supports it. Weights, losses, evaluation and synthesis are not affected.
        drawn_on_device: let the device draw the random numbers that it needs in training, see `lra.randomness`.
        stock_data: use Avalanche's datasets and loaders for synthesis experiences too, for plugins that work on
            them (such as its `ReplayPlugin`). Slow, and grows with the number of experiences.

    Raises:
        ValueError: if the model has a head for each task, since a synthesis stream has only one task, or if the replays
            among ``plugins`` may leave no new images.

    Attributes:
        acquired: the new samples of the current step, as they were drawn.
        replayed: the replayed samples of the current step, or ``None``.
        answered: the student's logits (r, K) for the replayed samples, once computed in this step; without a graph.
        stopped: what stopped training on the stream, if anything did; see `stop_training`.
    """

    dataloader: Iterable[Any]

    def __init__(
        self,
        *,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        objective: Objective,
        train_mb_size: int,
        eval_mb_size: int = 512,
        plugins: Sequence[BasePlugin[Any]] | None = None,
        evaluator: EvaluationPlugin | None = None,
        device: str | torch.device = "cpu",
        precision: torch.dtype = torch.float32,
        drawn_on_device: bool = False,
        stock_data: bool = False,
        **kwargs: Any,
    ):
        if heads := [name or "model" for name, part in model.named_modules() if isinstance(part, MultiTaskModule)]:
            raise ValueError(
                f"{heads[0]} has a head for each task, and {type(self).__name__} works on a stream without tasks: "
                "give the student a single head, an nn.Linear over all classes"
            )
        leave_new_images(plugins or (), train_mb_size)
        super().__init__(
            model=model,
            optimizer=optimizer,
            # Avalanche's regularisers call this one, on bare logits; our own loop asks `criterion` below.
            criterion=_OnLogits(objective),
            train_mb_size=train_mb_size,
            eval_mb_size=eval_mb_size,
            plugins=plugins,
            evaluator=evaluator,
            device=device,
            **kwargs,
        )
        self.objective = objective
        self.precision = precision
        self.drawn_on_device = drawn_on_device
        self.stock_data = stock_data
        self.acquired: Batch | None = None
        self.replayed: Batch | None = None
        self.answered: Tensor | None = None
        self.stopped: str | None = None
        self._view: StudentView | None = None
        self._examined: nn.Module = model
        self._recalled: list[tuple[Replay, int]] = []
        self._weights: Tensor | None = None
        self._stream: SynthesisStream | None = None
        # The first train() would otherwise wipe the optimiser's state and put every parameter in it.
        self.optimized_param_id = dict(model.named_parameters())

    def train(self, experiences: Any, eval_streams: Sequence[Any] = (), **kwargs: Any) -> dict[str, Any]:
        """Train on a stream; unlike Avalanche's default, this never iterates over it for evaluation first."""
        if isinstance(experiences, SynthesisStream):
            experiences.student = self.model
            self._stream = experiences
        with drawn_on_device(self.drawn_on_device):
            # Avalanche assigns into the sequence it is given.
            return super().train(experiences, list(eval_streams), **kwargs)

    def stop_training(self) -> None:
        """End training on the stream after the current step: there are no more steps and no more experiences.

        Avalanche alone would end only the epochs of the current experience, and here that has a single epoch.
        """
        super().stop_training()
        if self._stream is not None:
            self._stream.ended = True
            self.stopped = self.stopped or "a plugin"

    @property
    def synthesis(self) -> SynthesisExperience | None:
        """The current experience, if it belongs to a synthesis stream."""
        return self.experience if isinstance(self.experience, SynthesisExperience) else None

    def train_dataset_adaptation(self, **kwargs: Any) -> None:
        """Turn the experience into a finite dataset only with ``stock_data``."""
        if self.synthesis is None or self.stock_data:
            super().train_dataset_adaptation(**kwargs)

    def make_train_dataloader(self, **kwargs: Any) -> None:
        """Draw directly from the sample source, a fresh batch per step."""
        if self.synthesis is None or self.stock_data:
            super().make_train_dataloader(**kwargs)
        else:
            # Replays settle what they displace after this and before the first draw.
            size, over = lambda: self.train_mb_size - self.displaced, lambda: self.stopped is not None
            self.dataloader = Draws(self.synthesis, size, over)

    def eval_dataset_adaptation(self, **kwargs: Any) -> None:
        """Leave a test experience held in tensors as it is."""
        if not isinstance(self.experience, TestExperience):
            super().eval_dataset_adaptation(**kwargs)

    def make_eval_dataloader(self, **kwargs: Any) -> None:
        """Slice a test experience held in tensors; load any other one as Avalanche does."""
        if isinstance(self.experience, TestExperience):
            self.dataloader = Slices(*self.experience.tensors, self.eval_mb_size)
        else:
            super().make_eval_dataloader(**kwargs)

    def eval_epoch(self, **kwargs: Any) -> None:
        """Evaluate; for a test set held in tensors, BatchNorm is folded into the student's convolutions."""
        self._examined = folded(self.model) if isinstance(self.experience, TestExperience) else self.model
        try:
            super().eval_epoch(**kwargs)
        finally:
            self._examined = self.model

    def check_model_and_optimizer(self, **kwargs: Any) -> None:
        """Leave model and optimiser alone on synthesis experiences, which bring no new classes."""
        if self.synthesis is None:
            super().check_model_and_optimizer(**kwargs)
        elif not self.model.training:
            # A plugin's doing: Avalanche's EWC, say, leaves the model in evaluation mode.
            self.model.train()

    def _after_training_exp(self, **kwargs: Any) -> None:
        """Call the plugins; many copy the student, so tensors that layers keep of the last pass are detached first."""
        for module in self.model.modules():
            # The weights of old-style weight norm, for example, cannot be copied while they are part of a graph.
            kept = {name: value for name, value in vars(module).items() if isinstance(value, Tensor)}
            vars(module).update({name: value.detach() for name, value in kept.items() if value.grad_fn is not None})
        super()._after_training_exp(**kwargs)

    def _unpack_minibatch(self) -> None:
        """Compose the minibatch of the step, before any plugin is called."""
        super()._unpack_minibatch()
        self._weights = self.answered = None
        if not self.is_training:
            return
        self.acquired = new = self.minibatch
        recalled = {replay: batch for replay in self._replays if (batch := replay.recall()) is not None}
        self._recalled = [(replay, len(batch.images)) for replay, batch in recalled.items()]
        self.replayed = joined([*recalled.values()]) if recalled else None
        if self.replayed is not None and not self._apart:
            self._show(joined([new, self.replayed]))

    @property
    def minibatch(self) -> Batch:
        """The batch of the current forward pass: new samples first, then replayed ones unless these are kept apart."""
        images, logits, *labels = self.mbatch[:-1]
        return Batch(images, logits, labels[0] if labels else None, self._weights)

    def brought_by(self, replay: Replay, values: Tensor) -> Tensor:
        """Those of ``values`` (r, …), one per sample ``replayed`` in this step, that belong to ``replay``'s samples."""
        parts = values.split([size for _, size in self._recalled])
        own = [part for part, (other, _) in zip(parts, self._recalled, strict=True) if other is replay]
        return own[0] if own else values[:0]

    def _show(self, batch: Batch) -> None:
        self._weights = batch.weights
        labels = [] if batch.labels is None else [batch.labels]
        tasks = torch.zeros(len(batch.images), dtype=torch.long, device=batch.images.device)
        self.mbatch = [batch.images, batch.logits, *labels, tasks]

    def alter(self, change: Callable[[Batch], Batch]) -> None:
        """Apply ``change`` to the minibatch, and to replayed samples kept out of it, before the student learns from it.

        The samples in ``acquired``, which are offered to buffers, stay as they are, and so do the weights.
        """
        self._show(change(self.minibatch)._replace(weights=self._weights))
        if self.replayed is not None and self._apart:
            self.replayed = change(self.replayed)._replace(weights=self.replayed.weights)

    @property
    def displaced(self) -> int:
        """New images of each step that replayed ones replace, fewer than ``train_mb_size``."""
        return sum(replay.displaced for replay in self._replays)

    def held(self) -> Tensor:
        """(N,) int64: the classes of all images that replays hold."""
        found = [classes for replay in self._replays if (classes := replay.classes()) is not None]
        return torch.cat(found) if found else torch.zeros(0, dtype=torch.long)

    @property
    def _replays(self) -> list[Replay]:
        return [plugin for plugin in self.plugins if isinstance(plugin, Replay)]

    @property
    def _step(self) -> StudentStep | None:
        return next((plugin for plugin in self.plugins if isinstance(plugin, StudentStep)), None)

    @property
    def _apart(self) -> bool:
        return self._step is not None and self._step.apart(self)

    def forward(self) -> Tensor:
        """Student logits of the minibatch."""
        forward = self.cast(self.model) if self.is_training else self._examined
        if not self.mb_y.is_floating_point():
            return forward(self.mb_x)
        own = self._step.view(self) if self.is_training and self._step is not None else None
        self._view = own or self.objective.view(self.model, self.minibatch, forward)
        return self._view.student_logits

    def cast(self, forward: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        """A forward pass of the student in the ``precision`` of training; its logits are in single precision again."""
        if self.precision == torch.float32:
            return forward

        def through(images: Tensor) -> Tensor:
            with torch.autocast(self.device.type, self.precision):
                return forward(images).float()

        return through

    def criterion(self) -> Tensor:
        """Distillation against teacher logits; cross-entropy against classes (evaluation)."""
        if not self.mb_y.is_floating_point():
            return F.cross_entropy(self.mb_output, self.mb_y)
        assert self._view is not None
        # A plugin may have changed the logits; its version is used.
        self._view.student_logits = self.mb_output
        if self.replayed is not None and not self._apart:
            self.answered = self.mb_output[-len(self.replayed.images) :].detach()
        return self.objective.loss(self._view)

    def backward(self) -> None:
        """Compute the gradient; the view is released, and with it the graph of the forward pass."""
        super().backward()
        self._view = None


class _OnLogits:
    """The objective's distance to logits (n, K), or cross-entropy with classes (n,); without the objective's terms.

    Attributes:
        reduction: "mean" over samples, or "none", as in torch's losses: Avalanche's plugins set it.
    """

    def __init__(self, objective: Objective):
        self.objective = objective
        self.reduction = "mean"

    def __call__(self, logits: Tensor, answers: Tensor) -> Tensor:
        if answers.is_floating_point():
            found = self.objective.distance(logits, answers)
        else:
            found = F.cross_entropy(logits, answers, reduction="none")
        return found.mean() if self.reduction == "mean" else found
