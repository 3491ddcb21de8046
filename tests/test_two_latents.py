"""DLIG: its generator of two latents, the spread of a batch, the adversary where the teacher says what was asked."""

import math

import pytest
import torch
from short_runs import experiment
from torch import Tensor, nn

from lra.benchmarks.errors import UsageError
from lra.distances import l1
from lra.networks.composed import TwoLatentGenerator
from lra.problem import Teacher
from lra.synthesis.sources import RenewedSource
from lra.synthesis.terms import Adversarial, BNStat, OneHot, Spread, total
from lra.synthesis.terms.priors import spread
from lra.view import View


def small(latent: int = 12, image: tuple[int, int, int] = (1, 8, 8)) -> TwoLatentGenerator:
    torch.manual_seed(0)
    return TwoLatentGenerator(latent, image, width=16)


def test_it_has_the_published_size_but_for_a_projection_that_nothing_uses() -> None:
    generator = TwoLatentGenerator(512, (3, 32, 32))
    assert sum(p.numel() for p in generator.parameters()) == 2_701_827 - 64 * 65
    assert generator.attention.num_heads == 4


@pytest.mark.parametrize("image", [(1, 8, 8), (3, 9, 7), (3, 32, 32), (1, 100, 70)])
def test_images_of_any_size_lie_between_0_and_1(image: tuple[int, int, int]) -> None:
    generator = small(image=image)
    latents = torch.randn(3, 12)
    images, fused = generator(latents), generator.fused(latents)
    assert images.shape == (3, *image)
    assert fused.shape == (3, 8, *image[1:])
    assert 0 <= images.min() < images.max() <= 1


def test_every_part_gets_a_gradient() -> None:
    generator = small()
    latents = torch.randn(4, 12, requires_grad=True)
    generator(latents).square().sum().backward()
    assert latents.grad is not None
    assert (latents.grad != 0).any(dim=0).all(), "of content and of style"
    # A bias before a BatchNorm, and that of all keys, make no difference.
    assert all(p.grad is not None for p in generator.parameters())


def test_without_attention_an_image_does_not_depend_on_its_style() -> None:
    generator = small().eval()
    latents = torch.randn(4, 12)
    restyled = torch.cat([latents[:, :6], torch.randn(4, 6)], dim=1)
    assert not torch.allclose(generator(latents), generator(restyled))
    for parameter in generator.attention.out_proj.parameters():
        nn.init.zeros_(parameter)
    torch.testing.assert_close(generator(latents), generator(restyled))
    assert not torch.allclose(generator(latents), generator(torch.randn(4, 12)))


