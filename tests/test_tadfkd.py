"""TA-DFKD: no class prior, a filter of confident samples, and images that are shaken as one; see test_confidence.py."""

import pytest
import torch
from short_runs import experiment
from torch import Tensor, nn

from lra.images import standardisation
from lra.networks.generators import gen_s, gen_tadfkd
from lra.problem import Teacher
from lra.state import State, random_states
from lra.synthesis.augmentation import shifted_together
from lra.synthesis.confidence import Filter
from lra.synthesis.online import OnlineGenerator
from lra.synthesis.terms import L2, BNStat, Disagreement, TotalVariation
from lra.view import View


def pictures(n: int = 6, side: int = 5) -> Tensor:
    return torch.rand(n, 2, side, side, dtype=torch.float64)


def test_it_asks_for_no_class() -> None:
    assert [type(term) for term in experiment("ta-dfkd").stream.synthesizer.terms][:4] == [
        BNStat,
        L2,
        TotalVariation,
        Disagreement,
    ]


def test_norms_are_of_all_images_together_and_standardised() -> None:
    images, mean, std = pictures(), (0.2, 0.6), (0.3, 0.5)
    x = (images - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
    view = View(images[:2], None, plain=images)
    standardise = standardisation(mean, std, torch.device("cpu"))
    torch.testing.assert_close(L2(1.0, standardise)(view), x.square().sum().sqrt())
    moved = [x[..., 1:] - x[..., :-1], x[..., 1:, :] - x[..., :-1, :]]
    moved += [x[..., 1:, 1:] - x[..., :-1, :-1], x[..., 1:, :-1] - x[..., :-1, 1:]]
    wanted = sum(step.square().sum().sqrt() for step in moved)
    torch.testing.assert_close(TotalVariation(1.0, "norm", standardise)(view), wanted)
    torch.testing.assert_close(TotalVariation(1.0, "norm")(View(images.new_zeros(2, 1, 1, 1), None)), wanted * 0)


def test_norms_grow_with_the_root_of_the_batch_and_means_do_not() -> None:
    images = pictures()
    once, twice = View(images, None), View(images.repeat(4, 1, 1, 1), None)
    for term in (L2(1.0), TotalVariation(1.0, "norm")):
        torch.testing.assert_close(term(twice), 2 * term(once))
    torch.testing.assert_close(TotalVariation(1.0)(twice), TotalVariation(1.0)(once))


class Scaled(nn.Module):
    """So many times what it is given, as logits."""

    def __init__(self, factor: float):
        super().__init__()
        self.factor = factor

    def forward(self, images: Tensor) -> Tensor:
        return self.factor * images.flatten(1)


@pytest.mark.parametrize("detached", [True, False])
def test_the_gradient_of_a_disagreement_goes_through_the_teacher_only_if_it_is_to(detached: bool) -> None:
    # A student that says the same whatever it sees.
    images = torch.rand(4, 1, 1, 3, dtype=torch.float64, requires_grad=True)
    view = View(images, Teacher(Scaled(5.0)), Scaled(0.0))
    (found,) = torch.autograd.grad(Disagreement(1.0, detach_teacher=detached)(view), images)
    assert bool(found.any()) == (not detached)


def test_a_batch_is_shifted_as_one_and_what_comes_in_is_black() -> None:
    torch.manual_seed(0)
    image = torch.rand(1, 1, 6, 5) + 1
    seen = set()
    for _ in range(60):
        moved = shifted_together(image.repeat(3, 1, 1, 1), 1)
        assert moved.shape == (3, 1, 6, 5)
        assert torch.equal(moved[:1].expand_as(moved), moved)
        (down, right) = next(
            (down, right)
            for down in (-1, 0, 1)
            for right in (-1, 0, 1)
            if torch.equal(
                moved[0], nn.functional.pad(image[0], (1, 1, 1, 1)).roll((down, right), (1, 2))[:, 1:-1, 1:-1]
            )
        )
        seen.add((down, right))
    assert len(seen) == 9
    assert shifted_together(image, 0) is image


def test_its_generator_is_gen_s_with_biases_an_epsilon_and_one_more_activation() -> None:
    generator, plain = gen_tadfkd(1000, (3, 32, 32)), gen_s(1000, (3, 32, 32))
    sizes = [sum(p.numel() for p in network.parameters()) for network in (generator, plain)]
    assert sizes[0] - sizes[1] == 128 + 64
    assert [m.eps for m in generator.modules() if isinstance(m, nn.BatchNorm2d)] == [1e-5, 0.8, 0.8]
    nn.init.constant_(generator.norm.bias, -1e3)
    seen: list[Tensor] = []
    generator.blocks.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    generator(torch.randn(3, 1000))
    torch.testing.assert_close(seen[0].mean(), torch.tensor(-200.0), rtol=1e-3, atol=0)


class Half(Filter):
    """Keeps those whose largest logit is among the upper half of its batch, and notes what it was asked about."""

    def mask(self, logits: Tensor) -> Tensor:
        super().mask(logits)
        most = logits.amax(dim=1)
        return most >= most.median()


def test_the_filter_judges_images_as_they_are_and_networks_learn_from_them_shaken() -> None:
    source = experiment("ta-dfkd").stream.synthesizer
    assert isinstance(source, OnlineGenerator)
    drawn: list[Tensor] = []
    asked: list[Tensor] = []
    make, label = source._drawn, source.teacher.label
    source._drawn = lambda n: drawn.append(make(n)) or drawn[-1]  # type: ignore[method-assign,func-returns-value]
    source.teacher.label = lambda x: asked.append(x) or label(x)  # type: ignore[method-assign,func-returns-value]
    source._show = lambda x: x + 7
    source.confident = Half(20)
    images = source.draw(10)
    assert len(images) == 10
    assert len(drawn) == len(asked) >= 1
    assert all(map(torch.equal, drawn, asked))
    judged = torch.cat([x[source.confident.mask(label(x))] for x in drawn])[:10]
    torch.testing.assert_close(images, judged + 7)


def test_terms_see_what_was_kept_and_priors_the_whole_batch() -> None:
    built = experiment("ta-dfkd")
    source = built.stream.synthesizer
    assert isinstance(source, OnlineGenerator)
    source.confident, source._show = Half(20), lambda x: x / 2
    images = torch.rand(10, 1, 16, 16)
    view = source._view(images, built.strategy.model)
    kept = source.confident.mask(source.teacher.label(images))
    assert 0 < kept.sum() < 10
    torch.testing.assert_close(view.images, images[kept] / 2)
    torch.testing.assert_close(view.plain, images / 2)


def started(*settings: str) -> tuple[OnlineGenerator, nn.Module]:
    built = experiment("ta-dfkd", *settings)
    assert isinstance(built.stream.synthesizer, OnlineGenerator)
    return built.stream.synthesizer, built.strategy.model


def test_without_filter_and_shaking_it_is_the_plain_online_generator_bit_for_bit() -> None:
    """Of the same terms, on the same generator."""
    still = "synthesis={shift: 0, flip: false, redraws: 0}"
    ended: list[State] = []
    for plain in (False, True):
        source, student = started(still)
        assert source.confident is None
        if plain:
            source = OnlineGenerator(
                source.generator,
                source.optimiser,
                source.terms,
                source.teacher,
                source.latent,
                source.batch_size,
                sampling_mode="train",
            )
        torch.manual_seed(3)
        source.step(student)
        ended.append(source.generator.state_dict() | {"images": source.draw(9), "random": random_states()["torch"]})
    assert all(torch.equal(ended[0][name], ended[1][name]) for name in ended[0])


@pytest.mark.parametrize("together", ["true", "false"])
def test_images_are_shaken_as_one_or_each_on_its_own(together: str) -> None:
    source, _ = started("synthesis={redraws: 0, flip: false, shift: 2}", f"synthesis.together={together}")
    source._drawn = lambda n: torch.arange(256.0).view(1, 1, 16, 16).repeat(n, 1, 1, 1)  # type: ignore[method-assign]
    torch.manual_seed(0)
    images = source.draw(12)
    assert torch.equal(images, images[:1].expand_as(images)) == (together == "true")


def test_without_batchnorm_the_other_terms_remain() -> None:
    records: list[dict] = []
    built = experiment("ta-dfkd", "synthesis.bn=0", experiences=2, keep=records.append)
    built.strategy.train(built.stream)
    assert set(records[-1]["synthesis"]) == {"l2", "total_variation", "disagreement", "confident"}
    assert 0 < records[-1]["synthesis"]["confident"]["raw"] <= 1
