"""Methods that optimise batches, end to end on digits: each learns, with every retention, and resumes identically."""

import copy
import functools
import io
import re
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lra.benchmarks.errors import UsageError
from lra.benchmarks.setup.datasets import digits
from lra.benchmarks.setup.experiment import prepare
from lra.benchmarks.setup.layers import parse_assignment
from lra.benchmarks.setup.resolution import resolve
from lra.benchmarks.setup.teachers import TrainedTeacher
from lra.networks.normalized import Normalized
from lra.strategies.checkpoint import capture, restore
from lra.strategies.replay import PoolReplay

METHODS = {
    "adi": ["synthesis.steps=20", "synthesis.bn=1"],
    "cmi": ["synthesis.steps=20", "synthesis.lr=0.01", "synthesis.bank=96", "synthesis.width=8"],
    "fast": ["synthesis.warmup=2", "synthesis.lr=0.01", "synthesis.latent_lr=0.05", "synthesis.width=8"],
    "rgal": ["synthesis.steps=15", "synthesis.lr=0.01", "synthesis.width=8"],
    "nayer": [
        "synthesis.steps=10",
        "synthesis.warmup=2",
        "synthesis.rounds=1",
        "synthesis.width=8",
        "synthesis.lr=0.01",
    ],
    "aeahl-rg": [
        *("synthesis.warmup=2", "synthesis.lr=0.01", "synthesis.latent_lr=0.05", "synthesis.width=8"),
        *("synthesis.hard_loss=true", "synthesis.aea={width: 4, probability: 0.1}"),
    ],
    "zskd": ["synthesis.steps=20", "synthesis.rounds=1", "synthesis.lr=0.3", "synthesis.temperature=20"],
    "softtarget": ["synthesis.steps=20", "synthesis.spread=10", "synthesis.temperature=4", "synthesis.activation=0.1"],
}


@functools.cache
def teacher():
    data = digits()
    real = data.load("train")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = Normalized(
            nn.Sequential(
                nn.Conv2d(1, 8, 3, padding=1, stride=2, bias=False),
                nn.BatchNorm2d(8),
                nn.ReLU(),
                nn.Conv2d(8, 24, 3, padding=1, stride=2, bias=False),
                nn.BatchNorm2d(24),
                nn.ReLU(),
                nn.Flatten(),
                nn.Linear(24 * 16, 32),
                nn.ReLU(),
                nn.Linear(32, 10),
            ),
            (0.31,),
            (0.35,),
        )
        optimiser = torch.optim.Adam(network.parameters(), lr=3e-3)
        for _ in range(6):
            for chosen in torch.randperm(len(real.images)).split(64):
                optimiser.zero_grad()
                F.cross_entropy(network(real.images[chosen]), real.classes[chosen]).backward()
                optimiser.step()
    return TrainedTeacher(network.eval(), "small", (0.31,), (0.35,), "0" * 64, Path("small"), None)


def experiment(method, *assignments, replay="pool", meta=False, experiences=6, steps=8, trained=None, keep=None):
    settings = [
        "synthesis.flip=false",
        "synthesis.shift=1",
        "synthesis.images=32",
        "student.network=lenet5-half",
        "student.loss={kind: kl, temperature: 1}",
        "student.lr=0.1",
        f"schedule={{batch_size: 32, steps_per_experience: {steps}, experiences_per_epoch: 1, epochs: {experiences}}}",
        "evaluation={probes: 2, samples: 0, probe_size: 16}",
        "evaluation.every=100",
        *assignments,
    ]
    layers = [{"method": method, "replay": replay, "meta": meta}, *map(parse_assignment, settings)]
    config = resolve(layers)
    data = digits()
    torch.manual_seed(0)
    trained = copy.deepcopy(trained or teacher())
    return prepare(config, data, trained, data.load("test"), keep or (lambda record: None))


