"""The network of generative adversarial perturbations: an image in, a perturbation of it out."""

from torch import Tensor, nn

from lra.images import require_side
from lra.networks.generators import reset_parameters_dcgan


class PerturbationNetwork(nn.Module):
    """Residual image-to-image network in the style of Johnson et al. (GAP; Poursaeed et al., CVPR 2018; AEAHL-RG).

    7x7 convolution, two halvings, residual blocks, two doublings, 7x7 convolution and tanh; 7.84 M parameters at
    width 64 and three channels. Weights from N(0, 0.02), BatchNorm's from N(1, 0.02), biases 0.
    """

    def __init__(self, channels: int, side: int, *, width: int = 64, blocks: int = 6) -> None:
        """Build it.

        Args:
            channels: of the images.
            side: the shorter one of the images; 8 pixels or more.
            width: channels after the first convolution; four times as many in the blocks.
            blocks: residual ones.

        Raises:
            ValueError: if the images are too small.
        """
        super().__init__()
        require_side((channels, side, side), 8, "the perturbation network")
        self.layers = nn.Sequential(
            nn.ReflectionPad2d(3),
            *_stage(nn.Conv2d(channels, width, 7, bias=False)),
            *_stage(nn.Conv2d(width, 2 * width, 3, 2, 1, bias=False)),
            *_stage(nn.Conv2d(2 * width, 4 * width, 3, 2, 1, bias=False)),
            *(_Residual(4 * width) for _ in range(blocks)),
            *_stage(nn.ConvTranspose2d(4 * width, 2 * width, 3, 2, 1, 1, bias=False)),
            *_stage(nn.ConvTranspose2d(2 * width, width, 3, 2, 1, 1, bias=False)),
            nn.ReflectionPad2d(3),
            nn.Conv2d(width, channels, 7),
            nn.Tanh(),
        )
        reset_parameters_dcgan(self)

    def forward(self, images: Tensor) -> Tensor:
        """Map images (n,C,H,W) to perturbations (n,C,H,W) in (-1,1)."""
        # Two halvings round up, so that the doublings may end a few pixels beyond the image.
        return self.layers(images)[..., : images.shape[2], : images.shape[3]]


class _Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        convolutions = [nn.Conv2d(width, width, 3, bias=False) for _ in range(2)]
        self.layers = nn.Sequential(
            nn.ReflectionPad2d(1),
            *_stage(convolutions[0]),
            nn.ReflectionPad2d(1),
            convolutions[1],
            nn.BatchNorm2d(width),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


def _stage(convolution: nn.Conv2d | nn.ConvTranspose2d) -> tuple[nn.Module, nn.Module, nn.Module]:
    return convolution, nn.BatchNorm2d(convolution.out_channels), nn.ReLU()
