"""Generators and the encoder: shapes at any size, published sizes and initialisations."""

import copy

import pytest
import torch
from torch import nn
from torch.func import functional_call
from torch.nn import functional as F

from lra.memory.generator import Encoder
from lra.networks import generators
from lra.networks.composed import FusedGenerator, decoder_of_fusion
from lra.networks.conditional import ConditionalBatchNorm, ConditionalNormGenerator, LabelGenerator
from lra.networks.generators import (
    DoublingConvolution,
    StandardisedGenerator,
    UpsamplingGenerator,
    gen_l,
    gen_s,
    gen_zskt,
    memory_generator,
    reset_parameters_dcgan,
    reset_parameters_uniform,
    sized_for,
)

CIFAR = (3, 32, 32)
GREY = {"mean": [0.13], "std": [0.31]}
COLOUR = {"mean": [0.49, 0.48, 0.45], "std": [0.25, 0.24, 0.26]}
SIDES = [8, 9, 28, 30, 64]


def size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def scales(channels: int) -> dict[str, list[float]]:
    return GREY if channels == 1 else COLOUR


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


GENERATORS = {
    "standardised": lambda image: StandardisedGenerator(20, image, width=8, **scales(image[0])),
    "memory": lambda image: memory_generator(20, image, width=8, **scales(image[0])),
    "gen_s": lambda image: gen_s(20, image, width=8),
    "gen_l": lambda image: gen_l(20, image, width=8),
    "gen_zskt": lambda image: gen_zskt(20, image, width=8, **scales(image[0])),
    "fused": lambda image: FusedGenerator(gen_s(20, image, width=8), gen_s(20, image, width=8)),
}


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("name", GENERATORS)
def test_a_generator_makes_images_of_any_size(name, side, channels):
    generator = GENERATORS[name]((channels, side, side))
    latents = torch.randn(2, 20, requires_grad=True)
    images = generator(latents)
    assert images.shape == (2, channels, side, side)
    images.square().sum().backward()
    assert torch.isfinite(latents.grad).all()
    generator.eval()
    assert torch.equal(generator(latents), generator(latents))


@pytest.mark.parametrize("sides", [(8, 256), (28, 65), (65, 64), (96, 96), (129, 40), (224, 224), (256, 256)])
@pytest.mark.parametrize("name", GENERATORS)
def test_a_generator_of_large_images_grows_in_depth_and_not_in_its_first_layer(name, sides):
    generator, largest = GENERATORS[name]((3, *sides)), GENERATORS[name]((3, 64, 64))
    assert generator(torch.randn(2, 20)).shape == (2, 3, *sides)
    firsts, bounds = ([m for m in g.modules() if isinstance(m, nn.Linear)] for g in (generator, largest))
    for first, bound in zip(firsts, bounds, strict=True):
        assert first.weight.numel() <= bound.weight.numel()
    assert size(generator) <= 1.2 * size(largest)


@pytest.mark.parametrize("height", [*range(8, 257, 31), 64, 65, 128, 129, 224, 256])
def test_every_size_from_8_to_256_has_a_first_map_of_16_pixels_a_side_at_most(height):
    for width in (8, 17, 32, 64, 65, 100, 128, 129, 200, 256):
        generator = gen_s(4, (1, height, width), width=2).eval()
        assert max(generator.first_map[1:]) <= 16
        assert generator(torch.randn(1, 4)).shape == (1, 1, height, width)


@pytest.mark.parametrize("sides", [(8, 8), (28, 28), (32, 32), (64, 64), (40, 64)])
def test_a_generator_up_to_64_pixels_is_the_published_one_of_two_doublings(sides):
    """Their parameters are in files, and their seeds in results."""
    for make, channels in ((gen_s, (8, 8, 4)), (gen_l, (16, 8, 4))):
        torch.manual_seed(3)
        sized = make(6, (3, *sides), width=8).state_dict()
        torch.manual_seed(3)
        published = UpsamplingGenerator(6, (3, *sides), channels=channels).state_dict()
        assert list(sized) == list(published)
        assert all(torch.equal(sized[key], published[key]) for key in published)


@pytest.mark.parametrize(
    ("generator", "parameters"),
    [
        (lambda: StandardisedGenerator(1000, CIFAR, **COLOUR), 8_423_939),
        (lambda: memory_generator(1000, CIFAR, **COLOUR), 8_423_939),
        (lambda: Encoder(1000, CIFAR, **COLOUR), 4_321_872),
        (lambda: gen_s(256, CIFAR), 2_328_899),
        (lambda: gen_s(256, (3, 64, 64)), 8_644_931),
        (lambda: gen_l(256, CIFAR), 4_581_955),
        (lambda: decoder_of_fusion(3), 2_835),
    ],
)
def test_generator_sizes_are_the_published_ones(generator, parameters):
    assert size(generator()) == parameters