@pytest.mark.parametrize("method", METHODS)
def test_the_pool_keeps_every_image(method):
    # The attack has tests of its own, and takes its time.
    plain = ["synthesis.hard_loss=false"] if method == "aeahl-rg" else []
    built = experiment(method, *METHODS[method], *plain, experiences=4, steps=2)
    built.strategy.train(built.stream)
    replay = next(p for p in built.strategy.plugins if isinstance(p, PoolReplay))
    assert replay.pool.seen == len(replay.pool)
    assert len(replay.pool) >= 4 * 30


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("meta", [False, True])
def test_restored_at_an_experience_it_goes_on_identically(method, meta):
    def build():
        short = [*METHODS[method], "synthesis.steps=2", "synthesis.images=16"]
        return experiment(method, *short, experiences=4, steps=2, meta=meta)

    whole = build()
    saved = {}

    def save():
        if whole.stream.position == 2:
            buffer = io.BytesIO()
            torch.save(capture(whole.strategy, whole.stream), buffer)
            saved["bytes"] = buffer.getvalue()

    whole.stream.at_rest = save
    whole.strategy.train(whole.stream)
    random_state = torch.get_rng_state()
    resumed = build()
    state = torch.load(io.BytesIO(saved["bytes"]), weights_only=True)
    restore(state, resumed.strategy, resumed.stream)
    resumed.strategy.train(resumed.stream)
    left, right = whole.strategy.model.state_dict(), resumed.strategy.model.state_dict()
    assert all(torch.equal(left[name], right[name]) for name in left)
    assert whole.stream.teacher.queries == resumed.stream.teacher.queries
    assert torch.equal(torch.get_rng_state(), random_state)


@pytest.mark.parametrize(
    ("replay", "meta"),
    [("none", False)] + [(r, m) for r in ("memory", "reservoir", "pool", "generative") for m in (False, True)],
)
@pytest.mark.parametrize("method", ["rgal", "fast", "aeahl-rg"])
def test_every_retention_with_and_without_the_meta_step(method, replay, meta):
    built = experiment(method, *METHODS[method], "synthesis.steps=2", replay=replay, meta=meta, experiences=3, steps=3)
    built.strategy.train(built.stream)
    assert all(torch.isfinite(value).all() for value in built.strategy.model.state_dict().values())


@pytest.mark.parametrize("method", ["predfkd", "dafl", "dfq"])
@pytest.mark.parametrize("meta", [False, True])
def test_methods_with_a_generator_keep_a_pool_of_their_own(method, meta):
    built = experiment_online(method, "replay={name: pool, policy: reservoir, capacity: 50}", meta=meta)
    built.strategy.train(built.stream)
    replay = next(p for p in built.strategy.plugins if isinstance(p, PoolReplay))
    assert len(replay.pool) == 50
    assert replay.pool.contents().images.dtype == torch.uint8


def experiment_online(method, *assignments, meta=False, experiences=4):
    settings = [
        "synthesis.latent=8",
        "synthesis.width=8",
        f"schedule={{batch_size: 32, steps_per_experience: 2, experiences_per_epoch: 1, epochs: {experiences}}}",
        "evaluation={probes: 2, samples: 0, probe_size: 16}",
        *assignments,
    ]
    config = resolve([{"method": method, "meta": meta}, *map(parse_assignment, settings)])
    torch.manual_seed(0)
    return prepare(config, digits(), copy.deepcopy(teacher()), None, lambda record: None)


@pytest.mark.parametrize(
    ("share", "old"),
    [("uniform", [0, 16, 21, 24, 26]), (0.25, [0, 8, 8, 8, 8]), ("beside", [0, 4, 4, 4, 4])],
)
def test_old_images_take_the_place_of_new_ones(share, old):
    built = experiment(
        "zskd", *METHODS["zskd"], "synthesis.steps=1", f"replay={{name: pool, share: {share}}}", experiences=5, steps=2
    )
    seen = []
    forward = built.strategy.forward

    def watched():
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


def test_at_least_so_many_new_images():
    built = experiment(
        "zskd",
        *METHODS["zskd"],
        "synthesis.steps=1",
        "replay={name: pool, share: 1.0, least: 5}",
        experiences=2,
        steps=1,
    )
    built.strategy.train(built.stream)
    assert built.strategy.displaced == 27


def test_replayed_images_are_of_earlier_experiences():
    built = experiment("zskd", *METHODS["zskd"], "synthesis.steps=1", "synthesis.shift=0", experiences=3, steps=2)
    replay = next(p for p in built.strategy.plugins if isinstance(p, PoolReplay))
    births = []
    sample = replay.pool.sample

    def watched(n):
        batch = sample(n)
        births.append((replay.completed, batch.births.max().item()))
        return batch

    replay.pool.sample = watched
    built.strategy.train(built.stream)
    assert births
    assert all(birth < now for now, birth in births)


