"""Priors on images themselves, for sources that optimise pixels; they see the images before augmentation."""

from torch import Tensor

from lra.synthesis.terms import Term
from lra.synthesis.view import View


class TotalVariation(Term):
    """Mean absolute difference of neighbours, summed over four directions (DeepInversion, Yin et al., CVPR 2020).

    Of images in [0, 1]; releases that optimise normalised pixels measure about 1/std times as much.
    """

    name = "total_variation"

    def __call__(self, view: View) -> Tensor:
        """≥ 0: columns, rows and both diagonals; a direction without neighbours counts 0."""
        x = view.plain
        steps = [
            x[..., :, 1:] - x[..., :, :-1],
            x[..., 1:, :] - x[..., :-1, :],
            x[..., 1:, 1:] - x[..., :-1, :-1],
            x[..., 1:, :-1] - x[..., :-1, 1:],
        ]
        return sum((step.abs().mean() for step in steps if step.numel()), x.new_zeros(()))


class L2(Term):
    """Euclidean norm of the whole batch (DeepInversion; weight 0 in every published cell)."""

    name = "l2"

    def __call__(self, view: View) -> Tensor:
        """≥ 0."""
        return view.plain.norm()
