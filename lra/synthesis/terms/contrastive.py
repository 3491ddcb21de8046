"""Terms that compare images with one another, or with earlier ones whose features are kept in a bank."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lra.features import pooled
from lra.options import Layers
from lra.problem import Teacher, single
from lra.randomness import permutation, sent
from lra.relations import TripletSampler, cross_view_nce, supervised_contrast, triplet_loss
from lra.state import State
from lra.synthesis.augmentation import Augmentation
from lra.synthesis.terms.term import Term
from lra.view import View


class FeatureBank:
    """A first-in-first-out bank of features; its memory doubles as it fills, up to its capacity.

    The released bank draws nothing at the moment it is exactly full, so that one batch is not trained, and it requires
    a capacity that is a multiple of the batch. This one has neither flaw.

    Args:
        capacity: largest number of rows.
    """

    def __init__(self, capacity: int):
        self.capacity = capacity
        self.pushed = 0
        self._rows: Tensor | None = None

    def __len__(self) -> int:
        """Rows held."""
        return min(self.pushed, self.capacity)

    @property
    def rows(self) -> Tensor:
        """All rows held (m, d), by place: row p is the latest one stored at a count of p modulo the capacity.

        Raises:
            IndexError: if nothing has been stored yet.
        """
        if self._rows is None:
            raise IndexError("the feature bank is empty: add features before reading it")
        return self._rows[: len(self)]

    @torch.no_grad()
    def add(self, rows: Tensor) -> None:
        """Store ``rows`` (n, d), replacing the oldest where there is no room.

        Raises:
            ValueError: if there are more than the bank can hold.
        """
        if len(rows) > self.capacity:
            raise ValueError(f"{len(rows)} features do not fit a bank of {self.capacity}: raise its capacity")
        where = torch.arange(self.pushed, self.pushed + len(rows)) % self.capacity
        self.pushed += len(rows)
        self._reserve(rows)[sent(where, rows.device)] = rows.detach()

    def sample(self, n: int) -> Tensor:
        """Up to ``n`` rows (m, d) without repetition; all rows, if there are fewer.

        Raises:
            IndexError: if nothing has been stored yet.
        """
        if self._rows is None:
            raise IndexError("the feature bank is empty: add features before sampling")
        return self._rows[permutation(len(self), self._rows.device)[:n]]

    def _reserve(self, like: Tensor) -> Tensor:
        held = 0 if self._rows is None else len(self._rows)
        if self._rows is None or held < len(self):
            grown = like.new_empty(min(self.capacity, 2 ** (len(self) - 1).bit_length()), like.shape[1])
            if self._rows is not None:
                grown[:held] = self._rows
            self._rows = grown
        return self._rows

    def state_dict(self) -> State:
        """The rows held, by place, and how many were ever stored."""
        return {"pushed": self.pushed, "rows": None if self._rows is None else self._rows[: len(self)].clone()}

    def load_state_dict(self, state: State) -> None:
        """Take up a state of `state_dict`.

        Raises:
            ValueError: if it holds more than this bank can.
        """
        rows = state["rows"]
        if rows is not None and len(rows) > self.capacity:
            raise ValueError(f"{len(rows)} features do not fit a bank of {self.capacity}: raise its capacity")
        self.pushed, self._rows = state["pushed"], None
        if rows is not None:
            self._reserve(rows)[: len(rows)] = rows


def description(view: View, layers: Layers) -> Tensor:
    """(n, D): pixel averages of the inputs of the teacher's BatchNorm layers, or of the last maps of its stages."""
    maps = view.batchnorm_inputs if layers == "batchnorm" else view.teacher_maps
    return torch.cat([single(pooled(each)) for each in maps], dim=1)


