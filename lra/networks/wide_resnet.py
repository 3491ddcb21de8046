"""Wide ResNets (Zagoruyko and Komodakis, BMVC 2016) for small images."""

from collections import OrderedDict

from torch import Tensor, nn
from torch.nn import functional as F

from lra.networks.cifar_resnet import blocks_per_stage, conv3x3, stage
from lra.networks.shapes import Image, require_side


class PreActivationBlock(nn.Module):
    """BatchNorm, ReLU and 3x3 convolution, twice, added to the block's input.

    Where the number of channels changes, the shortcut is a 1x1 convolution of the *activated* input.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        """Build a block from ``inputs`` to ``outputs`` channels."""
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = conv3x3(inputs, outputs, stride)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.conv2 = conv3x3(outputs, outputs)
        self.convShortcut = None
        if inputs != outputs or stride != 1:
            self.convShortcut = nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (n,inputs,h,w) to (n,outputs,ceil(h/stride),ceil(w/stride))."""
        active = F.relu(self.bn1(x))
        out = self.conv2(F.relu(self.bn2(self.conv1(active))))
        return out + (x if self.convShortcut is None else self.convShortcut(active))


def _named_stage(inputs: int, outputs: int, *, stride: int, blocks: int) -> nn.Sequential:
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    # The name "layer" between stage and block is the checkpoints'.
    layers["layer"] = stage(PreActivationBlock, inputs, outputs, stride=stride, blocks=blocks)
    return nn.Sequential(layers)


class WideResNet(nn.Module):
    """WRN-depth-widen: three stages of 16, 32, 64 channels times ``widen``.

    Its parameters are named as in the CIFAR-10 checkpoints of karanchahal/distiller, which load as they are.
    """

    def __init__(self, classes: int, image: Image, depth: int, widen: int) -> None:
        """Build it for ``image`` (C,H,W) with sides of 4 pixels or more.

        Raises:
            ValueError: if ``depth`` is not 6n+4, or the image is too small.
        """
        super().__init__()
        require_side(image, 4, f"wrn{depth}-{widen}")
        blocks = blocks_per_stage(depth, 4, 2, "wide ResNet")
        self.conv1 = conv3x3(image[0], 16)
        self.layer1 = _named_stage(16, 16 * widen, stride=1, blocks=blocks)
        self.layer2 = _named_stage(16 * widen, 32 * widen, stride=2, blocks=blocks)
        self.layer3 = _named_stage(32 * widen, 64 * widen, stride=2, blocks=blocks)
        self.bn1 = nn.BatchNorm2d(64 * widen)
        self.linear = nn.Linear(64 * widen, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        nn.init.zeros_(self.linear.bias)

    def forward(self, images: Tensor) -> Tensor:
        """Map normalised images (n,C,H,W) to logits (n,K)."""
        x = self.layer3(self.layer2(self.layer1(self.conv1(images))))
        return self.linear(F.relu(self.bn1(x)).mean((2, 3)))
