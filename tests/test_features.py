"""What hooks see of a network, and that they go away."""

import pytest
import torch
import torchvision
from torch import nn

from lra.anatomy import HeadNotFound, batchnorm_layers, classifier, penultimate, stages
from lra.features import BatchNormStatistics, FeatureTap, Tap, moments
from lra.networks import build

IMAGE = (3, 16, 16)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def hooks(model: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


def named(model: nn.Module, modules: list[nn.Module]) -> list[str]:
    names = {id(module): name for name, module in model.named_modules()}
    return [names[id(module)] for module in modules]


@pytest.mark.parametrize(
    ("name", "width"), [("lenet5", 84), ("resnet20", 64), ("wrn16-2", 128), ("vgg11", 512), ("mlp", 32)]
)
def test_the_classifier_applied_to_the_features_gives_the_logits(name, width):
    model = build(name, 7, IMAGE).eval()
    with FeatureTap(model, IMAGE) as tap:
        logits = model(torch.rand(2, *IMAGE))
    assert tap.features.shape == (2, width)
    torch.testing.assert_close(classifier(model, IMAGE)(tap.features), logits)


def test_a_network_with_a_convolution_as_classifier_has_features_too():
    model = torchvision.models.squeezenet1_1(num_classes=7).eval()
    with FeatureTap(model, (3, 64, 64)) as tap:
        model(torch.rand(2, 3, 64, 64))
    assert tap.features.shape == (2, 512)


def test_a_network_without_classifier_is_refused_by_name():
    with pytest.raises(HeadNotFound, match=r"Sequential cannot be found: it gives \(2, 8, 14, 14\).*teacher.features"):
        penultimate(nn.Sequential(nn.Conv2d(3, 8, 3)), IMAGE)


def test_a_tap_keeps_the_graph_and_leaves_no_hook():
    model = build("resnet8", 7, IMAGE).requires_grad_(False).eval()
    images = torch.rand(2, *IMAGE, requires_grad=True)
    with Tap(model, [model.layer1, model.layer3], "output") as tap:
        assert hooks(model) == 2
        model(images)
    assert hooks(model) == 0
    assert [value.shape[1] for value in tap.values] == [16, 64]
    tap.values[1].square().sum().backward()
    assert images.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_tap_closes_when_the_block_fails():
    model = build("mlp", 7, IMAGE)
    with pytest.raises(RuntimeError), Tap(model, [model[1]]):
        model(torch.rand(2, 5))
    assert hooks(model) == 0


def test_a_tap_can_be_opened_again_but_not_twice_at_once():
    model = build("mlp", 7, IMAGE)
    tap = Tap(model, [model[1]])
    for n in (1, 3):
        with tap:
            model(torch.rand(n, *IMAGE))
            model(torch.rand(n + 1, *IMAGE))
        assert tap.values[0].shape[0] == n + 1
    with tap, pytest.raises(RuntimeError, match="already open"):
        tap.__enter__()
    with pytest.raises(RuntimeError, match="no forward went through '1'"):
        _ = tap.values


def test_a_tap_refuses_strangers_and_what_is_no_tensor():
    model = build("mlp", 7, IMAGE)
    with pytest.raises(ValueError, match="not a module of"):
        Tap(model, [nn.Linear(2, 2)])
    with pytest.raises(ValueError, match="'input' or the 'output'"):
        Tap(model, [model[1]], "both")
    pair = nn.LSTM(3, 3)
    with pytest.raises(TypeError, match=r"is not a tensor but .*tuple"), Tap(pair, [pair], "output"):
        pair(torch.rand(2, 3))


@pytest.mark.parametrize(
    ("name", "count", "channels"), [("resnet20", 19, 688), ("wrn16-1", 13, 464), ("vgg11", 8, 2752)]
)
def test_every_batchnorm_layer_is_found(name, count, channels):
    layers = batchnorm_layers(build(name, 10, IMAGE), IMAGE)
    assert len(layers) == count
    assert sum(layer.num_features for layer in layers) == channels


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_batchnorm_statistics_equal_those_computed_by_hand(dtype, training):
    first, second = nn.Conv2d(3, 5, 3), nn.Conv2d(5, 4, 3)
    model = nn.Sequential(first, nn.BatchNorm2d(5), nn.ReLU(), second, nn.BatchNorm2d(4)).to(dtype)
    model[1].running_mean.normal_()
    model.train(training)
    x = torch.randn(6, 3, 9, 9, dtype=dtype)
    running = model[1].running_mean.clone()
    expected = first(x)
    with BatchNormStatistics(model, IMAGE) as statistics:
        model(x)
    mean, variance, running_mean, running_variance = statistics.layers[0]
    values = expected.transpose(0, 1).flatten(1)
    torch.testing.assert_close(mean, values.sum(1) / values.shape[1])
    torch.testing.assert_close(variance, (values - mean[:, None]).square().sum(1) / values.shape[1])
    assert mean.dtype == dtype
    assert len(statistics.layers) == 2
    assert running_mean is model[1].running_mean
    assert running_variance is model[1].running_var
    assert torch.equal(running_mean, running) is not training
    assert hooks(model) == 0


def test_the_statistics_of_a_layer_fed_its_own_running_ones_agree():
    model = nn.Sequential(nn.BatchNorm2d(3, momentum=1.0))
    x = torch.randn(50, 3, 4, 4)
    model(x)
    model.eval()
    with BatchNormStatistics(model, IMAGE) as statistics:
        model(x)
    mean, variance, running_mean, running_variance = statistics.layers[0]
    torch.testing.assert_close(mean, running_mean)
    torch.testing.assert_close(variance * 800 / 799, running_variance)


def test_their_gradient_reaches_the_images_through_a_frozen_teacher():
    model = build("wrn10-1", 10, IMAGE).requires_grad_(False).eval()
    images = torch.rand(2, *IMAGE, requires_grad=True)
    with BatchNormStatistics(model, IMAGE) as statistics:
        model(images)
    sum((layer.mean - layer.running_mean).norm() for layer in statistics.layers).backward()
    assert images.grad.abs().sum() > 0


def test_batchnorm_over_vectors_counts_too():
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    with BatchNormStatistics(model, (3,)) as statistics:
        model(torch.rand(6, 3))
    assert statistics.layers[0].mean.shape == (4,)


def test_a_teacher_without_batchnorm_is_refused_in_one_line():
    with pytest.raises(ValueError, match=r"^needs a teacher with BatchNorm; .*$"):
        BatchNormStatistics(build("lenet5", 10, IMAGE), IMAGE)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("resnet18", {"layer1": (64, 16), "layer2": (128, 8), "layer3": (256, 4), "layer4": (512, 2)}),
        ("wrn16-2", {"layer1": (32, 16), "layer2": (64, 8), "layer3": (128, 4)}),
        ("resnet20", {"layer1": (16, 16), "layer2": (32, 8), "layer3": (64, 4)}),
        (
            "vgg11",
            {
                "features.2": (64, 16),
                "features.6": (128, 8),
                "features.13": (256, 4),
                "features.20": (512, 2),
            },
        ),
        ("lenet5", {"bn1": (6, 16), "bn2": (16, 4)}),
    ],
)
def test_stages_are_the_last_maps_of_each_resolution(name, expected):
    model = build(name, 10, IMAGE)
    found = stages(model, IMAGE)
    assert named(model, found) == list(expected)
    assert model.training
    assert hooks(model) == 0
    with Tap(model, found, "output") as tap:
        model(torch.rand(2, *IMAGE))
    assert [(value.shape[1], value.shape[2]) for value in tap.values] == list(expected.values())


