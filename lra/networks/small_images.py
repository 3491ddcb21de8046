"""Networks for small images (digits, CIFAR, tiny-ImageNet): LeNets, a perceptron, VGGs, and torchvision's.

torchvision's get other strides and stems. Since it takes a while to import, each function imports what it builds.
"""

from collections import OrderedDict
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from lra.images import Image, require_side


class CoveringConvolution(nn.Conv2d):
    """A convolution whose kernel covers the whole map, computed as a single matrix product.

    A convolution library needs more time for it, especially for its derivatives.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Map (n,c,h,w) to (n,c',1,1)."""
        return F.linear(input.flatten(1), self.weight.flatten(1), self.bias)[..., None, None]


def halved(maps: Tensor) -> Tensor:
    """The largest value of each 2x2 window of ``maps`` (n,c,h,w), as ``F.max_pool2d(maps, 2)``.

    Without gradients, a CPU is ten times faster at comparing rows and columns.
    """
    if maps.requires_grad or maps.device.type != "cpu" or torch.compiler.is_compiling():
        return F.max_pool2d(maps, 2)
    height, width = (side - side % 2 for side in maps.shape[2:])
    rows = torch.maximum(maps[..., 0:height:2, :], maps[..., 1:height:2, :])
    return torch.maximum(rows[..., 0:width:2], rows[..., 1:width:2])


fx.wrap("halved")  # A trace has it whole: which way is taken depends on the maps.