def test_a_standardised_batch_has_exactly_the_statistics_of_the_data():
    images = StandardisedGenerator(20, CIFAR, width=16, **COLOUR)(torch.randn(16, 20))
    torch.testing.assert_close(images.mean((0, 2, 3)), torch.tensor(COLOUR["mean"]), atol=1e-5, rtol=0)
    torch.testing.assert_close(images.std((0, 2, 3), correction=0), torch.tensor(COLOUR["std"]), atol=1e-3, rtol=0)


def test_sigmoid_images_lie_between_0_and_1():
    images = gen_s(20, CIFAR, width=16)(100 * torch.randn(4, 20))
    assert images.min() >= 0
    assert images.max() <= 1


def test_the_published_initialisation_and_epsilon():
    generator = StandardisedGenerator(20, CIFAR, width=16, **COLOUR)
    linear = generator.linear.weight
    original = generator.last.parametrizations.weight.original
    for weight in (linear, original):
        assert weight.abs().max() <= 0.08
        assert weight.std().item() == pytest.approx(0.16 / 12**0.5, rel=0.1)
    assert not generator.linear.bias.any()
    epsilons = [module.eps for module in generator.modules() if isinstance(module, nn.BatchNorm2d)]
    assert epsilons == [1e-5, 0.8, 0.8, 1e-5]


def test_spectral_norm_makes_every_convolution_of_norm_one():
    generator = StandardisedGenerator(20, CIFAR, width=16, **COLOUR)
    for _ in range(30):
        generator(torch.randn(2, 20))
    generator.eval()
    convolutions = [module for module in generator.modules() if isinstance(module, nn.Conv2d)]
    assert len(convolutions) == 3
    for convolution in convolutions:
        assert torch.linalg.matrix_norm(convolution.weight.flatten(1), 2).item() == pytest.approx(1, abs=0.02)


def test_a_generator_can_be_copied_and_its_state_restored():
    generator = StandardisedGenerator(20, CIFAR, width=16, **COLOUR)
    generator(torch.randn(8, 20))
    other = StandardisedGenerator(20, CIFAR, width=16, **COLOUR)
    other.load_state_dict(generator.state_dict())
    latents = torch.randn(2, 20)
    expected = generator.eval()(latents)
    assert torch.equal(other.eval()(latents), expected)
    assert torch.equal(copy.deepcopy(generator)(latents), expected)


@pytest.mark.parametrize(
    "make",
    [
        lambda: UpsamplingGenerator(0, CIFAR),
        lambda: UpsamplingGenerator(8, CIFAR, head="relu"),
        lambda: UpsamplingGenerator(8, CIFAR, head="standardised"),
        lambda: StandardisedGenerator(8, CIFAR, **GREY),
        lambda: Encoder(8, CIFAR, normalise="width", **COLOUR),
        lambda: Encoder(8, (3, 4, 4), **COLOUR),
        lambda: LabelGenerator(3, CIFAR, 8, embedding=torch.eye(4)),
        lambda: FusedGenerator(*[gen_s(8, CIFAR, width=8)] * 2),
    ],
)
def test_a_generator_that_cannot_be_is_refused(make):
    with pytest.raises(ValueError, match=r"\w"):
        make()


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        ((3, 32, 32), (128, 1000)),
        ((1, 32, 32), (32, 256)),
        ((1, 8, 8), (16, 128)),
        ((3, 224, 224), (128, 1000)),
    ],
)
def test_the_generator_follows_the_size_of_the_data(image, expected):
    assert sized_for(image) == expected


def test_dcgan_initialisation_reaches_spectrally_normalised_weights():
    generator = StandardisedGenerator(64, CIFAR, width=64, **COLOUR)
    generator(torch.randn(4, 64))
    running = generator.norm.running_mean.clone()
    reset_parameters_dcgan(generator)
    for weight in (generator.linear.weight, generator.blocks[0][1].parametrizations.weight.original):
        assert weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert generator.norm.weight.mean().item() == pytest.approx(1, abs=0.02)
    assert generator.norm.weight.std() > 0
    assert torch.equal(generator.norm.running_mean, running)
    reset_parameters_uniform(generator)
    assert torch.equal(generator.norm.weight, torch.ones_like(generator.norm.weight))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("side", [*SIDES, 9, 30])
def test_the_encoder_takes_images_of_any_size(side, channels):
    encoder = Encoder(12, (channels, side, side + 1), width=16, **scales(channels))
    z, mu, logvar = encoder(torch.rand(3, channels, side, side + 1))
    assert z.shape == mu.shape == logvar.shape == (3, 12)


