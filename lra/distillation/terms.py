"""Terms of the student's loss beside the distance of logits: hard labels, contrast, attention, relations, channels."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lra.anatomy import stages
from lra.distillation.objective import StudentTerm
from lra.features import Tap
from lra.options import Compared
from lra.relations import ChannelDistillation, TripletSampler, gram_masked, triplet_loss
from lra.state import in_mode
from lra.view import Quantity, StudentView


class HardLabel(StudentTerm):
    """The hard-label loss of AEAHL-RG: cross-entropy of the student with a batch's classes, at temperature 1.

    The classes are the teacher's argmax; for attacked images, its argmax on the clean ones.

    Args:
        weight: factor in the sum.
        double_softmax: treat the student's probabilities as logits, as released for CPSC: bounded, and never near 0.
    """

    def __init__(self, weight: float, double_softmax: bool = False):
        super().__init__(weight)
        self.double_softmax = double_softmax

    def forward(self, view: StudentView) -> Tensor:
        """(n,) ≥ 0."""
        logits = view.student_logits.softmax(dim=1) if self.double_softmax else view.student_logits
        return F.cross_entropy(logits, view.targets, reduction="none")


class SquaredLogits(StudentTerm):
    """Squared difference of raw logits, mean over classes; or the logarithm of the batch's norm (CPSC).

    Args:
        weight: factor in the sum.
        logarithm: take log ‖s - t‖₂ over all logits of the batch, with the norm at least 1e-6: its gradient grows as
            the student approaches the teacher, and without that bound it would have no minimum.
    """

    def __init__(self, weight: float, logarithm: bool = False):
        super().__init__(weight)
        self.logarithm = logarithm

    def forward(self, view: StudentView) -> Tensor:
        """(n,) ≥ 0; () of any sign with the logarithm."""
        squares = (view.student_logits - view.teacher_logits).square()
        return squares.sum().clamp_min(1e-12).log() / 2 if self.logarithm else squares.mean(dim=1)


class InfoNCE(StudentTerm):
    """Contrasts each sample's teacher features with the student features of the whole batch (AdaDFKD).

    Per sample, the cross-entropy of φ(f_T)_i·φ(project(f_S))_j / τ over j, with target j = i; φ scales to unit length.

    Args:
        weight: factor in the sum.
        project: maps student features (n, d') to the teacher's (n, d); trained with the student.
        temperature: τ.
    """

    needs = frozenset({"features", "student_features"})

    def __init__(self, weight: float, project: nn.Module, temperature: float = 0.07):
        super().__init__(weight)
        self.project = project
        self.temperature = temperature

    def forward(self, view: StudentView) -> Tensor:
        """(n,), ≥ 0."""
        anchors = F.normalize(view.teacher_features, dim=1)
        keys = F.normalize(self.project(view.student_features), dim=1)
        right = torch.arange(len(keys), device=keys.device)
        return F.cross_entropy(anchors @ keys.T / self.temperature, right, reduction="none")


class AttentionTransfer(StudentTerm):
    """Matches the attention maps of student and teacher (Zagoruyko and Komodakis, ICLR 2017; in ZSKT with β = 250).

    Σ_l mean((a(S_l) - a(T_l))²) per sample, a(A) = φ(vec(mean_c A²)), over the stages of both networks that have the
    same resolution.
    """

    needs = frozenset({"maps", "student_maps"})

    def forward(self, view: StudentView) -> Tensor:
        """(n,), ≥ 0.

        Raises:
            ValueError: if no two stages have the same resolution.
        """
        teacher = {maps.shape[2:]: maps for maps in view.teacher_maps}
        pairs = [(maps, teacher[maps.shape[2:]]) for maps in view.student_maps if maps.shape[2:] in teacher]
        if not pairs:
            raise ValueError("attention transfer: student and teacher have no common resolution; set its weight to 0")
        return torch.stack([(attention(s) - attention(t)).square().mean(dim=1) for s, t in pairs]).sum(dim=0)


def attention(maps: Tensor) -> Tensor:
    """Maps (n, c, h, w) to unit vectors (n, h·w) of mean squared activation."""
    return F.normalize(maps.square().mean(dim=1).flatten(1), dim=1)


class StudentTriplet(StudentTerm):
    """Pulls images of one class together and pushes classes apart, in the student's own features (RGAL, IJCV 2024).

    The teacher predicts the classes; the student's logits give the distances by which negatives are drawn.

    Args:
        weight: factor in the sum.
        sampler: of negatives.
        compared: ``"global"`` penultimate features, ``"features"`` stage maps, or ``"logits"``.
        margin: of the hinge.
        start: the first stage to compare, counted from 0.

    Attributes:
        fallback: fraction of the last batch's anchors without a negative in the window.
    """

    def __init__(
        self,
        weight: float,
        sampler: TripletSampler,
        compared: Compared = "global",
        margin: float = 0.2,
        start: int = 2,
    ):
        super().__init__(weight)
        self.sampler, self.compared = sampler, compared
        self.margin, self.start = margin, start
        seen: dict[Compared, frozenset[Quantity]] = {
            "global": frozenset({"student_features"}),
            "features": frozenset({"student_maps"}),
            "logits": frozenset(),
        }
        self.needs = seen[compared]
        self.fallback = torch.zeros(())

    def forward(self, view: StudentView) -> Tensor:
        """() ≥ 0."""
        triplets = self.sampler(view.student_logits.detach(), view.predicted)
        self.fallback = triplets.fallback
        return triplet_loss(self._maps(view), triplets, self.margin)

    def _maps(self, view: StudentView) -> list[Tensor]:
        if self.compared == "logits":
            return [view.student_logits]
        if self.compared == "global":
            return [view.student_features]
        return view.student_maps[self.start :] or view.student_maps[-1:]


class Channels(StudentTerm):
    """Matches the channel averages of every stage with the teacher's, through learnt adapters (RGAL, IJCV 2024).

    Student and teacher are compared stage by stage from the last one backwards, as far as both have stages.

    Args:
        weight: factor in the sum.
        adapters: for the stages compared.
    """

    needs = frozenset({"maps", "student_maps"})

    def __init__(self, weight: float, adapters: ChannelDistillation):
        super().__init__(weight)
        self.adapters = adapters

    def forward(self, view: StudentView) -> Tensor:
        """() ≥ 0."""
        return self.adapters(*self._maps(view))

    def _maps(self, view: StudentView) -> tuple[list[Tensor], list[Tensor]]:
        count = len(self.adapters.adapters)
        return view.student_maps[-count:], view.teacher_maps[-count:]


class Gram(Channels):
    """Matches the maps of every stage with the teacher's, most where channels correlate least; see `gram_masked`."""

    def forward(self, view: StudentView) -> Tensor:
        """() ≥ 0; raises ``ValueError`` where maps of a stage differ in size."""
        student, teacher = self._maps(view)
        return gram_masked(self.adapters.adapted(student), teacher)


@torch.no_grad()
def adapters_between(student: nn.Module, teacher: nn.Module, image: tuple[int, int, int]) -> ChannelDistillation:
    """New adapters for the last stages that both networks have, found with one black image (C, H, W)."""
    blank = next(teacher.parameters()).new_zeros(1, *image)
    channels = []
    for network in (student, teacher):
        with Tap(network, stages(network, image), "output") as tap, in_mode(network, training=False):
            network(blank)
        channels.append([each.shape[1] for each in tap.values])
    count = min(map(len, channels))
    return ChannelDistillation(*(each[-count:] for each in channels)).to(blank.device)
