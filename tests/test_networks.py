"""Teachers and students: shapes, published sizes, weights found in the wild, and what an error says."""

import copy
import re
import subprocess
import sys

import pytest
import torch
from torch import nn

from lra.anatomy import batchnorm_layers, classifier
from lra.benchmarks.errors import UsageError
from lra.benchmarks.setup.config import StudentOptions
from lra.benchmarks.setup.networks import gains_channels_last, in_best_order, ordered
from lra.networks import NETWORKS, build, is_known
from lra.networks.normalized import Normalized
from lra.networks.small_images import CoveringConvolution, halved
from lra.networks.weights import load_weights, unwrapped

CIFAR = (3, 32, 32)
SHALLOW = ["lenet5", "lenet5-half", "lenet5-bn", "advertorch-lenet", "mlp", "resnet8", "resnet8-wide-stem", "wrn10-1"]
SIDES = [8, 16, 28, 32, 64]


def size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def check_network(name, image):
    network = build(name, 7, image)
    images = torch.rand(2, *image, requires_grad=True)
    logits = network(images)
    assert logits.shape == (2, 7)
    logits.sum().backward()
    assert images.grad is not None
    assert torch.isfinite(images.grad).all()


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("name", SHALLOW)
def test_a_network_takes_images_of_any_size(name, side, channels):
    check_network(name, (channels, side, side))


@pytest.mark.parametrize("name", NETWORKS)
def test_every_name_gives_a_network_for_small_images(name):
    check_network(name, (1, 16, 16))


@pytest.mark.parametrize("name", [*SHALLOW, "resnet18", "vgg11", "mobilenetv2"])
def test_a_network_takes_oblong_images(name):
    check_network(name, (2, 16, 30))
    check_network(name, (2, 30, 16))


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("lenet5", 62_006),
        ("resnet20", 269_722),
        ("resnet32", 464_154),
        ("resnet44", 658_586),
        ("resnet56", 853_018),
        ("resnet18", 11_173_962),
        ("resnet34", 21_282_122),
        ("wrn10-1", 77_850),
        ("wrn16-1", 175_066),
        ("wrn28-1", 369_498),
        ("wrn16-2", 691_674),
        ("wrn40-1", 563_930),
        ("wrn40-2", 2_243_546),
        ("vgg11", 9_231_114),
        ("mobilenetv2", 2_236_682),
        ("resnet20-b", 272_474),
        ("resnet56-b", 855_770),
        ("resnet8x4", 1_210_410),
        ("resnet50", 23_520_842),
        ("resnet110", 1_727_962),
        ("wrn28-10", 36_479_194),
        ("vgg8-cmi", 3_918_858),
        ("vgg11-cmi", 9_231_114),
        ("vgg13-cmi", 9_416_010),
    ],
)
def test_parameter_counts_are_the_published_ones(name, parameters):
    with torch.device("meta"):
        assert size(build(name, 10, CIFAR)) == parameters


@pytest.mark.parametrize(
    "name", ["resnet14", "resnet110", "WRN_22-3", "wrn-28-10", "resnet50-a", "vgg16-cmi", "resnet152"]
)
def test_every_depth_and_width_of_a_family_is_known_by_its_name(name):
    assert is_known(name)
    assert name not in NETWORKS


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("resnet9", "the depth of resnet{depth} is 6n+2 or 18, 34, 50, 101 or 152."),
        ("wrn17-1", "the depth of wrn{depth}-{widen} is 6n+4."),
        ("vgg12-cmi", "the depth of vgg{depth}-cmi is 8, 11, 13, 16 or 19."),
        ("wrn28-0", "did you mean 'wrn28-1'?"),
    ],
)
def test_a_size_that_a_family_has_not_is_said(name, said):
    assert not is_known(name)
    with pytest.raises(ValueError, match=re.escape(said)):
        build(name, 10, CIFAR)


@pytest.mark.parametrize(
    ("name", "layers", "channels", "features"),
    [
        ("resnet34", 36, 8512, 512),
        ("resnet18", 20, 4800, 512),
        ("wrn40-2", 37, 2704, 128),
        ("wrn40-1", 37, 1360, 64),
        ("wrn16-2", 13, 912, 128),
        ("wrn16-1", 13, 464, 64),
        ("vgg11", 8, 2752, 512),
    ],
)
def test_what_methods_look_at_in_a_teacher_is_as_published(name, layers, channels, features):
    """BatchNorm layers, their channels in all, and penultimate features, as in the releases' networks."""
    network = build(name, 10, CIFAR)
    statistics = batchnorm_layers(network, CIFAR)
    assert (len(statistics), sum(layer.num_features for layer in statistics)) == (layers, channels)
    assert classifier(network, CIFAR).in_features == features