@pytest.mark.parametrize("sides", [(65, 20), (96, 96), (20, 129), (224, 224), (256, 256)])
def test_the_encoder_of_large_images_has_heads_no_larger_than_at_64_pixels(sides):
    encoder, largest = (Encoder(12, (3, *s), width=8, **COLOUR) for s in (sides, (64, 64)))
    assert encoder(torch.rand(2, 3, *sides)).z.shape == (2, 12)
    assert encoder.mu.weight.numel() <= largest.mu.weight.numel()


def test_the_encoder_draws_with_the_stated_moments():
    encoder = Encoder(12, (1, 8, 8), width=16, **GREY).eval()
    images = torch.rand(1, 1, 8, 8).expand(4000, -1, -1, -1)
    z, mu, logvar = encoder(images)
    torch.testing.assert_close((z - mu).mean(0) / (logvar[0] / 2).exp(), torch.zeros(12), atol=0.1, rtol=0)
    torch.testing.assert_close(z.std(0), (logvar[0] / 2).exp(), rtol=0.1, atol=0)


def test_the_divergence_is_that_of_two_normals():
    encoding = Encoder(12, (1, 8, 8), width=16, **GREY)(torch.rand(5, 1, 8, 8))
    posterior = torch.distributions.Normal(encoding.mu, (encoding.logvar / 2).exp())
    exact = torch.distributions.kl_divergence(posterior, torch.distributions.Normal(0, 1)).sum(1).mean()
    torch.testing.assert_close(encoding.divergence(), exact)


def test_the_encoder_normalises_along_the_axis_it_is_told():
    images = torch.rand(4, 3, 8, 8)
    encoders = {}
    for axis in ("height", "channel", "none"):
        torch.manual_seed(1)
        encoders[axis] = Encoder(6, (3, 8, 8), width=16, normalise=axis, **COLOUR).eval()
    seen = []
    handle = encoders["height"].maps.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    means = [encoder(images).mu for encoder in encoders.values()]
    handle.remove()
    torch.testing.assert_close(seen[0].norm(dim=2), torch.ones(4, 3, 8))
    assert not torch.allclose(means[0], means[1])
    assert not torch.allclose(means[0], means[2])


def test_a_label_generator_varies_with_its_noise_and_not_with_the_call():
    generator = LabelGenerator(4, (1, 8, 8), batch=10, latent=16, width=8).eval()
    labels = torch.arange(10) % 4
    images = generator(labels)
    assert images.shape == (10, 1, 8, 8)
    assert torch.equal(images, generator(labels))
    assert not torch.allclose(images[0], images[4])
    generator.reset_noise()
    assert not torch.allclose(images, generator(labels))
    with pytest.raises(ValueError, match="at most 12 labels"):
        generator(torch.zeros(13, dtype=torch.long))


def always(layer: DoublingConvolution, maps: torch.Tensor) -> torch.Tensor:
    """The layer as one transposed convolution, whatever the size."""
    return F.conv_transpose2d(maps, generators.spread(layer.weight), layer.bias, stride=2, padding=1)


def as_published(layer: DoublingConvolution, maps: torch.Tensor) -> torch.Tensor:
    """The layer as the two operations of its definition."""
    return F.conv2d(nn.Upsample(scale_factor=2)(maps), layer.weight, layer.bias, padding=1)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("sides", [(1, 1), (1, 4), (2, 2), (3, 5), (7, 8), (16, 9)])
