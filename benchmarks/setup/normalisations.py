"""Whether a teacher's normalisation is the one it was trained with, told from its answers to some labelled images."""

import torch
from torch import Tensor

from lra.benchmarks.setup.datasets import Labelled, Normalisation
from lra.benchmarks.setup.datasets.known_sets import HALF, KNOWN
from lra.networks.normalized import Normalized
from lra.preservation import in_mode

SHOWN = 256
"""Images that are tried: a wrong normalisation that matters shows on fewer, and a whole test set takes minutes."""
DEVIATIONS = 3.0
"""How many standard deviations of chance another normalisation must be better by."""
IMAGENET = Normalisation((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def in_use(channels: int) -> dict[str, Normalisation]:
    """The normalisations that teachers of such images are trained with, by the name of where they are from."""
    known = {name: data.normalisation for name, data in KNOWN.items()}
    named = {"ImageNet": IMAGENET, **known, "0.5": Normalisation(HALF.mean[:1] * channels, HALF.std[:1] * channels)}
    named["none"] = Normalisation((0.0,) * channels, (1.0,) * channels)
    fitting = {name: scale for name, scale in named.items() if len(scale.mean) == channels}
    # Data sets that share one are named after what it is.
    return {name: scale for scale, name in {scale: name for name, scale in fitting.items()}.items()}


def better(network: Normalized, answers: Tensor | None, test: Labelled, device: torch.device) -> str | None:
    """What to say of a normalisation in use under which a teacher is right more often, or ``None``.

    Compared on the same `SHOWN` images, evenly spread over the test set, so that little of it passes the teacher again.

    Args:
        network: the teacher, on ``device``.
        answers: its logits (n, K) for the test set; ``None`` if its normalisation is not known.
        test: n images.
        device: where to compute.
    """
    chosen = torch.linspace(0, len(test.classes) - 1, min(SHOWN, len(test.classes))).long()
    shown = Labelled(test.images[chosen], test.classes[chosen])
    right = torch.zeros(len(chosen)).bool() if answers is None else answers[chosen].argmax(dim=1) == shown.classes
    best: tuple[int, str, Normalisation] | None = None
    for name, scale in in_use(len(network.mean)).items():
        other = _right(Normalized(network.network, scale.mean, scale.std).to(device), shown, device)
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
        f"{100 * count / len(chosen):.1f} % of {len(chosen)} test images{so_far}: if it was trained with that, say "
        f'--set "teacher.mean={mean}" --set "teacher.std={std}"'
    )


def _right(network: Normalized, shown: Labelled, device: torch.device) -> Tensor:
    """Which of the images a network names rightly, as booleans (n,) on the CPU."""
    with torch.no_grad(), in_mode(network, training=False):
        parts = [network(images.to(device)).argmax(dim=1).cpu() for images, _ in shown.batches(64)]
    return torch.cat(parts) == shown.classes