def test_parameter_counts_of_third_party_teachers():
    assert size(build("resnet8-wide-stem", 100, CIFAR)) == 112_452
    assert size(build("resnet32-wide-stem", 100, CIFAR)) == 501_316
    assert size(build("advertorch-lenet", 10, (1, 28, 28))) == 648_226


def test_lenet_is_the_classic_one_at_28_and_32_and_has_no_batchnorm():
    small, large = build("lenet5", 10, (1, 28, 28)), build("lenet5", 10, (1, 32, 32))
    assert size(small) == size(large) == 61_706
    assert large.conv3.kernel_size == (5, 5)
    half = build("lenet5-half", 10, (1, 32, 32))
    assert [half.conv1.out_channels, half.conv2.out_channels, half.conv3.out_channels] == [3, 8, 60]
    assert half.fc1.out_features == 42
    assert not any(isinstance(module, nn.BatchNorm2d) for module in large.modules())


@pytest.mark.parametrize("bias", [True, False])
def test_a_covering_convolution_is_a_convolution_up_to_its_second_derivatives(bias):
    layer = CoveringConvolution(3, 4, (2, 5), bias=bias).double()
    images, direction = (torch.randn(6, 3, 2, 5, dtype=torch.double, requires_grad=True) for _ in range(2))
    found = []
    for maps in (layer(images), nn.functional.conv2d(images, layer.weight, layer.bias)):
        of_image, of_weight = torch.autograd.grad(maps.sigmoid().sum(), [images, layer.weight], create_graph=True)
        curved = torch.autograd.grad((of_image * direction).sum() + of_weight.square().sum(), [images, layer.weight])
        found.append([maps, of_image, of_weight, *curved])
    for ours, plain in zip(*found, strict=True):
        torch.testing.assert_close(ours, plain)


@pytest.mark.parametrize("sides", [(8, 8), (7, 5), (2, 3)])
@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last])
def test_halving_is_max_pooling(sides, order):
    maps = torch.randn(3, 5, *sides).contiguous(memory_format=order)
    maps[0, 0, 0, 0] = torch.nan
    pooled = nn.functional.max_pool2d(maps, 2)
    torch.testing.assert_close(halved(maps), pooled, rtol=0, atol=0, equal_nan=True)
    assert halved(maps).stride() == pooled.stride()
    assert torch.equal(halved(maps.requires_grad_())[1:], pooled[1:])


def test_the_shortcut_without_parameters_subsamples_and_pads_with_zeros():
    block = build("resnet8", 10, CIFAR).layer2[0].eval()
    nn.init.zeros_(block.conv2.weight)
    x = torch.rand(1, 16, 6, 6)
    out = block(x)
    assert torch.equal(out[:, 8:24], x[:, :, ::2, ::2])
    assert not out[:, :8].any()
    assert not out[:, 24:].any()


def test_an_unknown_name_gets_one_line_with_the_nearest_valid_one():
    with pytest.raises(ValueError, match=r"did you mean 'resnet18'.*Valid: lenet5, ") as caught:
        build("resent18", 10, CIFAR)
    assert "\n" not in str(caught.value)


def test_underscores_may_stand_for_hyphens():
    assert size(build("wrn16_1", 10, CIFAR)) == 175_066


@pytest.mark.parametrize(
    ("name", "image"),
    [
        ("lenet5", (1, 3, 8)),
        ("resnet20", (3, 2, 2)),
        ("vgg11", (3, 8, 8)),
        ("resnet18", (3, 4, 4)),
        ("mlp", (0, 8, 8)),
    ],
)
def test_an_image_that_is_too_small_is_refused(name, image):
    with pytest.raises(ValueError, match="takes images of at least"):
        build(name, 10, image)


def test_a_network_without_classes_is_refused():
    with pytest.raises(ValueError, match="at least 1 class"):
        build("mlp", 0, CIFAR)


def test_torchvision_is_imported_only_when_needed():
    code = "import sys, lra.networks; sys.exit('torchvision' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_normalisation_is_what_it_says_and_is_stored_with_the_weights():
    network = Normalized(nn.Identity(), [0.5, 0.25], [0.5, 0.1])
    images = torch.rand(3, 2, 4, 4)
    expected = torch.stack([(images[:, 0] - 0.5) / 0.5, (images[:, 1] - 0.25) / 0.1], dim=1)
    torch.testing.assert_close(network(images), expected)
    assert set(network.state_dict()) == {"mean", "std"}


@pytest.mark.parametrize(
    ("mean", "std", "message"),
    [
        ([0.5], [0.5, 0.5], "std needs 1"),
        ([0.5], [0.0], "positive"),
        ([], [], "one a channel"),
        ([float("nan")], [1.0], "finite"),
    ],
)
def test_a_normalisation_that_cannot_be_is_refused(mean, std, message):
    with pytest.raises(ValueError, match=message):
        Normalized(nn.Identity(), mean, std)