def test_stages_of_a_wrapped_and_of_a_branching_network():
    inner = build("resnet8", 10, IMAGE)
    assert stages(nn.Sequential(inner), IMAGE) == [inner.layer1, inner.layer2, inner.layer3]
    branching = torchvision.models.shufflenet_v2_x0_5()
    expected = ["conv1", "maxpool", "stage2", "stage3", "conv5"]
    assert named(branching, stages(branching, (3, 96, 96))) == expected


def test_finding_stages_changes_nothing():
    model = build("resnet8", 10, IMAGE)
    before = [value.clone() for value in model.state_dict().values()]
    stages(model, IMAGE)
    assert all(torch.equal(a, b) for a, b in zip(before, model.state_dict().values(), strict=True))


def test_a_perceptron_has_no_stages():
    with pytest.raises(ValueError, match="makes no feature maps"):
        stages(build("mlp", 10, IMAGE), IMAGE)


@pytest.mark.parametrize("shape", [(3, 2, 4, 5), (4, 3), (2, 3, 5), (1, 2, 1, 1)])
@pytest.mark.parametrize("last", [False, True])
def test_moments_and_their_two_derivatives_are_those_of_the_definition(shape, last):
    torch.manual_seed(0)
    values = 3 + torch.randn(shape, dtype=torch.double)
    if last and len(shape) == 4:
        values = values.contiguous(memory_format=torch.channels_last)
    axes = [0, *range(2, len(shape))]
    variance, mean = torch.var_mean(values, axes, correction=0)
    torch.testing.assert_close(moments(values), (mean, variance))
    values.requires_grad_()
    assert torch.autograd.gradcheck(moments, (values,))
    assert torch.autograd.gradgradcheck(moments, (values,))
