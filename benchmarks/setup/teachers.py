"""Teachers: trained here once and cached by content, or given as a file."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lra.benchmarks.errors import LraError, UsageError
from lra.benchmarks.files import plain_name, sha256
from lra.benchmarks.progress import Introduction, Progress
from lra.benchmarks.setup.config import RunConfig, TeacherOptions
from lra.benchmarks.setup.datasets import DataSet, Labelled, Normalisation
from lra.benchmarks.setup.datasets.known_sets import HALF, KNOWN
from lra.benchmarks.setup.networks import in_best_order, network_for
from lra.benchmarks.setup.places import cache_root, data_kind, data_label
from lra.benchmarks.setup.user_code import identities
from lra.benchmarks.setup.weights_files import FORMAT, NoNormalisation, load_teacher, says_all

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from lra.networks.normalized import Normalized

SHOWN = 256
"""Images used to compare normalisations: enough to show a wrong one, while a whole test set would take minutes."""
DEVIATIONS = 3.0
"""By how many standard deviations of chance another normalisation must be better."""
IMAGENET = Normalisation((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@dataclass(frozen=True)
class TrainedTeacher:
    """A teacher network and its origin.

    Attributes:
        network: images in [0, 1] -> logits.
        name: of its architecture.
        mean, std: its normalisation.
        sha256: of its file.
        path: its file.
        accuracy: on the test set in percent, ``None`` without one.
        answers: logits (n, K) for the test set, on the CPU.
    """

    network: Normalized
    name: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    sha256: str
    path: Path
    accuracy: float | None
    answers: Tensor | None = None

    def record(self) -> dict[str, Any]:
        """For ``teacher.json`` and ``result.json``."""
        return {
            "name": self.name,
            "sha256": self.sha256,
            "accuracy": self.accuracy,
            "mean": list(self.mean),
            "std": list(self.std),
        }


def cache_folder() -> Path:
    """Where trained teachers are kept: ``$LRA_CACHE``, or the user's cache folder."""
    return cache_root() / "teachers"


def obtain(
    options: TeacherOptions,
    data: DataSet,
    test: Labelled | None,
    device: str | torch.device = "cpu",
    quiet: bool = False,
    introduction: Introduction | None = None,
) -> TrainedTeacher:
    """Load the teacher's file, or the cached result of its recipe, or train it; then check it, all on ``device``.

    Unless ``quiet``, progress is shown on stderr. Notes on its file are added to the ``introduction``, which is printed
    before training; without one they are printed at once.

    Raises:
        Resumable: if a signal stops its training.
        MissingInput: if its file, or the data it would be trained on, do not exist.
        UsageError: if the file is corrupt or unsafe, or does not fit the data.
        LraError: if it does no better than chance.
    """
    import torch

    from lra.benchmarks.setup.teacher_training import train

    device = torch.device(device)
    said = introduction or Introduction(quiet=quiet)
    path = teacher_file(options, data)
    if untrained(options, data):
        train(options, data, path, device, quiet, said)
    found = _loaded(path, options, data, test, device, said)
    if test is not None:
        in_best_order(found.network, data.image, device.type, training=False)
        answers = answers_of(found.network, test, device, f"teacher {found.name} on the test set", quiet)
        accuracy = percent_right(answers, test.classes)
        # Our own files know their normalisation.
        doubted = options.file is not None and (options.mean is not None or not says_all(path))
        advice = better(found.network, answers, test, device) if doubted else None
        refuse_chance(accuracy, data.classes, path, advice)
        if advice:
            said.add(f"teacher {path.name}: {advice}")
        found = replace(found, accuracy=accuracy, answers=answers)
    if introduction is None:
        said.say()
    return found


def _loaded(
    path: Path,
    options: TeacherOptions,
    data: DataSet,
    test: Labelled | None,
    device: torch.device,
    said: Introduction,
) -> TrainedTeacher:
    """The teacher in a file, on ``device``, untested; without a normalisation, one that works well is suggested."""
    try:
        network, name, scale = load_teacher(path, options, data, said.add)
    except NoNormalisation as error:
        if test is None or (options.mean, options.std) != (None, None):
            raise
        plain = {"mean": [0.0] * data.image[0], "std": [1.0] * data.image[0]}
        network, _, _ = load_teacher(path, options.model_copy(update=plain), data)
        advice = better(network.to(device), None, test, device)
        raise UsageError(f"{error}; {advice}" if advice else str(error)) from None
    network = network if test is None else network.to(device)
    return TrainedTeacher(network, name, scale.mean, scale.std, sha256(path), path, None)


def stand_in(config: RunConfig, data: DataSet) -> TrainedTeacher:
    """A teacher with fresh weights in place of one that must still be trained, with which a run can be built."""
    from lra.networks.normalized import Normalized

    mean, std = (0.5,) * data.image[0], (0.5,) * data.image[0]
    name = config.teacher.network
    body = network_for(name, data.classes, data.image, "teacher.network", auxiliary=True)
    return TrainedTeacher(Normalized(body, mean, std), name, mean, std, "untrained", Path("untrained"), None)


def untrained(options: TeacherOptions, data: DataSet) -> bool:
    """Whether a teacher must still be trained.

    Raises:
        MissingInput: as `cached_path`.
    """
    return not options.file and not cached_path(options, data).is_file()


def teacher_file(options: TeacherOptions, data: DataSet) -> Path:
    """The file from which a teacher is loaded, which may not exist yet.

    Raises:
        MissingInput: as `cached_path`.
    """
    return Path(options.file) if options.file else cached_path(options, data)


