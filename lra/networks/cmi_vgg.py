"""The VGG networks of the CMI family of codes for data-free distillation."""

from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional as F

from lra.networks.shapes import Image, require_side

_BLOCKS = {8: (1, 1, 1, 1, 1), 11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
"""Convolutions in each of the five blocks, by depth."""


class CMIVGG(nn.Module):
    """VGG with BatchNorm (Simonyan and Zisserman, ICLR 2015), one linear layer, and three max-poolings.

    Its parameters are named as in the checkpoints that CMI (Fang et al., IJCAI 2021) and the codes after it share,
    which load as they are. Images that are 64 high, as Tiny-ImageNet's, are pooled a fourth time before the last
    block: what these weights compute hangs on the size of the images.
    """

    def __init__(self, classes: int, image: Image, depth: int) -> None:
        """Build it for ``image`` (C,H,W) with sides of 8 pixels or more, else raise ``ValueError``."""
        super().__init__()
        require_side(image, 8, f"vgg{depth}-cmi")
        widths = (image[0], 64, 128, 256, 512, 512)
        for i, ((inputs, outputs), count) in enumerate(zip(pairwise(widths), _BLOCKS[depth], strict=True)):
            self.add_module(f"block{i}", _block(inputs, outputs, count))
        self.classifier = nn.Linear(512, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d) and module.bias is not None:
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                nn.init.zeros_(module.bias)

    def forward(self, images: Tensor) -> Tensor:
        """Map normalised images (n,C,H,W) to logits (n,K)."""
        x = images
        for i in range(5):
            x = F.relu(self.get_submodule(f"block{i}")(x))
            if i < 3 or (i == 3 and images.shape[2] == 64):
                x = F.max_pool2d(x, 2)
        return self.classifier(x.mean((2, 3)))


def _block(inputs: int, outputs: int, count: int) -> nn.Sequential:
    """Convolutions with BatchNorm, and ReLU between them."""
    layers: list[nn.Module] = []
    for i in range(count):
        convolution = nn.Conv2d(outputs if i else inputs, outputs, 3, padding=1)
        layers += [*([nn.ReLU()] if i else []), convolution, nn.BatchNorm2d(outputs)]
    return nn.Sequential(*layers)
