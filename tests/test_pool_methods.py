"""What is particular about methods that optimise batches, and the pool they replay from; see test_conformance.py."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from short_runs import experiment

from lra.benchmarks.errors import UsageError
from lra.distances import Distance, kl, kl_reversed
from lra.networks.conditional import LabelGenerator
from lra.strategies.replay import PoolReplay
from lra.synthesis.sources import NoisyLayerSource
from lra.synthesis.terms import Adversarial, OneHot
from lra.view import View

BATCHES = ["synthesis={images: 32, rounds: 1, steps: 1, warmup: 0}", "schedule.batch_size=32", "replay.least=1"]
"""An experience is one batch, as large as a student's."""


@pytest.mark.parametrize(
    ("share", "old"),
    [("uniform", [0, 16, 21, 24, 26]), (0.25, [0, 8, 8, 8, 8]), ("beside", [0, 4, 4, 4, 4])],
)
def test_old_images_take_the_place_of_new_ones(share: str | float, old: list[int]) -> None:
    built = experiment("zskd", *BATCHES, f"replay.share={share}", experiences=5)
    seen = []
    forward = built.strategy.forward

    def watched() -> Any:
        if built.strategy.is_training:
            replayed = built.strategy.replayed
            seen.append((len(built.strategy.acquired.images), 0 if replayed is None else len(replayed.images)))
            assert len(built.strategy.mb_x) == sum(seen[-1])
        return forward()

    built.strategy.forward = watched
    built.strategy.train(built.stream)
    training = seen[::2]
    assert [o for _, o in training] == old
    assert [n for n, _ in training] == [32 if share == "beside" else 32 - o for o in old]


def test_at_least_so_many_new_images() -> None:
    built = experiment("zskd", *BATCHES, "replay={share: 1.0, least: 5}", experiences=2)
    built.strategy.train(built.stream)
    assert built.strategy.displaced == 27


def test_replayed_images_are_of_earlier_experiences() -> None:
    built = experiment("zskd", *BATCHES, "synthesis.shift=0", experiences=3)
    (replay,) = (p for p in built.strategy.plugins if isinstance(p, PoolReplay))
    births = []
    sample = replay.pool.sample

    def watched(n: int) -> Any:
        batch = sample(n)
        births.append((replay.completed, batch.births.max().item()))
        return batch

    replay.pool.sample = watched
    built.strategy.train(built.stream)
    assert births
    assert all(birth < now for now, birth in births)


