"""Synthesis towards predictions that are no single class (ZSKD, SoftTarget)."""

from torch import Tensor
from torch.nn import functional as F

from lra.synthesis.terms import Term
from lra.synthesis.view import View


class SoftLabelKL(Term):
    """τ²·KL(label ‖ teacher at τ) for labels that are probabilities (n, K) (ZSKD; Nayak et al., ICML 2019).

    Args:
        weight: factor in the sum.
        temperature: τ, of the teacher's prediction.
    """

    name = "soft_label"

    def __init__(self, weight: float, temperature: float = 1.0):
        super().__init__(weight)
        self.temperature = temperature

    def __call__(self, view: View) -> Tensor:
        """≥ 0, in nats; raises ``ValueError`` unless the view's labels are (n, K)."""
        labels = view.labels
        if labels is None or labels.shape != view.teacher_logits.shape:
            raise ValueError("soft labels need a source that asks for probabilities (n, K)")
        log_q = F.log_softmax(view.teacher_logits / self.temperature, dim=1)
        return self.temperature**2 * F.kl_div(log_q, labels, reduction="batchmean")
