"""Initialisations that papers prescribe, for whole modules, spectrally normalised ones too."""

from torch import Tensor, nn
from torch.nn.utils import parametrize

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


def _weight(module: nn.Module) -> Tensor:
    """Return the tensor that is trained, which under a parametrisation is not ``module.weight``."""
    if parametrize.is_parametrized(module, "weight"):
        return module.parametrizations.weight.original  # type: ignore[union-attr, return-value]
    return module.weight  # type: ignore[return-value]


def reset_parameters_uniform(module: nn.Module, bound: float = 0.08) -> None:
    """Draw the weights of convolutions and linear layers from U(-bound, bound), zero biases, reset BatchNorm.

    Source: PRE-DFKD and LRA, for their generators and encoder.
    """
    for child in module.modules():
        if isinstance(child, (nn.Linear, *_CONVOLUTIONS)):
            nn.init.uniform_(_weight(child), -bound, bound)
            if child.bias is not None:
                nn.init.zeros_(child.bias)
        elif isinstance(child, nn.modules.batchnorm._BatchNorm):
            child.reset_parameters()


def reset_parameters_dcgan(module: nn.Module, std: float = 0.02) -> None:
    """Draw conv and linear weights from N(0, std), BatchNorm's from N(1, std); set biases to 0.

    Running statistics stay as they are. Source: DCGAN (Radford et al., 2016), as Fast and RGAL re-initialise
    their generator before each synthesis.
    """
    for child in module.modules():
        if isinstance(child, (nn.Linear, *_CONVOLUTIONS)):
            nn.init.normal_(_weight(child), 0.0, std)
            if child.bias is not None:
                nn.init.zeros_(child.bias)
        elif isinstance(child, nn.modules.batchnorm._BatchNorm) and child.affine:
            nn.init.normal_(child.weight, 1.0, std)
            nn.init.zeros_(child.bias)