def test_upsampling_and_convolution_are_one_transposed_convolution(sides, last, bias):
    layer = DoublingConvolution(3, 4, bias).double()
    maps = torch.randn(2, 3, *sides, dtype=torch.double)
    if last:
        maps = maps.contiguous(memory_format=torch.channels_last)
    maps.requires_grad_()
    weight_of = torch.randn(2, 4, 2 * sides[0], 2 * sides[1], dtype=torch.double)
    inputs = [maps, *layer.parameters()]
    found, expected = always(layer, maps), as_published(layer, maps)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    ours, theirs = (torch.autograd.grad((y * weight_of).sum(), inputs) for y in (found, expected))
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_the_folded_convolution_is_differentiated_twice_as_the_plain_one():
    layer = DoublingConvolution(3, 4, bias=True).double()
    maps = torch.randn(2, 3, 3, 4, dtype=torch.double, requires_grad=True)
    inputs = [maps, *layer.parameters()]
    seconds = []
    for form in (always, as_published):
        first = torch.autograd.grad(form(layer, maps).pow(3).sum(), inputs, create_graph=True)
        seconds.append(torch.autograd.grad(sum(g.square().sum() for g in first), inputs))
    for a, b in zip(*seconds, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("side", [8, 9, 28, 30, 64, 65, 130])
@pytest.mark.parametrize("name", GENERATORS)
def test_a_folded_generator_gives_images_and_gradients_of_the_plain_one(name, side, monkeypatch):
    """Each stage folded, spectral norm and statistics included."""
    channels, latents = 3 if side < 64 else 1, torch.randn(3, 20, dtype=torch.double, requires_grad=True)
    folded = GENERATORS[name]((channels, side, side)).double()
    plain = copy.deepcopy(folded)
    found = []
    for generator, choice in ((folded, True), (plain, False)):
        monkeypatch.setattr(generators, "folds", lambda *_, choice=choice: choice)
        images = generator(latents)
        inputs = [latents, *generator.parameters()]
        found.append([images, *torch.autograd.grad(images.square().sum(), inputs), *generator.buffers()])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("spectral_norm", [False, True])
def test_the_folded_generator_runs_on_given_parameters_and_has_the_published_names(spectral_norm, monkeypatch):
    monkeypatch.setattr(generators, "folds", lambda *_: True)
    options = {"mean": COLOUR["mean"], "std": COLOUR["std"], "spectral_norm": spectral_norm}
    generator = StandardisedGenerator(20, (3, 16, 16), width=8, **options)
    weight = "blocks.0.1.parametrizations.weight.original" if spectral_norm else "blocks.0.1.weight"
    state = generator.state_dict()
    assert state[weight].shape == (8, 8, 3, 3)
    assert {"blocks.0.1.bias", "blocks.0.2.running_mean", "blocks.1.2.weight", "last.bias"} < set(state)
    other = StandardisedGenerator(20, (3, 16, 16), width=8, **options)
    latents = torch.randn(4, 20)
    other.eval(), generator.eval()
    made = functional_call(generator, other.state_dict(), (latents,))
    torch.testing.assert_close(made, other(latents))
    assert not torch.equal(made, generator(latents))


def test_a_layer_folds_where_its_maps_are_large_and_gives_the_same_either_way():
    layer = DoublingConvolution(32, 32, bias=False)
    small, large = torch.randn(2, 32, 4, 4), torch.randn(128, 32, 4, 4)
    drawn = [generators.folds(maps, channels) for maps, channels in ((small, 32), (large, 32), (large, 64))]
    assert drawn == [False, False, True]
    small.requires_grad_(), large.requires_grad_()
    assert [generators.folds(maps, 32) for maps in (small, large)] == [False, True]
    assert not generators.folds(torch.randn(128, 8, 4, 4, requires_grad=True), 8)
    for maps in (small, large):
        torch.testing.assert_close(layer(maps), as_published(layer, maps), rtol=1e-4, atol=1e-5)


def test_images_leave_a_generator_in_plain_order():
    """Whoever gets them may view them as vectors."""
    for make in GENERATORS.values():
        assert make((3, 32, 32))(torch.randn(2, 20)).is_contiguous()


@pytest.mark.parametrize("image", [(1, 8, 8), (3, 30, 27), (3, 96, 96)])
def test_a_generator_told_the_class_by_its_norms_makes_standardised_images(image):
    generator = ConditionalNormGenerator(12, image, 4, width=8, **scales(image[0]))
    latents = generator.latents(torch.randn(32, 12), torch.arange(32) % 4)
    assert latents.shape == (32, generator.latent)
    images = generator(latents)
    assert images.shape == (32, *image)
    assert torch.allclose(images.mean((0, 2, 3)), torch.tensor(scales(image[0])["mean"]), atol=1e-3)


def test_equal_embeddings_are_plain_batchnorm_and_others_the_class_alone():
    told, plain = ConditionalBatchNorm(3, 4, 1e-3), nn.BatchNorm2d(3, eps=1e-3)
    with torch.no_grad():
        plain.weight.copy_(torch.tensor([0.5, 1.0, 2.0]))
        plain.bias.copy_(torch.tensor([-1.0, 0.0, 1.0]))
        told.scale.copy_(plain.weight.expand(4, 3))
        told.shift.copy_(plain.bias.expand(4, 3))
    maps, labels = torch.randn(8, 3, 5, 5), torch.arange(8) % 4
    given = F.one_hot(labels, 4).float()
    torch.testing.assert_close(told(maps, given), plain(maps))
    before = told(maps, given)
    with torch.no_grad():
        told.scale[2] *= 3
    changed = (told(maps, given) != before).flatten(1).any(dim=1)
    assert torch.equal(changed, labels == 2)
