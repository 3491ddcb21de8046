"""ResNets for small images: He et al.'s (CVPR 2016, section 4.2) with options A and B, wide-stem and wide ones."""

from collections import OrderedDict
from collections.abc import Callable

from torch import Tensor, nn
from torch.nn import functional as F

from lra.images import Image, require_side


def conv3x3(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    """Build a padded 3x3 convolution without bias."""
    return nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)


def blocks_per_stage(depth: int, extra: int, per_block: int, network: str) -> int:
    """Return how many blocks each of three stages has.

    Raises:
        ValueError: if no network of this ``depth`` exists.
    """
    blocks, rest = divmod(depth - extra, 3 * per_block)
    if rest or blocks < 1:
        raise ValueError(f"the depth of a {network} is {3 * per_block}n+{extra}; got {depth}")
    return blocks


def stage(
    block: Callable[[int, int, int], nn.Module], inputs: int, outputs: int, *, stride: int, blocks: int
) -> nn.Sequential:
    """Chain ``blocks`` blocks, called with their inputs, outputs and stride; only the first one strides."""
    return nn.Sequential(block(inputs, outputs, stride), *(block(outputs, outputs, 1) for _ in range(blocks - 1)))


def projection(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    """Build a shortcut: a 1x1 convolution with BatchNorm where the shape changes, otherwise the identity."""
    if stride == 1 and inputs == outputs:
        return nn.Sequential()
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False), nn.BatchNorm2d(outputs))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions, each with BatchNorm, and a parameter-free shortcut ("option A").

    Where the block strides, the shortcut takes every second pixel and pads channels with zeros on both sides.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        """Build a block from ``inputs`` to ``outputs`` channels."""
        super().__init__()
        self.conv1 = conv3x3(inputs, outputs, stride)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = conv3x3(outputs, outputs)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.stride = stride
        self.zeros = ((outputs - inputs) // 2, outputs - inputs - (outputs - inputs) // 2)

    def forward(self, x: Tensor) -> Tensor:
        """Map (n,inputs,h,w) to (n,outputs,ceil(h/stride),ceil(w/stride))."""
        # Before the convolutions, as ever: the order in which gradients are added up decides their last bit.
        shortcut = self.shortcut(x)
        out = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(out + shortcut)

    def shortcut(self, x: Tensor) -> Tensor:
        """Map (n,inputs,h,w) to the block's outputs."""
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, *self.zeros))


