"""What is particular about methods that optimise batches, and the pool they replay from; see test_conformance.py."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from short_runs import experiment

from lra.benchmarks.errors import UsageError
from lra.strategies.replay import PoolReplay

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