class LeNet5(nn.Module):
    """LeNet-5 of LeCun et al. (1998) as data-free distillation uses it (DAFL, Chen et al., ICCV 2019).

    ReLU and max-pooling; convolutions to 6, 16 and 120 channels, linear layers to 84 and to the classes; ``half`` has
    half as many of each, ``norm`` adds BatchNorm after each convolution. At sides 28 and 32 it is the classic network.
    The first convolution is padded below side 32 and the second below 12, and the third one's kernel covers what is
    left, so that any image works.
    """

    def __init__(self, classes: int, image: Image, half: bool = False, norm: bool = False) -> None:
        """Build it for ``image`` (C,H,W) with sides of 4 pixels or more, else raise ``ValueError``."""
        super().__init__()
        require_side(image, 4, "lenet5")
        channels, *sides = image
        widths = [w // 2 if half else w for w in (6, 16, 120, 84)]
        paddings = (2 if min(sides) < 32 else 0, 2 if min(sides) < 12 else 0)
        for padding in paddings:
            sides = [(side + 2 * padding - 4) // 2 for side in sides]
        self.conv1 = nn.Conv2d(channels, widths[0], 5, padding=paddings[0])
        self.conv2 = nn.Conv2d(widths[0], widths[1], 5, padding=paddings[1])
        self.conv3 = CoveringConvolution(widths[1], widths[2], (sides[0], sides[1]))
        self.bn1, self.bn2, self.bn3 = (nn.BatchNorm2d(w) if norm else nn.Identity() for w in widths[:3])
        self.fc1 = nn.Linear(widths[2], widths[3])
        self.fc2 = nn.Linear(widths[3], classes)

    def forward(self, images: Tensor) -> Tensor:
        """Map normalised images (n,C,H,W) to logits (n,K)."""
        x = F.relu(halved(self.bn1(self.conv1(images))))
        x = F.relu(halved(self.bn2(self.conv2(x))))
        x = F.relu(self.bn3(self.conv3(x))).flatten(1)
        return self.fc2(F.relu(self.fc1(x)))


class AdvertorchLeNet(nn.Module):
    """LeNet of the advertorch library: two 3x3 convolutions (32, 64), two linear layers (200, K)."""

    def __init__(self, classes: int, image: Image) -> None:
        """Build it for ``image`` (C,H,W) with sides of 4 pixels or more, else raise ``ValueError``."""
        super().__init__()
        require_side(image, 4, "advertorch-lenet")
        channels, height, width = image
        self.conv1 = nn.Conv2d(channels, 32, 3, padding=1)
        self.conv2 = nn.Conv2d(32, 64, 3, padding=1)
        self.linear1 = nn.Linear(64 * (height // 4) * (width // 4), 200)
        self.linear2 = nn.Linear(200, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Map images (n,C,H,W) to logits (n,K)."""
        x = F.relu(halved(self.conv1(images)))
        x = F.relu(halved(self.conv2(x)))
        return self.linear2(F.relu(self.linear1(x.flatten(1))))


def mlp(classes: int, image: Image, hidden: int = 32) -> nn.Sequential:
    """Build a perceptron with one hidden layer, which costs almost nothing, for tests and benchmarks."""
    require_side(image, 1, "mlp")
    channels, height, width = image
    inputs = channels * height * width
    return nn.Sequential(nn.Flatten(), nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, classes))


def resnet(classes: int, image: Image, depth: int, pooled: bool = False) -> nn.Module:
    """Build a ResNet (He et al., CVPR 2016) with a 3x3 stem of stride 1; no max-pooling after it unless ``pooled``.

    Its ``depth`` is 18, 34, 50, 101 or 152. Images (C,H,W) need sides of 8 pixels or more, else ``ValueError``.
    """
    require_side(image, 8, f"resnet{depth}")
    from torchvision import models

    network: nn.Module = getattr(models, f"resnet{depth}")(num_classes=classes)
    stem = nn.Conv2d(image[0], 64, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(stem.weight, mode="fan_out", nonlinearity="relu")
    network.conv1 = stem
    if not pooled:
        network.maxpool = nn.Identity()
    return network


def vgg11(classes: int, image: Image) -> nn.Module:
    """Build VGG-11 with BatchNorm (Simonyan and Zisserman, ICLR 2015), four max-poolings, one linear layer.

    Images (C,H,W) need sides of 16 pixels or more, else ``ValueError``.
    """
    require_side(image, 16, "vgg11")
    from torchvision.models.vgg import make_layers

    # torchvision's own constructor would first allocate a classifier of 120 million parameters.
    features = make_layers([64, "M", 128, "M", 256, 256, "M", 512, 512, "M", 512, 512], batch_norm=True)
    features[0] = nn.Conv2d(image[0], 64, 3, padding=1)
    for module in features.modules():
        if isinstance(module, nn.Conv2d) and module.bias is not None:
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            nn.init.zeros_(module.bias)
    layers = OrderedDict(
        features=features, pool=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten(), linear=nn.Linear(512, classes)
    )
    return nn.Sequential(layers)


def mobilenetv2(classes: int, image: Image, stride: Literal[8, 32] = 8) -> nn.Module:
    """Build MobileNetV2 (Sandler et al., CVPR 2018) with this total ``stride``, and no dropout.

    32 is the paper's and torchvision's, which CMI keeps for small images; 8 preserves more of them. The weights have
    the same shapes. Images (C,H,W) need sides of 8 pixels or more, else ``ValueError``.
    """
    require_side(image, 8, "mobilenetv2")
    from torchvision.models import mobilenet_v2

    # At 8, the second stage and the stem do not stride.
    early = 1 if stride == 8 else 2
    # Expansion, channels, repeats and stride of each stage.
    stages = [
        [1, 16, 1, 1],
        [6, 24, 2, early],
        [6, 32, 3, 2],
        [6, 64, 4, 2],
        [6, 96, 3, 1],
        [6, 160, 3, 2],
        [6, 320, 1, 1],
    ]
    network: nn.Module = mobilenet_v2(num_classes=classes, inverted_residual_setting=stages, dropout=0.0)
    stem = nn.Conv2d(image[0], 32, 3, stride=early, padding=1, bias=False)
    nn.init.kaiming_normal_(stem.weight, mode="fan_out")
    network.get_submodule("features.0")[0] = stem  # type: ignore[operator]
    return network


_BLOCKS = {8: (1, 1, 1, 1, 1), 11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
"""Convolutions in each of the five blocks, by depth."""


class CMIVGG(nn.Module):
    """VGG with BatchNorm (Simonyan and Zisserman, ICLR 2015), one linear layer, and three max-poolings.

    Its parameters are named as in the checkpoints shared by CMI (Fang et al., IJCAI 2021) and later code, which load
    unchanged. Images with a height of 64, as in Tiny-ImageNet, are pooled a fourth time before the last block: what
    these weights compute depends on the size of the images.
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
                x = halved(x)
        return self.classifier(x.mean((2, 3)))


def _block(inputs: int, outputs: int, count: int) -> nn.Sequential:
    """Convolutions with BatchNorm, and ReLU between them."""
    layers: list[nn.Module] = []
    for i in range(count):
        convolution = nn.Conv2d(outputs if i else inputs, outputs, 3, padding=1)
        layers += [*([nn.ReLU()] if i else []), convolution, nn.BatchNorm2d(outputs)]
    return nn.Sequential(*layers)
