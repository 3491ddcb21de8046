"""Augmentation: what moves, what stays, and that gradients come through."""

import pytest
import torch

from lra.options import AugmentationOptions
from lra.synthesis.augmentation import (
    cutmix,
    flipped,
    fmixed,
    jittered,
    mixing,
    relit,
    rolled,
    shifted,
    views,
    wobbled,
    zoomed,
)

SHAPES = [(6, 1, 8, 8), (5, 3, 9, 13)]


@pytest.mark.parametrize("shape", SHAPES)
def test_shifted_images_are_the_image_moved_with_black(shape):
    images = torch.rand(shape) + 0.1
    moved = shifted(images, 2)
    assert moved.shape == images.shape
    for before, after in zip(images, moved, strict=True):
        found = False
        for dy in range(-2, 3):
            for dx in range(-2, 3):
                expected = torch.zeros_like(before)
                h, w = before.shape[1:]
                ys, xs = slice(max(0, dy), h + min(0, dy)), slice(max(0, dx), w + min(0, dx))
                sy, sx = slice(max(0, -dy), h + min(0, -dy)), slice(max(0, -dx), w + min(0, -dx))
                expected[:, ys, xs] = before[:, sy, sx]
                found |= torch.equal(expected, after)
        assert found


def test_shifts_take_every_offset_and_bytes():
    images = torch.zeros(400, 1, 5, 5, dtype=torch.uint8)
    images[:, 0, 2, 2] = 7
    moved = shifted(images, 1)
    assert moved.dtype == torch.uint8
    places = moved.flatten(1).argmax(dim=1).unique()
    assert len(places) == 9


@pytest.mark.parametrize("shape", SHAPES)
def test_augmentations_are_differentiable_and_keep_the_shape(shape):
    options = AugmentationOptions(shift=2)
    for augment in (options.crop_and_flip(), options.jitter(), options.local_view()):
        images = torch.rand(shape, requires_grad=True)
        out = augment(images)
        assert out.shape == images.shape
        out.sum().backward()
        assert images.grad.abs().sum() > 0


def test_flips_mirror_about_half():
    torch.manual_seed(0)
    images = torch.arange(4.0).expand(1000, 1, 1, 4)
    turned = flipped(images)[:, 0, 0, 0]
    assert set(turned.tolist()) == {0.0, 3.0}
    assert 400 < (turned == 3).sum() < 600


def test_without_flip_and_shift_nothing_changes():
    images = torch.rand(4, 1, 6, 6)
    options = AugmentationOptions(shift=0, flip=False)
    assert torch.equal(options.crop_and_flip()(images), images)
    assert torch.equal(options.jitter()(images), images)


def test_roll_moves_the_batch_as_one():
    image = torch.rand(1, 1, 7, 7)
    moved = rolled(image.expand(5, 1, 7, 7), 3)
    assert all(torch.equal(moved[0], each) for each in moved)
    assert torch.equal(moved[0].flatten().sort().values, image[0].flatten().sort().values)


def test_zoom_of_everything_is_the_image():
    torch.manual_seed(0)
    flat = torch.full((3, 2, 6, 5), 0.4)
    assert torch.allclose(zoomed(flat), flat)
    images = torch.rand(200, 1, 8, 8)
    assert zoomed(images).min() >= images.min()
    assert zoomed(images).max() <= images.max() + 1e-6


@pytest.mark.parametrize("shape", SHAPES)
def test_a_wobble_moves_each_image_by_itself_and_invents_no_value(shape):
    torch.manual_seed(0)
    images = torch.rand(shape)
    assert torch.allclose(wobbled(images, 0.0), images, atol=1e-5)
    same = images[:1].expand(shape)
    moved = wobbled(same)
    assert moved.shape == images.shape
    assert len(moved.flatten(1).unique(dim=0)) == len(same)
    assert moved.min() >= same.min() - 1e-6
    assert moved.max() <= same.max() + 1e-6


def test_a_wobble_reaches_as_far_as_it_says():
    """Where images of their own coordinates take their pixels from: an affine map, within its bounds."""
    torch.manual_seed(0)
    side = 33  # the middle pixels are far enough from the border
    line = torch.linspace(-1 + 1 / side, 1 - 1 / side, side, dtype=torch.float64)
    images = torch.stack([line.expand(side, side), line[:, None].expand(side, side)])[None].repeat(500, 1, 1, 1)
    moved = wobbled(images)
    middle = side // 2
    right, down = moved[:, :, middle, middle].T
    assert 0.115 < right.abs().max() <= 0.125  # a 16th of a side that is 2 long
    assert 0.115 < down.abs().max() <= 0.125
    step = 2 / side
    across = (moved[:, :, middle, middle + 1] - moved[:, :, middle, middle]) / step  # what a step to the right takes
    size, angle = across.norm(dim=1), torch.atan2(across[:, 1], across[:, 0]).rad2deg()
    assert 0.9 - 1e-9 <= size.min() < 0.91
    assert 1.09 < size.max() <= 1.1 + 1e-9
    assert 9.5 < angle.abs().max() <= 10 + 1e-9
    along = (moved[:, :, middle + 1, middle] - moved[:, :, middle, middle]) / step
    slant = (along[:, 0] + across[:, 1]).atan().rad2deg()
    assert 4.7 < slant.abs().max() <= 5 + 1e-9