class CrossView(Term):
    """Contrastive model inversion (Fang et al., IJCAI 2021).

    A projection head, trained at the same time, maps descriptions of the local views (large crops, enlarged) and of the
    global ones (which all other terms see) to unit vectors; see `lra.relations.cross_view_nce`. The descriptions of
    the images that are kept enter the bank.

    Args:
        weight: factor in the sum.
        head: (n, D) -> (n, d).
        bank: of [local | global] rows.
        local: augmentation that makes the local views.
        lr: Adam's learning rate for the head.
        temperature: τ.
        negatives: images from the bank to compare with at each step.
        layers: what describes an image.
    """

    name = "cross_view"

    def __init__(
        self,
        weight: float,
        head: nn.Module,
        bank: FeatureBank,
        local: Augmentation,
        lr: float,
        temperature: float = 0.1,
        negatives: int = 4096,
        layers: Layers = "batchnorm",
    ):
        super().__init__(weight)
        self.needs = frozenset({"batchnorm"}) if layers == "batchnorm" else frozenset({"maps"})
        self.head, self.bank, self.local = head, bank, local
        self.optimiser = torch.optim.Adam(head.parameters(), lr=lr)
        self.temperature, self.negatives, self.layers = temperature, negatives, layers
        self._latest: Tensor | None = None
        self._kept: Tensor | None = None

    def __call__(self, view: View) -> Tensor:
        """≥ 0; the backward pass of the loss also gives the head's gradient."""
        whole = description(view, self.layers)
        near = View(self.local(view.plain), view.teacher).watching(set(self.needs))
        local = description(near, self.layers)
        self._latest = torch.cat([local, whole], dim=1).detach()
        if len(self.bank):
            banked = self.bank.sample(self.negatives).chunk(2, dim=1)
            local, whole = torch.cat([local, banked[0]]), torch.cat([whole, banked[1]])
        unit = [F.normalize(self.head(side), dim=1) for side in (local, whole)]
        return cross_view_nce(unit[0], unit[1], len(view.images), self.temperature)

    def learn(self) -> None:
        """Update the head."""
        self.optimiser.step()
        self.optimiser.zero_grad()

    def keep(self, where: Tensor | None = None) -> None:
        """Keep the latest descriptions until `settle`."""
        if where is None or self._kept is None or self._latest is None:
            self._kept = self._latest
        else:
            self._kept = torch.where(where, self._latest, self._kept)

    def settle(self) -> None:
        """Add the kept descriptions to the bank."""
        if self._kept is not None:
            self.bank.add(self._kept)
        self._kept = self._latest = None

    def state_dict(self) -> State:
        """The head, its optimiser and the bank."""
        return {
            "head": self.head.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "bank": self.bank.state_dict(),
        }

    def load_state_dict(self, state: State) -> None:
        """Take up a state of `state_dict`."""
        self.head.load_state_dict(state["head"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.bank.load_state_dict(state["bank"])


def projection_head(teacher: Teacher, image: tuple[int, int, int], layers: Layers, size: int = 256) -> nn.Sequential:
    """Build CMI's head, D -> D -> ``size``, for descriptions by this teacher; passes one black image through it."""
    blank = next(teacher.parameters()).new_zeros(1, *image)
    view = View(blank, teacher).watching({"batchnorm"} if layers == "batchnorm" else {"maps"})
    with torch.no_grad():
        d = description(view, layers).shape[1]
    return nn.Sequential(nn.Linear(d, d), nn.ReLU(), nn.Linear(d, size)).to(blank.device)


class RingNCE(Term):
    """Pulls a sample's teacher and student features together, and apart from past student features of a middle rank.

    q_i = φ(f_T(x_i)), with gradient; k_i = φ(project(f_S(x_i))), without; φ scales to unit length. The similarities
    n_ij = q_i·Q_j to a queue Q of N earlier k are ranked in ascending order, and the ring of row i is formed by the
    ranks [hN, (h + len)N). The loss is mean_i -log e^{q_i·k_i/τ} / (e^{q_i·k_i/τ} + Σ_{j in ring i} e^{n_ij/τ}); then
    the k_i enter the queue and the oldest leave. Synthesis minimises it, so it opposes an adversarial term.

    The release requires N to be a multiple of the batch and crashes in its main setting, where it is not; here the
    queue wraps around. It also projects through a new random layer at every call; here a single layer is trained with
    the student.

    Args:
        weight: factor in the sum.
        negatives: N.
        features: d of the teacher's features.
        project: maps the student's features (n, d') to (n, d).
        length: len, the ring's fraction of the queue, in (0, 1].
        temperature: τ.
        device: of the queue.

    Attributes:
        hardness: h in [0, 1 - len]; 0 leaves out the most similar, 1 - len the least similar.
    """

    name = "ring"
    needs = frozenset({"features", "student_features"})

    def __init__(
        self,
        weight: float,
        negatives: int,
        features: int,
        project: Callable[[Tensor], Tensor],
        length: float = 0.8,
        temperature: float = 0.07,
        device: torch.device | str = "cpu",
    ):
        super().__init__(weight)
        self.project = project
        self.length = length
        self.temperature = temperature
        self.hardness = 0.0
        self.queue = FeatureBank(negatives)
        self.queue.add(F.normalize(torch.randn(negatives, features), dim=1).to(device))

    def __call__(self, view: View) -> Tensor:
        """≥ 0; advances the queue.

        Raises:
            ValueError: if the batch is larger than the queue.
        """
        with torch.no_grad():
            keys = F.normalize(self.project(view.student_features), dim=1)
        queries = F.normalize(view.teacher_features, dim=1)
        loss = self.loss(queries, keys)
        self.queue.add(keys)
        return loss

    def loss(self, queries: Tensor, keys: Tensor) -> Tensor:
        """The loss of unit vectors q and k (n, d) against the queue as it is."""
        positives = (queries * keys).sum(dim=1, keepdim=True)
        # A copy, because the queue is updated in place before the gradient is taken.
        ring = self.ring(queries @ self.queue.rows.clone().T)
        logits = torch.cat([positives, ring], dim=1) / self.temperature
        return F.cross_entropy(logits, logits.new_zeros(len(logits), dtype=torch.long))

    def ring(self, similarities: Tensor) -> Tensor:
        """The ring (n, ⌊len·N⌋) of similarities (n, N), in ascending order."""
        count = similarities.shape[1]
        size = max(1, int(self.length * count + 1e-9))
        start = min(int(self.hardness * count + 1e-9), count - size)
        return similarities.sort(dim=1).values[:, start : start + size]

    def state_dict(self) -> State:
        """The queue and its position."""
        return self.queue.state_dict()

    def load_state_dict(self, state: State) -> None:
        """Take up a state of `state_dict`."""
        self.queue.load_state_dict(state)


class SupervisedContrast(Term):
    """Features of teacher and student as two views of an image, pulled together within a class: `supervised_contrast`.

    Source: CPSC (Shao et al., Pattern Recognition 2023). Gradients flow to the images through both networks.

    Args:
        weight: factor in the sum.
        project: maps the student's features (n, d') to the teacher's (n, d).
        temperature: τ.
    """

    name = "contrast"
    needs = frozenset({"features", "student_features"})

    def __init__(self, weight: float, project: nn.Module, temperature: float = 0.07):
        super().__init__(weight)
        self.project = project
        self.temperature = temperature

    def __call__(self, view: View) -> Tensor:
        """≥ 0."""
        ours = F.normalize(self.project(view.student_features), dim=1)
        return supervised_contrast(ours, F.normalize(view.teacher_features, dim=1), view.targets, self.temperature)

    def state_dict(self) -> State:
        """The projection."""
        return {"project": self.project.state_dict()}

    def load_state_dict(self, state: State) -> None:
        """Take up a state of `state_dict`."""
        self.project.load_state_dict(state["project"])


class Triplet(Term):
    """In the student's maps, push images of one class apart and pull different classes together (RGAL, IJCV 2024).

    The teacher decides which images are compared: its predictions are the labels, its logits give the distances. The
    release never swaps, so that synthesis helps the student instead of opposing it: ``swap=False``.

    Args:
        weight: factor in the sum.
        sampler: of negatives; records how often its window was empty as ``triplet_fallback``.
        margin: of the hinge.
        swap: oppose the student.
        start: the first of the student's stages to compare, counted from 0; the last stage where there are fewer.
    """

    name = "triplet"
    needs = frozenset({"student_maps"})
    competitive = True

    def __init__(self, weight: float, sampler: TripletSampler, margin: float = 0.2, swap: bool = True, start: int = 2):
        super().__init__(weight)
        self.sampler = sampler
        self.margin = margin
        self.swap = swap
        self.start = start

    def __call__(self, view: View) -> Tensor:
        """≥ 0; 0 for batches without two images of one class, or of one class only."""
        triplets = self.sampler(view.teacher_logits.detach(), view.predicted)
        self.notes = {"fallback": triplets.fallback}
        maps = view.student_maps
        return triplet_loss(maps[self.start :] or maps[-1:], triplets, self.margin, self.swap)
