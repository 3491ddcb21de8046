"""Training of teachers on real images; when stopped, it continues from where it was saved."""

import copy
import logging
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from lra.benchmarks.errors import Interrupted, LraError, UsageError, interrupts, one_line
from lra.benchmarks.files import held, read_checkpoint, write_checkpoint
from lra.benchmarks.progress import Introduction, Progress
from lra.benchmarks.setup.config import TeacherOptions
from lra.benchmarks.setup.datasets import DataSet, normalisation
from lra.benchmarks.setup.networks import network_for
from lra.benchmarks.setup.places import data_kind
from lra.benchmarks.setup.user_code import code_of
from lra.benchmarks.setup.weights_files import save_network
from lra.images import unit
from lra.networks.normalized import Normalized
from lra.state import State
from lra.synthesis.augmentation import flipped, shifted

OFTEN = 5.0
"""Least seconds from one saved state to the next."""
DEAR = 30
"""The next state is saved after this many times what saving took, so that it costs at most a thirtieth of the time."""

AUXILIARY = 0.3
"""Weight of an auxiliary classifier, as in GoogLeNet (Szegedy et al., CVPR 2015)."""

log = logging.getLogger("lra")


def train(
    options: TeacherOptions,
    data: DataSet,
    path: Path,
    device: torch.device,
    quiet: bool = False,
    introduction: Introduction | None = None,
) -> None:
    """Train a teacher on the training split and write it to ``path``, leaving random states as they were.

    Meanwhile its state is saved beside ``path``, from where another call continues to the same bytes. Of several
    processes one trains, and the others wait for it. The ``introduction`` is printed before all that.

    Raises:
        UsageError: if it would learn from single images, or nothing can be written beside ``path``.
        LraError: if it diverges.
        Interrupted: at SIGINT or SIGTERM, when its state is saved.
    """
    real = data.load("train")
    if min(options.batch_size, len(real.images)) < 2:
        raise UsageError(
            f"teacher.batch_size = {options.batch_size} and data set {data.name} has {len(real.images)} to train on: "
            "a teacher needs at least two images at a time"
        )
    if introduction is not None:
        introduction.say()
    scale = normalisation(data, real)
    images, classes = real.images.to(device), real.classes.to(device)
    saved = path.with_name(f".{path.stem}.training")
    with (
        held(path.with_name(f".{path.stem}.lock"), elsewhere="the variable LRA_CACHE", wait=_waiting(options, quiet)),
        torch.random.fork_rng(devices=range(torch.cuda.device_count()) if device.type == "cuda" else []),
    ):
        if path.is_file():  # written by the process that we waited for
            return
        torch.manual_seed(options.seed)
        body = network_for(options.network, data.classes, data.image, "teacher.network", auxiliary=True)
        network = Normalized(body, scale.mean, scale.std).to(device)
        training = _Training(network, options)
        training.go_on(saved, len(images))
        training.complete(images, classes, saved, quiet)
        notes = {
            "network": options.network,
            "classes": data.classes,
            "image": data.image,
            "mean": scale.mean,
            "std": scale.std,
            **({"fit": data.fit} if data.fit else {}),
            **({"names": list(data.names)} if data.names else {}),
            **({"code": code} if (code := code_of(options.network)) else {}),
        }
        save_network(path, network, notes | {"data": data_kind(data.name), "recipe": options.model_dump()})
        saved.unlink(missing_ok=True)


def _waiting(options: TeacherOptions, quiet: bool) -> Callable[[], None]:
    """What to call while another process trains the same teacher: it shows the wait."""
    started = time.monotonic()
    progress: list[Progress] = []

    def say() -> None:
        if not progress:
            progress.append(Progress(1, "teachers", f"another process trains {options.network}", quiet))
        progress[0].show(0, f"waiting for {time.monotonic() - started:.0f} s")

    return say


