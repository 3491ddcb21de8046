"""CMI's contrastive term: an image's local view is to be told from all other images, of now and of before."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lra.features import pooled
from lra.relations import cross_view_nce
from lra.state import State
from lra.synthesis.augmentation import Augmentation
from lra.synthesis.feature_bank import FeatureBank
from lra.synthesis.options import Layers
from lra.synthesis.terms import Term
from lra.synthesis.view import View
from lra.teacher import Teacher


def description(view: View, layers: Layers) -> Tensor:
    """(n, D): pixel averages of what the teacher's BatchNorm layers take in, or of its stages' last maps."""
    maps = view.batchnorm_inputs if layers == "batchnorm" else view.teacher_maps
    return torch.cat([pooled(each) for each in maps], dim=1)


class CrossView(Term):
    """Contrastive model inversion (Fang et al., IJCAI 2021).

    A projection head, which learns along, maps descriptions of the local views (large crops, enlarged) and of the
    global ones (what all other terms see) to unit vectors; see `lra.relations.cross_view_nce`. The descriptions of
    the images that are kept enter the bank.

    Args:
        weight: factor in the sum.
        head: (n, D) -> (n, d).
        bank: of [local | global] rows.
        local: augmentation that makes the local views.
        lr: Adam's, of the head.
        temperature: τ.
        negatives: banked images to compare with at each step.
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
        """≥ 0; the head's gradient comes with the loss's."""
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
        """A step of the head."""
        self.optimiser.step()
        self.optimiser.zero_grad()

    def keep(self) -> None:
        """Remember the latest descriptions until `settle`."""
        self._kept = self._latest

    def settle(self) -> None:
        """The kept images enter the bank."""
        if self._kept is not None:
            self.bank.add(self._kept)
        self._kept = self._latest = None

    def state_dict(self) -> State:
        """Head, its optimiser, bank."""
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
    """Build CMI's head, D -> D -> ``size``, for descriptions of this teacher; asks it about one black image."""
    blank = next(teacher.parameters()).new_zeros(1, *image)
    view = View(blank, teacher).watching({"batchnorm"} if layers == "batchnorm" else {"maps"})
    with torch.no_grad():
        d = description(view, layers).shape[1]
    return nn.Sequential(nn.Linear(d, d), nn.ReLU(), nn.Linear(d, size)).to(blank.device)