def cached_path(options: TeacherOptions, data: DataSet) -> Path:
    """The file of a recipe's teacher in the cache, named by everything that determines it.

    Raises:
        MissingInput: if it would be trained on a user's own data, and they do not exist.
    """
    recipe = options.model_dump(exclude={"file", "mean", "std", "features"}) | {
        "data": data_kind(data.name),
        "image": data.image,
        "format": FORMAT,
    }
    content, code = data.content("train"), identities({"teacher": options.model_dump()})
    recipe |= {name: part for name, part in (("content", content), ("code", code)) if part}
    key = hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()[:12]
    named = plain_name(f"{options.network}-{data_label(data.name)}")
    # The data may have been called otherwise when it was trained.
    there = sorted(cache_folder().glob(f"*-{key}.safetensors"))
    return there[0] if there else cache_folder() / f"{named}-{key}.safetensors"


def answers_of(
    network: torch.nn.Module,
    test: Labelled,
    device: str | torch.device = "cpu",
    what: str = "the test set",
    quiet: bool = True,
) -> Tensor:
    """Logits (n, K), on the CPU, of a network on ``device``; slow progress is shown on stderr unless ``quiet``."""
    import torch

    from lra.networks.folded import folded
    from lra.state import in_mode

    found: list[Tensor] = []
    batch = at_once(device)
    progress = Progress(len(test.classes), "images", what, quiet, patient=True)
    with torch.no_grad(), in_mode(network, training=False):
        quick = folded(network)
        for images, _ in test.batches(batch):
            found.append(quick(images.to(device)).cpu())
            progress.show(min(len(found) * batch, len(test.classes)))
    progress.close()
    return torch.cat(found)


def at_once(device: str | torch.device) -> int:
    """Images per forward pass: on a CPU as many as keep the maps in its caches, more on a GPU."""
    return 128 if str(device).startswith("cpu") else 512


def percent_right(answers: Tensor, classes: Tensor) -> float:
    """Accuracy in percent of logits (n, K) for classes (n,); NaN and infinity count as wrong."""
    right = (answers.argmax(dim=1) == classes) & answers.isfinite().all(dim=1)
    return 100 * int(right.sum()) / len(classes)


def accuracy_of(network: torch.nn.Module, test: Labelled, device: str | torch.device = "cpu") -> float:
    """Accuracy in percent of a network on ``device`` on labelled images; NaN and infinity count as wrong."""
    return percent_right(answers_of(network, test, device), test.classes)


def refuse_chance(accuracy: float, classes: int, path: Path, advice: str | None = None) -> None:
    """Raise `LraError` for an accuracy less than a tenth of the way from chance to perfect, with ``advice`` if any."""
    chance = 100 / classes
    if accuracy < chance + (100 - chance) / 10:
        raise LraError(
            f"teacher {path.name} is right on {accuracy:.1f} % of the test set and chance is {chance:.1f} %: "
            + (advice or "check its network, its normalisation (teacher.mean, teacher.std) and the data set")
        )


def in_use(channels: int) -> dict[str, Normalisation]:
    """The normalisations commonly used for teachers of such images, by the name of their source."""
    known = {name: data.normalisation for name, data in KNOWN.items()}
    named = {"ImageNet": IMAGENET, **known, "0.5": Normalisation(HALF.mean[:1] * channels, HALF.std[:1] * channels)}
    named["none"] = Normalisation((0.0,) * channels, (1.0,) * channels)
    fitting = {name: scale for name, scale in named.items() if len(scale.mean) == channels}
    # Data sets that share one are named after what it is.
    return {name: scale for scale, name in {scale: name for name, scale in fitting.items()}.items()}


def better(network: Normalized, answers: Tensor | None, test: Labelled, device: torch.device) -> str | None:
    """A note on a common normalisation with which a teacher is more accurate, or ``None``.

    They are compared on the same `SHOWN` images, evenly spread over the test set, so that few pass the teacher again.

    Args:
        network: the teacher, on ``device``.
        answers: its logits (n, K) for the test set; ``None`` if its normalisation is not known.
        test: n images.
        device: where to compute.
    """
    import torch

    from lra.networks.normalized import Normalized

    chosen = torch.linspace(0, len(test.classes) - 1, min(SHOWN, len(test.classes))).long()
    shown = Labelled(test.images[chosen], test.classes[chosen])
    right = torch.zeros(len(chosen)).bool() if answers is None else answers[chosen].argmax(dim=1) == shown.classes
    best: tuple[int, str, Normalisation] | None = None
    for name, scale in in_use(len(network.mean)).items():
        tried = Normalized(network.network, scale.mean, scale.std).to(device)
        other = answers_of(tried, shown, device).argmax(dim=1) == shown.classes
        gained, lost = int((other & ~right).sum()), int((right & ~other).sum())
        # Were both as good, each image that they differ on would be a toss: the sign test.
        if gained - lost > DEVIATIONS * (gained + lost) ** 0.5 and (best is None or int(other.sum()) > best[0]):
            best = int(other.sum()), name, scale
    if best is None:
        return None
    count, name, scale = best
    mean, std = (list(values) for values in (scale.mean, scale.std))
    so_far = "" if answers is None else f", against {100 * int(right.sum()) / len(chosen):.1f} % as it is"
    return (
        f"with {'no' if name == 'none' else f'the {name}'} normalisation it is right on "
        f"{100 * count / len(chosen):.1f} % of {len(chosen)} test images{so_far}: if it was trained with that, give "
        f'--set "teacher.mean={mean}" --set "teacher.std={std}"'
    )
