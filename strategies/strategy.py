"""The strategy: an Avalanche `SupervisedTemplate` whose student learns from a teacher on a synthesis stream.

Avalanche's loop, callbacks, clock and evaluator are kept. Its data layer is passed by on synthesis experiences,
because it indexes sample by sample and grows with the number of experiences; other experiences (a real test set,
say) go through it as usual.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from avalanche.core import BasePlugin
from avalanche.models import MultiTaskModule
from avalanche.training.plugins import EvaluationPlugin
from avalanche.training.templates import SupervisedTemplate
from torch import Tensor, nn
from torch.nn import functional as F

from lra.distillation.objective import Objective
from lra.images import unit
from lra.problem import Batch
from lra.strategies.stream import SynthesisExperience, SynthesisStream


class DataFreeDistillation(SupervisedTemplate):
    """Distils ``teacher logits`` of drawn images into ``model``, one student step per minibatch.

    Args:
        model: the student, images in [0, 1] -> logits (n, K).
        optimizer: of the student.
        objective: what the student minimises on a batch.
        train_mb_size: new images per student step.
        eval_mb_size: images per evaluation batch.
        plugins: Avalanche plugins, in order: replay before `LRA`, evaluation cadence last.
        evaluator: Avalanche's evaluator; `QuietEvaluation` saves time on long streams.
        device: where to train.
        precision: of the student's own training passes, by autocast: ``torch.bfloat16`` halves the time of a ResNet's
            on hardware that has it. Weights, losses, evaluation and synthesis stay as they are.
        stock_data: use Avalanche's datasets and loaders for synthesis experiences too, for plugins that work on
            them (its `ReplayPlugin`, say). Slow, and grows with the number of experiences.

    Raises:
        ValueError: if the model has a head for each task, of which a synthesis stream has only one.

    Attributes:
        acquired: the new samples of the current step.
        replayed: what a replay plugin brought to it, or ``None``.
        displaced: new images of each step that a replay plugin takes the place of, fewer than ``train_mb_size``.
        forward_model: what the forward pass goes through; a plugin may lend a functional copy of the student.
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
        stock_data: bool = False,
        **kwargs: Any,
    ):
        if heads := [name or "model" for name, part in model.named_modules() if isinstance(part, MultiTaskModule)]:
            raise ValueError(
                f"{heads[0]} has a head for each task, and {type(self).__name__} works on a stream without tasks: "
                "give the student a single head, an nn.Linear over all classes"
            )
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
        self.stock_data = stock_data
        self.acquired: Batch | None = None
        self.replayed: Batch | None = None
        self.displaced = 0
        self.forward_model: Callable[[Tensor], Tensor] | None = None
        self.stopped: str | None = None
        self._stream: SynthesisStream | None = None
        # The first train() would otherwise wipe the optimiser's state and put every parameter in it.
        self.optimized_param_id = dict(model.named_parameters())

    def train(self, experiences: Any, eval_streams: Sequence[Any] = (), **kwargs: Any) -> dict[str, Any]:
        """Train on a stream; unlike Avalanche's default, never walks it for evaluation first."""
        if isinstance(experiences, SynthesisStream):
            experiences.student = self.model
            self._stream = experiences
        # Avalanche assigns into the sequence it is given.
        return super().train(experiences, list(eval_streams), **kwargs)

    def stop_training(self) -> None:
        """End training on the stream: after the step being taken, no more of them, nor experiences.

        Avalanche ends the epochs of the open experience, of which one of a stream has a single one.
        """
        super().stop_training()
        if self._stream is not None:
            self._stream.ended = True
            self.stopped = self.stopped or "a plugin"

    @property
    def synthesis(self) -> SynthesisExperience | None:
        """The open experience, if it is one of a synthesis stream."""
        return self.experience if isinstance(self.experience, SynthesisExperience) else None

    def train_dataset_adaptation(self, **kwargs: Any) -> None:
        """Make a finite dataset of the experience only where asked to."""
        if self.synthesis is None or self.stock_data:
            super().train_dataset_adaptation(**kwargs)

    def make_train_dataloader(self, **kwargs: Any) -> None:
        """Draw straight from the sample source, a fresh batch per step."""
        if self.synthesis is None or self.stock_data:
            super().make_train_dataloader(**kwargs)
        else:
            # Replay plugins settle what they displace after this and before the first draw.
            size, over = lambda: self.train_mb_size - self.displaced, lambda: self.stopped is not None
            self.dataloader = _Draws(self.synthesis, size, over)

    def eval_dataset_adaptation(self, **kwargs: Any) -> None:
        """Leave a test experience held in tensors as it is."""
        if not hasattr(self.experience, "tensors"):
            super().eval_dataset_adaptation(**kwargs)

    def make_eval_dataloader(self, **kwargs: Any) -> None:
        """Slice a test experience held in tensors; load any other as Avalanche does."""
        tensors = getattr(self.experience, "tensors", None)
        if tensors is None:
            super().make_eval_dataloader(**kwargs)
        else:
            self.dataloader = _Slices(tensors[0], tensors[1], self.eval_mb_size)

    def check_model_and_optimizer(self, **kwargs: Any) -> None:
        """Leave model and optimiser alone on synthesis experiences, which bring no new classes."""
        if self.synthesis is None:
            super().check_model_and_optimizer(**kwargs)
        elif not self.model.training:
            # A plugin's doing: Avalanche's EWC, say, leaves the model in evaluation mode.
            self.model.train()

    def _after_training_exp(self, **kwargs: Any) -> None:
        """Tell the plugins, of which many copy the student: what its layers keep of the last pass is set free first."""
        for module in self.model.modules():
            # Weights of old-style weight norm, say, which no copy can be made of while they are part of a graph.
            kept = {name: value for name, value in vars(module).items() if isinstance(value, Tensor)}
            vars(module).update({name: value.detach() for name, value in kept.items() if value.grad_fn is not None})
        super()._after_training_exp(**kwargs)

    def _unpack_minibatch(self) -> None:
        super()._unpack_minibatch()
        if self.is_training:
            self.acquired = Batch(self.mb_x, self.mb_y)
            self.replayed = None

    def forward(self) -> Tensor:
        """Student logits of the minibatch."""
        model = self.forward_model or self.model
        return (self.cast(model) if self.is_training else model)(self.mb_x)

    def cast(self, forward: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        """A forward pass of the student in the ``precision`` of training; logits are of single precision again."""
        if self.precision == torch.float32:
            return forward

        def through(images: Tensor) -> Tensor:
            with torch.autocast(self.device.type, self.precision):
                return forward(images).float()

        return through

    def criterion(self) -> Tensor:
        """Distillation against teacher logits; cross-entropy against classes (evaluation)."""
        if self.mb_y.is_floating_point():
            return self.objective(self.mb_output, Batch(self.mb_x, self.mb_y))
        return F.cross_entropy(self.mb_output, self.mb_y)


class _OnLogits:
    """The objective's distance of logits (n, K), or the cross-entropy with classes (n,), without its terms.

    Attributes:
        reduction: "mean" over samples, or "none", as torch's losses have it: Avalanche's plugins set it.
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


class _Draws(Iterable[list[Tensor]]):
    """Minibatches (images, teacher logits, task 0) of a synthesis experience, drawn as the loop asks."""

    def __init__(self, experience: SynthesisExperience, size: Callable[[], int], over: Callable[[], bool]):
        self.experience = experience
        self.size = size
        self.over = over

    def __len__(self) -> int:
        return self.experience.steps

    def __iter__(self) -> Any:
        n = self.size()
        tasks = torch.zeros(n, dtype=torch.long)
        for _ in range(self.experience.steps):
            if self.over():
                return
            yield [*self.experience.draw(n), tasks]


class _Slices(Iterable[list[Tensor]]):
    """Minibatches (images in [0, 1], classes, task 0) of a test set held in tensors."""

    def __init__(self, images: Tensor, classes: Tensor, size: int):
        self.images, self.classes, self.size = images, classes, size

    def __len__(self) -> int:
        return -(-len(self.images) // self.size)

    def __iter__(self) -> Any:
        for images, classes in zip(self.images.split(self.size), self.classes.split(self.size), strict=True):
            yield [unit(images), classes, torch.zeros_like(classes)]