class _Training:
    """A teacher in training: network, optimiser, learning rate, and how far it is.

    Attributes:
        epoch: epochs done.
        batch: minibatches done of the current epoch.
        order: (n,) of the images in the current epoch; ``None`` between epochs.
    """

    def __init__(self, network: Normalized, options: TeacherOptions):
        self.network, self.options = network, options
        self.optimiser = torch.optim.SGD(
            network.parameters(), lr=options.lr, momentum=0.9, weight_decay=options.weight_decay, nesterov=True
        )
        self.schedule = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimiser, options.epochs)
        self.epoch = self.batch = 0
        self.order: Tensor | None = None

    def complete(self, images: Tensor, classes: Tensor, file: Path, quiet: bool) -> None:
        """Train on images (n, C, H, W) and classes (n,) to the end, keeping the state in ``file``."""
        epochs, network = self.options.epochs, self.network.train()
        progress = Progress(epochs, "epochs", f"teacher {self.options.network}", quiet, done=self.epoch)
        progress.show(self.epoch)
        due, loss = time.monotonic() + OFTEN, torch.zeros(())
        with interrupts() as caught:
            while self.epoch < epochs:
                self.order = torch.randperm(len(images)) if self.order is None else self.order
                batches = self.order.split(self.options.batch_size)
                for chosen in batches[self.batch :]:
                    self.batch += 1
                    # BatchNorm finds no variance in a single image.
                    if len(chosen) > 1:
                        shown = augmented(unit(images[chosen]), self.options.augment)
                        loss = cross_entropy(network(shown), classes[chosen])
                        self.optimiser.zero_grad()
                        loss.backward()
                        self.optimiser.step()
                    if progress.due():
                        progress.show(self.epoch + self.batch / len(batches), f"loss {loss.item():.3f}")
                    if caught or time.monotonic() >= due:
                        due = self._save(file)
                    if caught:
                        where = f"at epoch {self.epoch + 1} of {epochs}"
                        raise Interrupted(
                            caught[0], f"repeat the command to continue with teacher {self.options.network} {where}"
                        )
                if not loss.isfinite():
                    file.unlink(missing_ok=True)
                    raise LraError(f"the teacher has diverged, its loss is {loss.item()}: lower teacher.lr")
                self.schedule.step()
                self.epoch, self.batch, self.order = self.epoch + 1, 0, None
        progress.done = epochs
        progress.close(f"loss {loss.item():.3f}")

    def go_on(self, file: Path, n: int) -> None:
        """Continue from the state in ``file``, of training on ``n`` images; start anew without one that fits."""
        if not file.is_file():
            return
        fresh = copy.deepcopy(self._state())
        try:
            self._take_up(read_checkpoint(file), n)
        except (UsageError, KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
            log.warning("%s is not a state of this teacher (%s): its training starts over", file, one_line(error))
            self._take_up(fresh, n)

    def _save(self, file: Path) -> float:
        """Write the state; return when to do so again."""
        begun = time.monotonic()
        write_checkpoint(file, self._state())
        done = time.monotonic()
        return done + max(OFTEN, DEAR * (done - begun))

    def _state(self) -> State:
        return {
            "network": self.network.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "schedule": self.schedule.state_dict(),
            "place": [self.epoch, self.batch],
            "order": self.order,
            "random": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else [],
        }

    def _take_up(self, state: State, n: int) -> None:
        (self.epoch, self.batch), self.order = map(int, state["place"]), state["order"]
        if not 0 <= self.epoch <= self.options.epochs or (
            self.order is not None and self.order.sort().values.tolist() != list(range(n))
        ):
            raise ValueError("it is of another length")
        self.network.load_state_dict(state["network"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.schedule.load_state_dict(state["schedule"])
        torch.set_rng_state(state["random"])
        if state["cuda"]:
            torch.cuda.set_rng_state_all(state["cuda"])


def cross_entropy(answers: Tensor | tuple[Tensor, ...], classes: Tensor) -> Tensor:
    """Loss of logits (n, K) for classes (n,), plus `AUXILIARY` times that of each auxiliary classifier after them."""
    own, *others = answers if isinstance(answers, tuple) else (answers,)
    return F.cross_entropy(own, classes) + AUXILIARY * sum(F.cross_entropy(other, classes) for other in others)


def augmented(images: Tensor, how: float | str) -> Tensor:
    """Images (n, C, H, W) in [0, 1], each changed independently; ``how`` is `TeacherOptions.augment`."""
    if isinstance(how, str):
        moved = shifted(images, min(images.shape[2:]) // 8)
        return flipped(moved) if how == "crop-flip" else moved
    return shaken(images, how) if how else images


def shaken(images: Tensor, amount: float) -> Tensor:
    """Images (n, C, H, W), each shifted by up to ``amount`` of half its side, and rotated and scaled in proportion."""
    n = len(images)
    angle, zoom = (torch.rand(n) * 2 - 1) * amount * 1.4, 1 + (torch.rand(n) * 2 - 1) * amount * 0.8
    shift = (torch.rand(n, 2) * 2 - 1) * amount
    rows = [
        torch.stack([zoom * angle.cos(), -angle.sin(), shift[:, 0]], dim=1),
        torch.stack([angle.sin(), zoom * angle.cos(), shift[:, 1]], dim=1),
    ]
    grid = F.affine_grid(torch.stack(rows, dim=1).to(images), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, align_corners=False)