@pytest.mark.parametrize("method", ["adi", "cmi", "fast", "rgal", "nayer", "aeahl-rg"])
def test_a_teacher_without_batchnorm_is_refused_in_one_line(method):
    with pytest.raises(UsageError, match=r"BatchNorm.*zskd") as caught:
        experiment(method, *METHODS[method], trained=plain_teacher())
    assert "\n" not in str(caught.value)
    assert caught.value.code == 2
    remedy = re.search(r"set (.*?), or a method", str(caught.value))[1].split(" and ")
    assert experiment(method, *METHODS[method], *remedy, trained=plain_teacher())


def plain_teacher():
    network = Normalized(
        nn.Sequential(nn.Conv2d(1, 4, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(196, 10)), (0.3,), (0.3,)
    )
    return TrainedTeacher(network, "plain", (0.3,), (0.3,), "0" * 64, Path("plain"), None)


def test_without_batchnorm_terms_such_a_teacher_will_do():
    built = experiment(
        "rgal", *METHODS["rgal"], "synthesis.bn=0", "synthesis.steps=2", trained=plain_teacher(), experiences=2, steps=2
    )
    built.strategy.train(built.stream)
    built = experiment(
        "cmi",
        "synthesis.bn=0",
        "synthesis.layers=stages",
        "synthesis.steps=2",
        trained=plain_teacher(),
        experiences=2,
        steps=2,
    )
    built.strategy.train(built.stream)


@pytest.mark.parametrize(
    ("method", "setting", "message"),
    [
        ("cmi", "synthesis.bank=16", "32 images does not fit a bank of 16"),
        ("nayer", "synthesis.embedding=[[1.0, 0.0]]", "10 rows"),
        ("nayer", "synthesis={embedding: orthogonal, dimension: 4}", "dimension = 4"),
        ("adi", "replay={name: pool, least: 99}", "replay.least = 99"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(method, setting, message):
    with pytest.raises(UsageError, match=message):
        experiment(method, setting)


@pytest.mark.parametrize("embedding", ["orthogonal", [[float(i == j) for i in range(12)] for j in range(10)]])
def test_embeddings_of_classes(embedding):
    built = experiment(
        "nayer", *METHODS["nayer"], f"synthesis.embedding={embedding}", "synthesis.steps=1", experiences=1, steps=1
    )
    vectors = built.stream.synthesizer.source.generator.embedding
    assert torch.allclose(vectors @ vectors.T, torch.eye(10), atol=1e-5)


@pytest.mark.parametrize("compared", ["global", "features", "logits"])
def test_rgal_compares_what_it_is_told_and_learns_its_adapters(compared):
    built = experiment(
        "rgal",
        *METHODS["rgal"],
        f"synthesis.compared={compared}",
        "synthesis.steps=1",
        meta=True,
        experiences=3,
        steps=2,
    )
    adapters = [p.detach().clone() for p in built.strategy.objective.parameters()]
    assert adapters
    built.strategy.train(built.stream)
    after = list(built.strategy.objective.parameters())
    assert not any(torch.equal(a, b) for a, b in zip(adapters, after, strict=True))


def test_rgal_drops_its_extra_terms_after_a_share_of_the_epochs():
    small = ["synthesis.steps=1", "synthesis.active=0.5", "synthesis.fmix=1"]
    built = experiment("rgal", *METHODS["rgal"], *small, experiences=4, steps=1)
    terms, steps = built.strategy.objective.terms, []
    forward = built.strategy.forward
    built.strategy.forward = lambda: steps.append([term.weight > 0 for term in terms]) or forward()
    built.strategy.train(built.stream)
    assert steps[:4] == [[True, True, False]] * 2 + [[False] * 3] * 2, "gram has no weight"


def test_the_triplet_term_joins_any_method():
    records = []
    for method in ("predfkd", "dafl"):
        config = ["synthesis.triplet=0.1", "evaluation.every=1"]
        built = experiment_online(method, *config)
        built.strategy.train(built.stream)
        names = [term.name for term in built.stream.synthesizer.terms if term.weight]
        assert "triplet" in names
    built = experiment(
        "adi",
        *METHODS["adi"],
        "synthesis.triplet=0.1",
        "synthesis.steps=2",
        experiences=1,
        steps=1,
        keep=records.append,
    )
    built.strategy.train(built.stream)
    assert 0 <= records[-1]["synthesis"]["triplet_fallback"]["raw"] <= 1
    assert "triplet" in records[-1]["synthesis"]