def test_grey_images_are_not_silently_spread_over_three_channels():
    with pytest.raises(ValueError, match="takes 3 channels"):
        Normalized(nn.Identity(), [0.5] * 3, [0.5] * 3)(torch.rand(2, 1, 8, 8))


def test_a_checkpoint_as_training_scripts_write_them_loads():
    network, other = build("resnet8", 10, CIFAR), build("resnet8", 10, CIFAR)
    loaded = {
        "epoch": 3,
        "state_dict": {f"module.{name}": value for name, value in network.state_dict().items()},
    }
    load_weights(other, loaded)
    images = torch.rand(2, *CIFAR)
    assert torch.equal(other.eval()(images), network.eval()(images))


def test_other_spellings_of_the_same_parts_load():
    network = build("resnet18", 10, CIFAR)
    theirs = {
        name.replace("fc.", "linear.").replace("downsample", "shortcut"): value
        for name, value in network.state_dict().items()
    }
    other = build("resnet18", 10, CIFAR)
    load_weights(other, theirs)
    assert torch.equal(other.fc.weight, network.fc.weight)
    assert torch.equal(other.layer2[0].downsample[0].weight, network.layer2[0].downsample[0].weight)


def test_weights_of_another_network_are_refused_and_change_nothing():
    network = build("resnet8", 10, CIFAR)
    before = copy.deepcopy(network.state_dict())
    with pytest.raises(ValueError, match=r"unknown \['layer1.1.conv1.weight', "):
        load_weights(network, build("resnet20", 10, CIFAR).state_dict())
    with pytest.raises(ValueError, match=r"linear.weight is \(5, 64\)"):
        load_weights(network, build("resnet8", 5, CIFAR).state_dict())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    with pytest.raises(ValueError, match="no weights"):
        unwrapped({"epoch": 1})


class Viewing(nn.Module):
    """Takes its maps for contiguous, in training mode or in both."""

    def __init__(self, always):
        super().__init__()
        self.maps, self.head = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Dropout()), nn.Linear(1568, 5)
        self.always = always

    def forward(self, images):
        maps = self.maps(images)
        return self.head(maps.view(len(maps), -1) if self.training or self.always else maps.flatten(1))


def are_last(network):
    """For each convolution whose weights tell it, whether they are ordered so."""
    weights = [m.weight for m in network.modules() if isinstance(m, nn.Conv2d)]
    told = [weight for weight in weights if min(weight.shape[1:]) > 1]
    return [weight.is_contiguous(memory_format=torch.channels_last) for weight in told]


@pytest.mark.parametrize(
    ("name", "image", "device", "gains"),
    [
        *(("wrn10-1", CIFAR, "cpu", True), ("resnet8", (1, 16, 16), "cpu", True), ("vgg11", CIFAR, "cpu", True)),
        *(("resnet8", (1, 8, 8), "cpu", False), ("lenet5", CIFAR, "cpu", False), ("mlp", CIFAR, "cpu", False)),
        ("wrn10-1", CIFAR, "cuda", False),
    ],
)
def test_which_networks_have_their_maps_channels_last_is_told_by_what_they_are(name, image, device, gains):
    network = build(name, 5, image)
    assert gains_channels_last(network, image, device) == gains
    images, before = torch.rand(2, *image), copy.deepcopy(network.state_dict())
    expected = network.eval()(images)
    state = torch.random.get_rng_state()
    in_best_order(network, image, device)
    assert set(are_last(network)) <= {gains}
    assert torch.equal(torch.random.get_rng_state(), state)
    assert not network.training
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    torch.testing.assert_close(network(images), expected)


@pytest.mark.parametrize("always", [False, True])
def test_a_network_that_views_its_maps_keeps_them_contiguous(always):
    network = Viewing(always)
    options = StudentOptions(network="mine")
    ordered(network, options, (3, 16, 16), "cpu")
    assert network.maps[0].weight.is_contiguous()
    assert network(torch.rand(2, 3, 16, 16)).shape == (2, 5)
    with pytest.raises(UsageError, match=r"student.channels_last: mine cannot be run so \(view size.*leave it out"):
        ordered(network, options.model_copy(update={"channels_last": True}), (3, 16, 16), "cpu")
    assert network.maps[0].weight.is_contiguous()


def test_channels_last_can_be_refused_and_asked_for():
    for asked in (False, True):
        network = build("resnet8", 5, (1, 8, 8) if asked else CIFAR)
        ordered(network, StudentOptions(channels_last=asked), (1, 8, 8) if asked else CIFAR, "cpu")
        assert set(are_last(network)) == {asked}
