"""Weights from the field: their network is told by names and shapes alone, and computes what its definition does."""

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lra.networks import build
from lra.networks.foreign import torchvision_classifier, torchvision_classifiers
from lra.networks.recognition import MARKS, Unrecognised, recognise
from lra.networks.weights import load_weights

CIFAR = (3, 32, 32)
Definition = Callable[[int], nn.Module]

# What public codes define, written anew: the names of their parts and what these compute.


class Named(nn.Module):
    """Children under names, and what to do with them."""

    def __init__(self, forward: Callable[[Any, Tensor], Tensor], **parts: nn.Module | None) -> None:
        super().__init__()
        for name, part in parts.items():
            if part is not None:
                self.add_module(name, part)
        self.does = forward

    def forward(self, x: Tensor) -> Tensor:
        return self.does(self, x)


def conv(inputs: int, outputs: int, kernel: int = 3, stride: int = 1, bias: bool = False) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=bias)


def projection(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    return nn.Sequential(conv(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs))


def basic(shortcut: str, last: Callable[[Tensor], Tensor] = F.relu) -> Callable[[int, int, int], nn.Module]:
    """Two convolutions; a shortcut under the name ``shortcut``, or none with parameters if that is empty."""

    def make(inputs: int, outputs: int, stride: int) -> nn.Module:
        def forward(block: Any, x: Tensor) -> Tensor:
            out = block.bn2(block.conv2(F.relu(block.bn1(block.conv1(x)))))
            if shortcut and hasattr(block, shortcut):
                x = getattr(block, shortcut)(x)
            elif inputs != outputs:
                x = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, (outputs - inputs) // 2, (outputs - inputs) // 2))
            return last(out + x)

        other = {shortcut: projection(inputs, outputs, stride)} if shortcut and (inputs, 1) != (outputs, stride) else {}
        first = {"conv1": conv(inputs, outputs, stride=stride), "bn1": nn.BatchNorm2d(outputs)}
        return Named(forward, **first, conv2=conv(outputs, outputs), bn2=nn.BatchNorm2d(outputs), **other)

    return make


def bottleneck(inputs: int, outputs: int, stride: int) -> nn.Module:
    def forward(block: Any, x: Tensor) -> Tensor:
        out = F.relu(block.bn2(block.conv2(F.relu(block.bn1(block.conv1(x))))))
        return F.relu(block.bn3(block.conv3(out)) + (block.shortcut(x) if hasattr(block, "shortcut") else x))

    width = outputs // 4
    return Named(
        forward,
        conv1=conv(inputs, width, 1),
        bn1=nn.BatchNorm2d(width),
        conv2=conv(width, width, stride=stride),
        bn2=nn.BatchNorm2d(width),
        conv3=conv(width, outputs, 1),
        bn3=nn.BatchNorm2d(outputs),
        shortcut=projection(inputs, outputs, stride) if (inputs, 1) != (outputs, stride) else None,
    )


def residual(
    block: Callable[[int, int, int], nn.Module],
    blocks: tuple[int, ...],
    widths: tuple[int, ...],
    classifier: str,
    *,
    between: Callable[[Tensor], Tensor] = lambda x: x,
    pool: int = 1,
) -> Definition:
    """A stem, stages of which all but the first stride, and a linear layer; ``widths`` begin with the stem's."""

    def make(classes: int) -> nn.Module:
        def forward(network: Any, x: Tensor) -> Tensor:
            x = F.relu(network.bn1(network.conv1(x)))
            for i in range(len(blocks)):
                x = between(getattr(network, f"layer{i + 1}")(x))
            return getattr(network, classifier)(F.adaptive_avg_pool2d(x, pool).flatten(1))

        stages = {}
        for i, count in enumerate(blocks):
            sizes = [(widths[i], widths[i + 1], 2 if i else 1)] + [(widths[i + 1], widths[i + 1], 1)] * (count - 1)
            stages[f"layer{i + 1}"] = nn.Sequential(*(block(*size) for size in sizes))
        head = {classifier: nn.Linear(widths[-1] * pool**2, classes)}
        return Named(forward, conv1=conv(3, widths[0]), bn1=nn.BatchNorm2d(widths[0]), **stages, **head)

    return make


def wide(depth: int, widen: int, stages: str = "block", classifier: str = "fc") -> Definition:
    """xternalz/WideResNet-pytorch, which CMI follows."""

    def block(inputs: int, outputs: int, stride: int) -> nn.Module:
        def forward(block: Any, x: Tensor) -> Tensor:
            active = F.relu(block.bn1(x))
            out = block.conv2(F.relu(block.bn2(block.conv1(active))))
            return out + (block.convShortcut(active) if hasattr(block, "convShortcut") else x)

        return Named(
            forward,
            bn1=nn.BatchNorm2d(inputs),
            conv1=conv(inputs, outputs, stride=stride),
            bn2=nn.BatchNorm2d(outputs),
            conv2=conv(outputs, outputs),
            convShortcut=conv(inputs, outputs, 1, stride) if inputs != outputs else None,
        )

    def make(classes: int) -> nn.Module:
        def forward(network: Any, x: Tensor) -> Tensor:
            x = network.conv1(x)
            for i in (1, 2, 3):
                x = getattr(network, f"{stages}{i}").layer(x)
            return getattr(network, classifier)(F.avg_pool2d(F.relu(network.bn1(x)), 8).flatten(1))

        widths, parts = (16, 16 * widen, 32 * widen, 64 * widen), {}
        for i in (1, 2, 3):
            sizes = [(widths[i - 1], widths[i], min(i, 2))] + [(widths[i], widths[i], 1)] * ((depth - 4) // 6 - 1)
            parts[f"{stages}{i}"] = nn.Sequential(OrderedDict(layer=nn.Sequential(*(block(*s) for s in sizes))))
        head = {classifier: nn.Linear(widths[3], classes)}
        return Named(forward, conv1=conv(3, 16), **parts, bn1=nn.BatchNorm2d(widths[3]), **head)

    return make


def vgg(*counts: int) -> Definition:
    """CMI's, after RepDistiller: the activation behind a block is not in the block."""

    def make(classes: int) -> nn.Module:
        def forward(network: Any, x: Tensor) -> Tensor:
            height = x.shape[2]
            for i in range(5):
                x = F.relu(getattr(network, f"block{i}")(x))
                if i < 3 or (i == 3 and height == 64):
                    x = F.max_pool2d(x, 2)
            return network.classifier(F.adaptive_avg_pool2d(x, 1).flatten(1))

        widths, parts = (3, 64, 128, 256, 512, 512), {}
        for i, count in enumerate(counts):
            layers: list[nn.Module] = []
            for j in range(count):
                layers += [
                    conv(widths[i + (j > 0)], widths[i + 1], bias=True),
                    nn.BatchNorm2d(widths[i + 1]),
                    nn.ReLU(),
                ]
            parts[f"block{i}"] = nn.Sequential(*layers[:-1])
        return Named(forward, **parts, classifier=nn.Linear(512, classes))

    return make


def thrice(n: int) -> tuple[int, int, int]:
    return n, n, n


RESNET, TINY, TIMES4 = (64, 64, 128, 256, 512), (16, 16, 32, 64), (32, 64, 128, 256)
PUBLIC: dict[str, tuple[Definition, str]] = {
    "akamaster resnet20": (residual(basic(""), thrice(3), TINY, "linear"), "resnet20"),
    "akamaster resnet50": (residual(basic(""), thrice(8), TINY, "linear"), "resnet50-a"),
    "akamaster resnet20, option B": (residual(basic("shortcut"), thrice(3), TINY, "linear"), "resnet20-b"),
    "cmi resnet8": (residual(basic("downsample"), thrice(1), TINY, "fc"), "resnet8-b"),
    "cmi resnet20": (residual(basic("downsample"), thrice(3), TINY, "fc"), "resnet20-b"),
    "cmi resnet56": (residual(basic("downsample"), thrice(9), TINY, "fc"), "resnet56-b"),
    "cmi resnet8x4": (residual(basic("downsample"), thrice(1), TIMES4, "fc"), "resnet8x4"),
    "cmi resnet32x4": (residual(basic("downsample"), thrice(5), TIMES4, "fc"), "resnet32x4"),
    "cmi resnet18": (residual(basic("shortcut"), (2, 2, 2, 2), RESNET, "linear"), "resnet18"),
    "cmi resnet34": (residual(basic("shortcut"), (3, 4, 6, 3), RESNET, "linear"), "resnet34"),
    "cmi resnet50": (residual(bottleneck, (3, 4, 6, 3), (64, 256, 512, 1024, 2048), "linear"), "resnet50"),
    "cmi wrn16_1": (wide(16, 1), "wrn16-1"),
    "cmi wrn40_2": (wide(40, 2), "wrn40-2"),
    "cmi wrn22_3": (wide(22, 3), "wrn22-3"),
    "karanchahal wrn10_1": (wide(10, 1, "layer", "linear"), "wrn10-1"),
    "cmi vgg8": (vgg(1, 1, 1, 1, 1), "vgg8-cmi"),
    "cmi vgg11": (vgg(1, 1, 2, 2, 2), "vgg11-cmi"),
    "cmi vgg13": (vgg(2, 2, 2, 2, 2), "vgg13-cmi"),
    **{
        f"karanchahal resnet{6 * n + 2}": (
            residual(
                basic("shortcut", lambda x: x), thrice(n), (64, 16, 32, 64), "linear", between=F.relu, pool=2
            ),
            f"resnet{6 * n + 2}-wide-stem",
        )
        for n in (1, 3, 4)
    },
}  # fmt: skip


def alive(network: nn.Module) -> nn.Module:
    """With BatchNorm as training leaves it, and not as it begins."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.2)
            nn.init.normal_(module.running_mean, 0, 0.2)  # type: ignore[arg-type]
            nn.init.uniform_(module.running_var, 0.5, 1.5)  # type: ignore[arg-type]
    return network.eval()


@torch.no_grad()
def logits(network: nn.Module, image: tuple[int, int, int] = CIFAR) -> Tensor:
    torch.manual_seed(1)
    return network.eval()(torch.rand(2, *image))


def same_function(one: nn.Module, other: nn.Module, image: tuple[int, int, int] = CIFAR) -> bool:
    found, expected = logits(one, image), logits(other, image)
    return bool((found - expected).abs().max() <= 1e-5 * expected.abs().max())


@pytest.mark.parametrize("case", PUBLIC)
def test_a_public_definition_is_recognised_and_computes_the_same(case: str) -> None:
    torch.manual_seed(0)
    definition, name = PUBLIC[case]
    public = alive(definition(10))
    head, layer = next((key, layer) for key, layer in public.named_children() if isinstance(layer, nn.Linear))
    for classes in (10, 100, 200):
        setattr(public, head, nn.Linear(layer.in_features, classes))
        found = recognise(public.state_dict(), CIFAR)
        assert (found.names, found.doubt, found.classes, found.channels) == ((name,), "", classes, 3)
        dressed = {f"module.{key}": value for key, value in public.state_dict().items()}
        assert recognise(dressed, CIFAR) == recognise({"epoch": 3, "state_dict": dressed}, CIFAR) == found
        ours = build(name, classes, CIFAR)
        load_weights(ours, dressed)
        assert logits(ours).shape == (2, classes)
        assert same_function(ours, public)


@pytest.mark.parametrize("case", ["cmi vgg8", "cmi vgg11", "cmi resnet20", "cmi resnet18"])
@pytest.mark.parametrize("side", [48, 64])
def test_images_of_other_sizes_too(case: str, side: int) -> None:
    torch.manual_seed(0)
    definition, name = PUBLIC[case]
    public, ours = alive(definition(10)), build(name, 10, (3, side, side))
    load_weights(ours, public.state_dict())
    assert same_function(ours, public, (3, side, side))


def pooled(classes: int) -> nn.Module:
    """torchvision's with another stem and its max-pooling, as for CIFAR in huyvnphan/PyTorch_CIFAR10."""
    from torchvision.models import resnet18

    network = resnet18(num_classes=classes)
    network.conv1 = conv(3, 64)
    return network


def unpooled(classes: int) -> nn.Module:
    network = pooled(classes)
    network.maxpool = nn.Identity()
    return network


def torchvisions_mobilenet(classes: int) -> nn.Module:
    from torchvision.models import mobilenet_v2

    return mobilenet_v2(num_classes=classes)


@pytest.mark.parametrize(
    ("definition", "meant", "others"),
    [
        (torchvisions_mobilenet, "mobilenetv2-cmi", ["mobilenetv2-stride8"]),
        (pooled, "resnet18-maxpool", ["resnet18"]),
        (unpooled, "resnet18", ["resnet18-maxpool"]),
    ],
)
def test_what_weights_do_not_say_is_not_guessed(definition: Definition, meant: str, others: list[str]) -> None:
    """Several networks have such weights; they are named, and differ in what they compute."""
    torch.manual_seed(0)
    public = alive(definition(10))
    found = recognise(public.state_dict(), CIFAR)
    assert sorted(found.names) == sorted([meant, *others])
    assert found.doubt
    for name in found.names:
        ours = build(name, 10, CIFAR)
        load_weights(ours, public.state_dict())
        assert same_function(ours, public) == (name == meant)


@pytest.mark.parametrize("name", ["lenet5", "lenet5-half", "lenet5-bn", "mlp", "vgg11"])
def test_networks_whose_weights_many_others_have_must_be_named(name: str) -> None:
    """Tanh for ReLU, average for max-pooling: the file does not say it."""
    found = recognise(build(name, 10, CIFAR).state_dict(), CIFAR)
    assert (found.names, bool(found.doubt)) == ((name,), True)


def test_another_spelling_than_the_public_one_must_be_named() -> None:
    """Option A under ``fc``: whoever wrote it may pad channels at the end."""
    weights = {name.replace("linear", "fc"): value for name, value in build("resnet20", 10, CIFAR).state_dict().items()}
    found = recognise(weights, CIFAR)
    assert (found.names, bool(found.doubt)) == (("resnet20",), True)


def test_channels_and_classes_are_told_too() -> None:
    found = recognise(build("wrn16-1", 7, (1, 32, 32)).state_dict(), CIFAR)
    assert (found.names, found.classes, found.channels) == (("wrn16-1",), 7, 1)


def test_weights_of_no_network_here_name_the_nearest() -> None:
    weights = PUBLIC["cmi wrn40_2"][0](10).state_dict()
    weights["extra.weight"] = weights.pop("fc.bias")
    with pytest.raises(Unrecognised, match=r"\Athe nearest is wrn40-2, with 1 missing .*, 1 unknown .*'extra.weight'"):
        recognise(weights, CIFAR)
    other = nn.Conv2d(3, 64, 5)
    with pytest.raises(Unrecognised, match=r"resnet18, with conv1.weight \(64, 3, 5, 5\) in place of \(64, 3, 3, 3\)"):
        recognise(torchvisions("resnet18") | {"conv1.weight": other.weight}, CIFAR)
    with pytest.raises(Unrecognised):
        recognise({"weight": torch.zeros(3)}, CIFAR)


def torchvisions(name: str, classes: int = 10) -> dict[str, Tensor]:
    """Weights of one of torchvision's."""
    return torchvision_classifier(name, classes).state_dict()


@pytest.mark.parametrize(
    "name",
    [
        *("resnet18", "resnet50", "resnext50_32x4d", "densenet121", "squeezenet1_1", "mobilenet_v3_small"),
        *("efficientnet_b0", "mnasnet0_5", "shufflenet_v2_x0_5", "regnet_x_400mf", "convnext_tiny", "swin_t"),
    ],
)
def test_torchvisions_classifiers_are_told_by_their_weights(name: str) -> None:
    """Their names and shapes are no other's; with a prefix or without counters they are the same."""
    weights = torchvisions(name, 7)
    found = recognise(weights, (3, 64, 64))
    assert (found.names, found.doubt, found.classes, found.channels) == ((f"torchvision:{name}",), "", 7, 3)
    old = {key: value for key, value in weights.items() if not key.endswith("num_batches_tracked")}
    assert recognise({"model": {f"module.{key}": value for key, value in old.items()}}, CIFAR) == found
    last = next(reversed(weights))
    with pytest.raises(Unrecognised):
        recognise({key: value for key, value in weights.items() if key != last}, CIFAR)
    with pytest.raises(Unrecognised):
        recognise(weights | {last: torch.zeros(*weights[last].shape, 1)}, CIFAR)


def test_what_torchvisions_weights_do_not_say_is_not_guessed() -> None:
    found = recognise(torchvisions("googlenet"), CIFAR)
    assert found.names == ("torchvision:googlenet",)
    assert "transform_input" in found.doubt


def test_every_classifier_of_torchvision_is_looked_for() -> None:
    beginnings = tuple(start for starts in MARKS.values() for start in starts)
    assert [name for name in torchvision_classifiers() if not name.startswith(beginnings)] == []


def test_recognising_leaves_random_numbers_alone() -> None:
    weights = PUBLIC["cmi resnet20"][0](10).state_dict()
    before = torch.get_rng_state()
    recognise(weights, (3, 33, 33))
    assert torch.equal(torch.get_rng_state(), before)