@pytest.mark.parametrize(
    ("method", "setting", "message"),
    [
        ("cmi", "synthesis={images: 32, bank: 16}", "32 images does not fit a bank of 16"),
        ("nayer", "synthesis.embedding=[[1.0, 0.0]]", "10 rows"),
        ("nayer", "synthesis={embedding: orthogonal, dimension: 4}", "dimension = 4"),
        ("cpnet", "synthesis.nodes=[layer9]", "no BatchNorm of maps called 'layer9'"),
        ("adi", "replay={name: pool, least: 99}", "replay.least = 99"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(method: str, setting: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        experiment(method, setting)


@pytest.mark.parametrize("embedding", ["orthogonal", [[float(i == j) for i in range(12)] for j in range(10)]])
def test_embeddings_of_classes(embedding: str | list[list[float]]) -> None:
    built = experiment("nayer", f"synthesis.embedding={embedding}", experiences=1)
    vectors = built.stream.synthesizer.source.generator.embedding
    assert torch.allclose(vectors @ vectors.T, torch.eye(10), atol=1e-5)


# What it compares by default is in test_conformance.py.
@pytest.mark.parametrize("compared", ["features", "logits"])
def test_rgal_compares_what_it_is_told_and_learns_its_adapters(compared: str) -> None:
    built = experiment("rgal", *BATCHES, f"synthesis.compared={compared}", meta=True, experiences=3)
    adapters = [p.detach().clone() for p in built.strategy.objective.parameters()]
    assert adapters
    built.strategy.train(built.stream)
    after = list(built.strategy.objective.parameters())
    assert not any(torch.equal(a, b) for a, b in zip(adapters, after, strict=True))


def test_rgal_drops_its_extra_terms_after_a_share_of_the_epochs() -> None:
    one = "schedule.steps_per_experience=1"
    built = experiment("rgal", *BATCHES, one, "synthesis={active: 0.5, fmix: 1}", experiences=4)
    terms, steps = built.strategy.objective.terms, []
    forward: Callable[[], Any] = built.strategy.forward
    built.strategy.forward = lambda: steps.append([term.weight > 0 for term in terms]) or forward()
    built.strategy.train(built.stream)
    assert steps[:4] == [[True, True, False]] * 2 + [[False] * 3] * 2, "gram has no weight"


PLAIN = "synthesis={coupling: 1.0e-30, cutmix: 0, colour: 0, divergence: forward, prior: 0, life: 99, warmup: 0}"


def test_cpnet_without_what_is_its_own_takes_nayers_steps() -> None:
    """On the same generator, whose coupling has next to no weight: the same images, byte for byte."""
    built = [experiment("cpnet", *BATCHES, PLAIN, experiences=1) for _ in range(2)]
    ours, nayers = (each.stream.synthesizer for each in built)
    kept = [term for term in nayers.terms if term.name != "coupling"]
    nayers.terms[:] = kept
    for each, synthesizer in zip(built, (ours, nayers), strict=True):
        torch.manual_seed(1)
        synthesizer.step(each.strategy.model)
    assert [term.name for term in kept if term.weight] == ["batchnorm", "one_hot", "adversarial"]
    assert torch.equal(ours.batch().images, nayers.batch().images)


@pytest.mark.parametrize(("divergence", "distance"), [("reverse", kl_reversed), ("forward", kl)])
@pytest.mark.parametrize("prior", [0.0, 0.7, 1.0])
def test_cpnets_adversary_has_either_direction_and_either_reading(
    divergence: str, distance: Distance, prior: float
) -> None:
    """The release adds the feature adversary with 1; its scripts mean ``dist``, which is 0 in most cells."""
    built = experiment("cpnet", f"synthesis={{divergence: {divergence}, prior: {prior}, adversarial: 1.33}}")
    terms = {term.name: term for term in built.stream.synthesizer.terms}
    student, teacher = torch.randn(2, 6, 10)
    assert isinstance(terms["adversarial"], Adversarial)
    assert torch.equal(terms["adversarial"].distance(student, teacher), distance(student, teacher))
    assert terms["adversarial"].mask == "agree"
    assert ("prior" in terms) == (prior > 0)
    if prior:
        assert terms["prior"].weight == pytest.approx(1.33 * prior)
        assert terms["prior"].competitive


@pytest.mark.parametrize(
    ("method", "mask"), [("cmi", "agree"), ("fast", "agree"), ("nayer", "agree"), ("dlig", "asked")]
)
def test_whom_the_adversary_counts(method: str, mask: str) -> None:
    (adversary,) = (term for term in experiment(method).stream.synthesizer.terms if term.name == "adversarial")
    assert isinstance(adversary, Adversarial)
    assert adversary.mask == mask


def test_a_ladder_has_the_teachers_maps_and_ends_in_the_image() -> None:
    built = experiment("cpnet", *BATCHES, experiences=1)
    source = built.stream.synthesizer.source
    source.begin(torch.arange(10))
    images, maps = source.made()
    assert images.shape[1:] == built.problem.image
    assert [tuple(each.shape[1:]) for each in maps] == [(24, 4, 4), (8, 8, 8)], "of the small teacher, deepest first"


def test_a_generator_is_drawn_anew_at_the_end_of_its_lives() -> None:
    """Every third batch of the first four, then every second."""
    torch.manual_seed(0)
    generator = LabelGenerator(3, (1, 8, 8), 6, latent=5, width=4)
    source, anew = NoisyLayerSource(generator, 0.01, life=2, warmup=4, warmup_life=3), []
    for _ in range(7):
        before = generator.images.linear.weight.detach().clone()
        source.begin(torch.arange(3))
        anew.append(not torch.equal(before, generator.images.linear.weight))
    assert anew == [False, False, False, True, True, False, True]


@pytest.mark.parametrize("method", ["fast", "nayer"])
def test_other_methods_mix_images_too(method: str) -> None:
    seen: list[torch.Tensor] = []
    built = experiment(method, *BATCHES, "synthesis={cutmix: 1.0}", experiences=1)
    (asked,) = (term for term in built.stream.synthesizer.terms if term.name == "one_hot")
    built.stream.synthesizer.terms[:] = [Watched(asked, seen)]
    built.stream.synthesizer.step(built.strategy.model)
    assert seen
    assert all(labels.dim() == 2 for labels in seen)


class Watched(OneHot):
    """Keeps the labels it is asked about."""

    def __init__(self, term: OneHot, seen: list[torch.Tensor]):
        super().__init__(term.weight)
        self.seen = seen

    def __call__(self, view: View) -> torch.Tensor:
        self.seen.append(view.targets)
        return super().__call__(view)
