"""Small networks without BatchNorm: LeNet-5, its half, the LeNet of advertorch, and a tiny perceptron."""

from torch import Tensor, nn
from torch.nn import functional as F

from lra.images import Image, require_side


class LeNet5(nn.Module):
    """LeNet-5 of LeCun et al. (1998) as data-free distillation uses it (DAFL, Chen et al., ICCV 2019).

    ReLU and max-pooling; convolutions to 6, 16 and 120 channels, linear to 84 and to the classes;
    ``half`` has half as many of each, ``norm`` puts BatchNorm behind each convolution. At side 28 and 32
    it is the classic network. The first convolution is padded below side 32 and the second below 12, and
    the third one's kernel covers what is left, so that any image works.
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
        self.conv3 = nn.Conv2d(widths[1], widths[2], (sides[0], sides[1]))
        self.bn1, self.bn2, self.bn3 = (nn.BatchNorm2d(w) if norm else nn.Identity() for w in widths[:3])
        self.fc1 = nn.Linear(widths[2], widths[3])
        self.fc2 = nn.Linear(widths[3], classes)

    def forward(self, images: Tensor) -> Tensor:
        """Map normalised images (n,C,H,W) to logits (n,K)."""
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(images))), 2)
        x = F.max_pool2d(F.relu(self.bn2(self.conv2(x))), 2)
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
        x = F.max_pool2d(F.relu(self.conv1(images)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        return self.linear2(F.relu(self.linear1(x.flatten(1))))


def mlp(classes: int, image: Image, hidden: int = 32) -> nn.Sequential:
    """Build a perceptron with one hidden layer that costs next to nothing, for tests and benchmarks."""
    require_side(image, 1, "mlp")
    channels, height, width = image
    inputs = channels * height * width
    return nn.Sequential(nn.Flatten(), nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, classes))