def test_two_views_differ():
    images = torch.rand(8, 1, 16, 16)
    pair = views(images, AugmentationOptions().crop_and_flip(), 2)
    assert pair.shape == (16, 1, 16, 16)
    assert not torch.equal(pair[:8], pair[8:])


@pytest.mark.parametrize(("side", "alpha"), [(8, 1.0), (7, 0.2), (1, 1.0)])
def test_fmix_takes_the_same_places_of_one_partner_each(side, alpha):
    torch.manual_seed(0)
    own = torch.arange(6.0)[:, None, None, None]
    shares = []
    for _ in range(200):
        mixed = fmixed(own.expand(6, 2, side, side + 1), alpha)
        foreign = mixed != own
        partners = [set(image[theirs].tolist()) for image, theirs in zip(mixed, foreign, strict=True)]
        assert all(len(partner) <= 1 for partner in partners)
        moved = foreign.flatten(1).any(dim=1)
        assert all(torch.equal(places, foreign[moved][0]) for places in foreign[moved])
        shares.append(foreign[moved].float().mean().item() if moved.any() else 0.0)
    assert abs(sum(shares) / len(shares) - 0.5) < 0.1


def test_a_seed_decides():
    images = torch.rand(4, 3, 8, 8)
    augment = AugmentationOptions(shift=2).local_view()
    torch.manual_seed(5)
    first = augment(images)
    torch.manual_seed(5)
    assert torch.equal(first, augment(images))


@pytest.mark.parametrize("shape", SHAPES)
def test_a_share_of_a_mixture_is_what_was_pasted(shape):
    images = torch.rand(shape)
    mixed, partner, share = cutmix(images)
    own, other = (mixed == images).all(dim=1), (mixed == images[partner]).all(dim=1)
    assert (own | other).all()
    moved = partner != torch.arange(len(images))
    assert torch.allclose((~own).flatten(1).double().mean(dim=1)[moved], share[moved].double())
    for place in (~own)[moved]:
        rows, columns = place.any(dim=1).nonzero(), place.any(dim=0).nonzero()
        assert place.sum() == len(rows) * len(columns), "one rectangle"


def test_labels_are_mixed_as_images_are():
    images, labels = torch.rand(40, 1, 6, 6), torch.arange(40) % 4
    seen, wanted = mixing(1.0, 4)(images, labels)
    assert wanted.shape == (40, 4)
    assert torch.allclose(wanted.sum(dim=1), torch.ones(40))
    own = (seen == images).flatten(1).all(dim=1)
    assert torch.equal(wanted[own].argmax(dim=1), labels[own])
    before = torch.get_rng_state()
    assert mixing(0.0, 4)(images, labels) == (images, labels)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("shape", SHAPES)
def test_colours_change_within_bounds_and_grey_stays_grey(shape):
    images = torch.rand(shape)
    assert torch.allclose(jittered(images, 0.0, 1.0), images, atol=1e-5)
    assert torch.equal(jittered(images, 0.3, 0.0), images)
    shaken = jittered(images, 0.3, 1.0)
    assert not torch.allclose(shaken, images, atol=1e-2)
    assert 0 <= shaken.min() <= shaken.max() <= 1
    grey = images[:, :1].expand(-1, shape[1], -1, -1)
    found = jittered(grey, 0.3, 1.0)
    assert torch.allclose(found, found[:, :1].expand_as(found), atol=2e-3)


def test_another_light_is_a_factor_and_a_contrast() -> None:
    images = 0.4 + 0.2 * torch.rand(20, 3, 6, 6)
    brighter = relit(images, 0.25, 0.0) / images
    factors = brighter.flatten(1)
    assert torch.allclose(factors, factors[:, :1].expand_as(factors), atol=1e-5)
    assert 0.75 <= factors.min() < 0.9 < 1.1 < factors.max() <= 1.25
    grey = (images * torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)).sum(dim=1).mean(dim=(1, 2)).view(-1, 1, 1, 1)
    spread = ((relit(images, 0.0, 0.8) - grey) / (images - grey)).flatten(1).median(dim=1).values
    assert 0.2 <= spread.min() < 0.7 < 1.3 < spread.max() <= 1.8
    found = relit(torch.rand(20, 1, 6, 6))
    assert 0 <= found.min() <= found.max() <= 1
    assert torch.allclose(relit(images, 0.0, 0.0), images, atol=1e-6)