class CifarResNet(nn.Module):
    """ResNet-20/32/44/56 of He et al.: 16-32-64 channels, 6n+2 layers; n=1 gives ResNet-8.

    Its parameters are named as in its widely shared CIFAR-10 checkpoints, which load unchanged.
    """

    def __init__(self, classes: int, image: Image, depth: int) -> None:
        """Build it for ``image`` (C,H,W) with sides of 4 pixels or more.

        Raises:
            ValueError: if ``depth`` is not 6n+2, or the image is too small.
        """
        super().__init__()
        require_side(image, 4, f"resnet{depth}")
        blocks = blocks_per_stage(depth, 2, 2, "CIFAR ResNet")
        self.conv1 = conv3x3(image[0], 16)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = stage(BasicBlock, 16, 16, stride=1, blocks=blocks)
        self.layer2 = stage(BasicBlock, 16, 32, stride=2, blocks=blocks)
        self.layer3 = stage(BasicBlock, 32, 64, stride=2, blocks=blocks)
        self.linear = nn.Linear(64, classes)
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                nn.init.kaiming_normal_(module.weight)

    def forward(self, images: Tensor) -> Tensor:
        """Map normalised images (n,C,H,W) to logits (n,K)."""
        x = F.relu(self.bn1(self.conv1(images)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(x.mean((2, 3)))


class ProjectionBlock(BasicBlock):
    """A `BasicBlock` whose shortcut is a 1x1 convolution with BatchNorm where the shape changes ("option B")."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        """Build a block from ``inputs`` to ``outputs`` channels."""
        super().__init__(inputs, outputs, stride)
        self.downsample = projection(inputs, outputs, stride)

    def shortcut(self, x: Tensor) -> Tensor:
        """Map (n,inputs,h,w) to the block's outputs."""
        return self.downsample(x)


class ProjectionResNet(nn.Module):
    """ResNets of 6n+2 layers with option B: 16-32-64 channels, or others.

    Its parameters are named as in the checkpoints of CMI and RepDistiller (resnet20 and the like, resnet8x4,
    resnet32x4), which load unchanged.
    """

    def __init__(
        self, classes: int, image: Image, depth: int, widths: tuple[int, int, int, int] = (16, 16, 32, 64)
    ) -> None:
        """Build it for ``image`` (C,H,W) with sides of 4 pixels or more.

        Args:
            classes: K.
            image: channels, height and width.
            depth: 6n+2.
            widths: channels of the stem and of the three stages.

        Raises:
            ValueError: if ``depth`` is not 6n+2, or the image is too small.
        """
        super().__init__()
        require_side(image, 4, f"resnet{depth}")
        blocks = blocks_per_stage(depth, 2, 2, "CIFAR ResNet")
        stem, first, second, third = widths
        self.conv1 = conv3x3(image[0], stem)
        self.bn1 = nn.BatchNorm2d(stem)
        self.layer1 = stage(ProjectionBlock, stem, first, stride=1, blocks=blocks)
        self.layer2 = stage(ProjectionBlock, first, second, stride=2, blocks=blocks)
        self.layer3 = stage(ProjectionBlock, second, third, stride=2, blocks=blocks)
        self.fc = nn.Linear(third, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        """Map normalised images (n,C,H,W) to logits (n,K)."""
        x = self.layer3(self.layer2(self.layer1(F.relu(self.bn1(self.conv1(images))))))
        return self.fc(x.mean((2, 3)))


class WideStemBlock(nn.Module):
    """A block with a 1x1 convolution as shortcut where the shape changes, and no ReLU after the addition."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        """Build a block from ``inputs`` to ``outputs`` channels."""
        super().__init__()
        self.conv1 = conv3x3(inputs, outputs, stride)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = conv3x3(outputs, outputs)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut = projection(inputs, outputs, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Map (n,inputs,h,w) to (n,outputs,ceil(h/stride),ceil(w/stride))."""
        return self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))) + self.shortcut(x)


class WideStemResNet(nn.Module):
    """ResNet with a stem of 64 channels, stages of 16-32-64, and ReLU after each stage, not each block.

    The last map is pooled to 2x2, so that the classifier sees 256 features. This is the network of the CIFAR-100
    checkpoints of karanchahal/distiller, which load unchanged.
    """

    def __init__(self, classes: int, image: Image, depth: int) -> None:
        """Build it for ``image`` (C,H,W) with sides of 5 pixels or more.

        Raises:
            ValueError: if ``depth`` is not 6n+2, or the image is too small.
        """
        super().__init__()
        require_side(image, 5, f"resnet{depth}-wide-stem")
        blocks = blocks_per_stage(depth, 2, 2, "wide-stem ResNet")
        self.conv1 = conv3x3(image[0], 64)
        self.bn1 = nn.BatchNorm2d(64)
        self.layer1 = stage(WideStemBlock, 64, 16, stride=1, blocks=blocks)
        self.layer2 = stage(WideStemBlock, 16, 32, stride=2, blocks=blocks)
        self.layer3 = stage(WideStemBlock, 32, 64, stride=2, blocks=blocks)
        self.linear = nn.Linear(4 * 64, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Map normalised images (n,C,H,W) to logits (n,K)."""
        x = F.relu(self.bn1(self.conv1(images)))
        for layer in (self.layer1, self.layer2, self.layer3):
            x = F.relu(layer(x))
        return self.linear(F.adaptive_avg_pool2d(x, 2).flatten(1))


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
    """Wide ResNet (Zagoruyko and Komodakis, BMVC 2016): three stages of 16, 32, 64 channels times ``widen``.

    Its parameters are named as in the CIFAR-10 checkpoints of karanchahal/distiller, which load unchanged.
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