def test_other_places_in_the_batch_are_other_places_of_the_images() -> None:
    generator, latents, order = small().eval(), torch.randn(5, 12), torch.tensor([3, 1, 4, 0, 2])
    torch.testing.assert_close(generator(latents[order]), generator(latents)[order], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"latent": 7}, "7 does not split"),
        ({"latent": 0}, "positive"),
        ({"latent": 8, "width": 12, "heads": 4}, "4 heads do not divide 6 channels"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(settings: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TwoLatentGenerator(image=(1, 8, 8), **settings)


def test_fewer_heads_share_the_channels_of_a_narrow_generator() -> None:
    assert [TwoLatentGenerator(8, (1, 8, 8), width=w).attention.num_heads for w in (4, 8, 12, 2)] == [2, 4, 2, 1]


def test_the_spread_is_that_of_unit_rows() -> None:
    features = torch.randn(9, 5, dtype=torch.float64)
    rows = features / features.square().sum(dim=1, keepdim=True).sqrt()
    wanted = ((rows - rows.mean(dim=0)).square().sum(dim=0) / 8).sqrt().mean()
    torch.testing.assert_close(spread(features), wanted)
    scaled = features * torch.linspace(0.1, 7, 9, dtype=torch.float64)[:, None]
    torch.testing.assert_close(spread(scaled), wanted)
    assert spread(features) <= math.sqrt(9 / 8 / 5)


def test_a_batch_of_one_kind_has_no_spread_and_a_finite_gradient() -> None:
    features = torch.ones(4, 1, dtype=torch.float64) @ torch.randn(1, 3, dtype=torch.float64)
    features.requires_grad_()
    found = spread(features)
    assert found < 1e-12
    assert torch.autograd.grad(found, features)[0].isfinite().all()


def test_the_spread_reaches_its_bound_where_rows_are_opposite() -> None:
    row = torch.tensor([[1.0, -1.0, 1.0, 1.0]])
    torch.testing.assert_close(spread(torch.cat([row, -row])), torch.tensor(math.sqrt(2 / 4)))


def test_the_term_is_minus_the_spread_of_the_last_map() -> None:
    maps = torch.randn(6, 3, 2, 2)
    view = View(torch.zeros(6, 1, 2, 2), None, generator_maps=[torch.zeros(6, 1, 1, 1), maps])
    torch.testing.assert_close(Spread(1.0)(view), -spread(maps.mean(dim=(2, 3))))
    with pytest.raises(ValueError, match="shows the map"):
        Spread(1.0)(View(torch.zeros(6, 1, 2, 2), None))
    with pytest.raises(ValueError, match="1 image is not defined"):
        Spread(1.0)(View(torch.zeros(1, 1, 2, 2), None, generator_maps=[maps[:1]]))


class Double(nn.Module):
    """Twice what it is given, as logits."""

    def forward(self, images: Tensor) -> Tensor:
        return 2 * images.flatten(1)


def test_the_adversary_counts_where_the_teacher_says_what_was_asked() -> None:
    logits = torch.eye(3)[[0, 1, 2, 0]] * torch.tensor([[1.0], [2.0], [3.0], [4.0]])
    view = View(logits[:, None, None], Teacher(nn.Flatten()), Double(), torch.tensor([0, 2, 2, 1]))
    distances = logits.sum(dim=1) / 3
    torch.testing.assert_close(Adversarial(1.0, l1, mask="asked")(view), -(distances[0] + distances[2]) / 4)
    torch.testing.assert_close(Adversarial(1.0, l1, mask="asked", over="masked")(view), -distances[[0, 2]].mean())
    soft = View(logits[:, None, None], Teacher(nn.Flatten()), Double(), torch.eye(3)[[0, 2, 2, 1]])
    torch.testing.assert_close(Adversarial(1.0, l1, mask="asked")(soft), -(distances[0] + distances[2]) / 4)
    unasked = View(logits[:, None, None], Teacher(nn.Flatten()), Double())
    torch.testing.assert_close(Adversarial(1.0, l1, mask="asked")(unasked), -distances.mean())


def test_a_generator_lives_so_many_batches() -> None:
    source = RenewedSource(small, 0.01, life=2)
    born = {name: value.clone() for name, value in source.generator.state_dict().items()}
    renewed = []
    for _ in range(5):
        source.begin(torch.zeros(4).long())
        renewed.append(all(torch.equal(value, born[name]) for name, value in source.generator.state_dict().items()))
        source.update(source.images().square().sum())
        source.end()
    assert renewed == [True, False, True, False, True]
    images, (fused,) = source.made()
    torch.testing.assert_close(images, source.generator.decoded(fused))


def test_without_spread_and_adversary_its_loss_is_that_of_nayers_warm_up() -> None:
    ours = experiment("dlig", "synthesis={spread: 0, adversarial: 0}").stream.synthesizer
    nayers = experiment("nayer").stream.synthesizer
    images, labels = torch.rand(6, 1, 16, 16), torch.arange(6)
    losses = [
        total(
            [term for term in source.terms if not term.competitive],
            View(images, source.teacher, labels=labels, generator_maps=[torch.randn(6, 3, 2, 2)]),
        )[0]
        for source in (ours, nayers)
    ]
    torch.testing.assert_close(*losses)
    view = View(images, ours.teacher, labels=labels)
    expected, _ = total([BNStat(10.0, 0.9), OneHot(0.5)], view)
    torch.testing.assert_close(losses[0], expected)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("synthesis.images=1", r"synthesis\.images = 1"),
        ("synthesis.latent=9", "9 does not split"),
        ("synthesis={width: 12, heads: 5}", "5 heads"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(setting: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as refusal:
        experiment("dlig", setting)
    assert "\n" not in str(refusal.value)
