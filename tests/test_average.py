"""The moving average of a network, and of the generator as a memory."""

import copy
import math
from typing import Any

import pytest
import torch
from short_runs import experiment, plain_teacher
from torch import nn
from torch.nn.utils import parametrizations

from lra.average import Average
from lra.benchmarks.errors import UsageError
from lra.problem import Teacher
from lra.strategies.replay import EMAReplay
from lra.synthesis.online import ConditionedOnlineGenerator, SharedLatents


def small() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), parametrizations.spectral_norm(nn.Linear(4, 2))).double()


def moved(network: nn.Module, seed: int) -> None:
    """The network as training might leave it: other weights, other statistics."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter))
        network(torch.randn(8, 3).double())


def same(one: nn.Module, other: nn.Module) -> bool:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("decay", [0.3, 0.95])
def test_it_is_the_weighted_sum_of_all_that_was_of_statistics_too(decay: float) -> None:
    network = small()
    average, seen = Average(network, decay), [copy.deepcopy(network.state_dict())]
    for seed in range(1, 6):
        moved(network, seed)
        average.update()
        seen.append(copy.deepcopy(network.state_dict()))
    n = len(seen) - 1
    for name, value in average.network.state_dict().items():
        expected = decay**n * seen[0][name]
        expected = expected + (1 - decay) * sum(decay ** (n - k) * seen[k][name] for k in range(1, n + 1))
        if name.endswith(("num_batches_tracked", "_u", "_v")):
            expected = seen[-1][name]
        torch.testing.assert_close(value, expected, rtol=1e-6, atol=1e-12)


def test_without_decay_it_follows_and_with_a_decay_of_one_it_stays() -> None:
    network = small()
    follows, stays, first = Average(network, 0.0), Average(network, 1.0), copy.deepcopy(network)
    for seed in (1, 2):
        moved(network, seed)
        follows.update()
        stays.update()
        assert same(follows.network, network)
        assert all(torch.equal(a, b) for a, b in zip(stays.network.parameters(), first.parameters(), strict=True))
        assert torch.equal(stays.network[1].running_var, first[1].running_var)
    stays.restart()
    assert same(stays.network, network)


@pytest.mark.parametrize("decay", [-0.1, 1.1, math.nan])
def test_another_decay_is_refused(decay: float) -> None:
    with pytest.raises(ValueError, match=r"lies in \[0, 1\]"):
        Average(small(), decay)
    with pytest.raises(UsageError, match=r"replay\.decay") as refusal:
        experiment("predfkd", f"replay.decay={decay}", replay="ema")
    assert "\n" not in str(refusal.value)


def built(method: str, *settings: str, **more: Any) -> tuple[Any, EMAReplay]:
    run = experiment(method, "synthesis.width=4", *settings, replay="ema", **more)
    (replay,) = (plugin for plugin in run.strategy.plugins if isinstance(plugin, EMAReplay))
    return run, replay


@pytest.mark.parametrize("method", ["predfkd", "gdfq"])
def test_without_decay_the_memory_is_the_generator_of_the_experience_before(method: str) -> None:
    run, replay = built(method, "replay.decay=0")
    source, stream = run.stream.synthesizer, run.stream
    kept: list[nn.Module] = []
    recalled: list[torch.Tensor] = []
    recall = replay.recall

    def remembered() -> Any:
        if kept:
            state = torch.get_rng_state()
            recalled.append(source.sampler().draw(kept[-1], replay.size))
            torch.set_rng_state(state)
        found = recall()
        assert (found is None) == (not kept)
        if found is not None:
            assert torch.equal(found.images, recalled[-1])
        return found

    replay.recall = remembered  # type: ignore[method-assign]

    def rest() -> None:
        assert same(replay.average.network, source.generator)
        kept.append(copy.deepcopy(source.generator))

    stream.at_rest = rest
    run.strategy.train(stream)
    assert len(recalled) == 6


def test_with_a_decay_of_one_it_stays_the_generator_of_the_first_experience() -> None:
    run, replay = built("dafl", "replay.decay=1")
    firsts: list[nn.Module] = []
    begin = replay.before_training_exp

    def before(strategy: Any, **kwargs: object) -> None:
        begin(strategy, **kwargs)
        firsts.append(copy.deepcopy(replay.average.network))

    replay.before_training_exp = before  # type: ignore[method-assign]
    run.strategy.train(run.stream)
    parameters = [list(each.parameters()) for each in (firsts[0], replay.average.network)]
    assert all(torch.equal(a, b) for a, b in zip(*parameters, strict=True))
    assert not same(replay.average.network, run.stream.synthesizer.generator)


@pytest.mark.parametrize("method", ["predfkd", "gdfq", "zskt"])
def test_recalling_leaves_no_trace(method: str) -> None:
    more = ["synthesis={form: original}"] if method == "zskt" else []
    run, replay = built(method, *more, "replay.warmup=0", experiences=2)
    run.strategy.train(run.stream)
    source = run.stream.synthesizer
    assert isinstance(source, {"gdfq": ConditionedOnlineGenerator, "zskt": SharedLatents}.get(method, object))
    before = copy.deepcopy((source.state_dict(), replay.state_dict(), source.asked))
    replay.recall()
    replay.recall()
    assert str((source.state_dict(), replay.state_dict(), source.asked)) == str(before)
    state = replay.average.network.state_dict()
    assert all(torch.equal(value, before[1]["average"][name]) for name, value in state.items())


def test_what_it_keeps_is_the_average_alone_and_another_teacher_answers_anew() -> None:
    run, replay = built("dafl", experiences=2)
    run.strategy.train(run.stream)
    assert set(replay.state_dict()) == {"completed", "average"}
    other, later = built("dafl", experiences=2)
    later.begin_with(replay.state_dict(), other.stream.teacher)
    assert same(later.average.network, replay.average.network)
    later.before_training_exp(other.strategy)
    assert same(later.average.network, replay.average.network), "it goes on with what it was given"
    later.teacher = Teacher(copy.deepcopy(plain_teacher().network))
    found = later.recall()
    assert found is not None
    torch.testing.assert_close(found.logits, later.teacher.network(found.images))


def test_of_a_generator_that_is_fixed_the_average_is_itself() -> None:
    run, replay = built("fixed", experiences=3)
    run.strategy.train(run.stream)
    pairs = zip(replay.average.network.parameters(), run.stream.synthesizer.family.generator.parameters(), strict=True)
    assert all(torch.allclose(a, b) for a, b in pairs)
    with pytest.raises(UsageError, match="averages a persistent generator"):
        built("fixed", "synthesis.family=noise")
