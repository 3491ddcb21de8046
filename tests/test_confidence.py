"""The filter of samples that the teacher is sure of (TA-DFKD)."""

import copy
import itertools

import pytest
import torch
from short_runs import experiment
from torch import Tensor

from lra.benchmarks.errors import UsageError
from lra.state import random_states
from lra.synthesis.confidence import Filter, confident, fitted


def of_losses(losses: Tensor) -> Tensor:
    """Logits of two classes with -log max softmax as asked, below ln 2."""
    p = (-losses).exp()
    return torch.stack([p.log(), (1 - p).log()], dim=1)


def clusters() -> Tensor:
    torch.manual_seed(0)
    return torch.cat([0.05 + 0.01 * torch.rand(90), 0.55 + 0.05 * torch.rand(10)]).double()


def test_of_two_clusters_exactly_the_surer_is_kept() -> None:
    order = torch.randperm(100)
    kept = confident(of_losses(clusters())[order])
    assert torch.equal(kept, order < 90)


@pytest.mark.parametrize(("factor", "offset"), [(0.5, 0.0), (0.3, 0.2)])
def test_neither_the_scale_nor_the_zero_of_the_losses_matters(factor: float, offset: float) -> None:
    torch.manual_seed(1)
    losses = 0.6 * torch.rand(200).double() ** 2
    assert torch.equal(confident(of_losses(factor * losses + offset)), confident(of_losses(losses)))


def test_posteriors_sum_to_one_and_the_likelihood_never_falls() -> None:
    torch.manual_seed(2)
    values = torch.cat([torch.randn(150), 2 + 0.5 * torch.randn(50)]).double()
    mixture, likelihoods = fitted(values, iterations=40, tolerance=0, least=0)
    torch.testing.assert_close(mixture.posteriors(values).sum(dim=1), torch.ones(200).double())
    assert len(likelihoods) > 5
    assert all(after >= before - 1e-12 for before, after in itertools.pairwise(likelihoods))


@pytest.mark.parametrize("logits", [torch.ones(6, 3), torch.randn(1, 3), torch.full((4, 3), torch.nan)])
def test_where_all_are_alike_or_alone_all_are_kept(logits: Tensor) -> None:
    assert confident(logits).all()


class Nothing(Filter):
    """Keeps nothing."""

    def mask(self, logits: Tensor) -> Tensor:
        super().mask(logits)
        return torch.zeros(len(logits), dtype=torch.bool)


def test_a_filter_that_keeps_nothing_ends_and_gives_the_surest() -> None:
    images, calls = torch.arange(20.0), []

    def draw(n: int) -> Tensor:
        calls.append(n)
        return images[len(calls) * 4 - 4 :][:n]

    def label(chosen: Tensor) -> Tensor:
        return torch.stack([chosen, torch.zeros_like(chosen)], dim=1)

    found = Nothing(redraws=4)(draw, label, 4)
    assert calls == [4] * 5
    assert found.tolist() == [19, 18, 17, 16]
    built = experiment("predfkd", "synthesis.redraws=2")
    built.stream.synthesizer.confident = Nothing(2)
    built.strategy.train(built.stream)
    assert built.strategy.acquired is not None
    assert len(built.strategy.acquired.images) == 16


def test_the_student_sees_kept_images_alone_and_the_share_is_recorded() -> None:
    records: list[dict] = []
    built = experiment("dafl", "synthesis.redraws=30", experiences=2, keep=records.append)
    source = built.stream.synthesizer
    source.step(built.strategy.model)
    kept: list[Tensor] = []
    mask = source.confident.mask

    def masked(logits: Tensor) -> Tensor:
        found = mask(logits)
        kept.append(logits[found])
        return found

    source.confident.mask = masked
    images = source.draw(10)
    answers = source.teacher.label(images)
    if sum(map(len, kept)) >= 10:
        torch.testing.assert_close(answers, torch.cat(kept)[:10], rtol=1e-3, atol=1e-4)
    source.confident.mask = mask
    built.strategy.train(built.stream)
    assert 0 < records[-1]["synthesis"]["confident"]["raw"] <= 1


@pytest.mark.parametrize("method", ["dfq", "gdfq"])
def test_a_look_leaves_no_trace_though_it_may_draw_again(method: str) -> None:
    built = experiment(method, "synthesis.redraws=3")
    source = built.stream.synthesizer
    source.step(built.strategy.model)
    source.draw(5)
    before, numbers = copy.deepcopy(source.state_dict()), random_states()["torch"]
    queries = source.teacher.queries
    source.peek(9)
    assert torch.equal(random_states()["torch"], numbers)
    assert str(source.state_dict()) == str(before)
    assert source.teacher.queries == queries


def test_latents_that_cannot_be_drawn_again_are_refused_in_one_line() -> None:
    with pytest.raises(UsageError, match=r"synthesis\.redraws = 2: form original") as refusal:
        experiment("zskt", "synthesis.form=original", "synthesis.redraws=2")
    assert "\n" not in str(refusal.value)
