"""What a run measures of itself: closed forms, and no trace in the run."""

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from short_runs import experiment
from torch import Tensor, nn

from lra.distances import l1
from lra.distillation.objective import Objective
from lra.memory.buffers import Ring
from lra.metrics.evolution import AgreementMatrix, evolution, forgetting, too_short
from lra.metrics.student import (
    agreement,
    class_accuracy,
    class_histogram,
    confusion,
    cosine,
    gradient_alignment,
    loyalties,
    loyalty,
    loyalty_reference,
)
from lra.problem import Batch
from lra.state import frozen, in_mode, untouched
from lra.strategies.evaluation import Evaluation
from lra.strategies.metrics import GradientAlignment, TestFidelity, TrainingLosses
from lra.strategies.probes import Plasticity, ProbeForgetting
from lra.strategies.replay import BufferReplay
from lra.strategies.strategy import DataFreeDistillation
from lra.strategies.stream import SynthesisStream, TestExperience, no_test_stream

pytestmark = pytest.mark.usefixtures("plain_report")

MakeStream = Callable[..., SynthesisStream]
MakeStrategy = Callable[..., DataFreeDistillation]
NAN = float("nan")


def test_evolution_of_a_curve_by_hand() -> None:
    found = evolution([10.0, 50.0, 90.0, 70.0, 80.0])
    assert (found.final, found.max, found.mean) == (80.0, 90.0, 60.0)
    assert found.variance == pytest.approx((2500 + 100 + 900 + 100 + 400) / 5)
    assert found.tail_mean == pytest.approx(80.0), "the last three of five"
    assert found.tail_variance == pytest.approx(200 / 3)


def test_evolution_needs_an_evaluation() -> None:
    with pytest.raises(ValueError, match="at least one"):
        evolution([])


@given(st.lists(st.floats(0, 100), min_size=1, max_size=50))
def test_evolution_is_bounded_by_its_curve(curve: list[float]) -> None:
    found = evolution(curve)
    slack = 1e-9
    assert found.final == curve[-1]
    if len(curve) == 1:
        assert (found.mean, found.variance) == (None, None)
        return
    assert found.mean is not None
    assert found.variance is not None
    assert min(curve) - slack <= found.mean <= found.max + slack
    assert 0 <= found.variance <= 2500 + slack


@pytest.mark.parametrize(
    ("length", "whole", "half"), [(1, False, False), (2, True, False), (3, True, True), (4, True, True)]
)
def test_a_mean_and_a_variance_are_of_two_evaluations_at_least(length: int, whole: bool, half: bool) -> None:
    found = evolution([50.0, 60.0, 70.0, 40.0][:length])
    assert [value is not None for value in (found.mean, found.variance)] == [whole] * 2
    assert [value is not None for value in (found.tail_mean, found.tail_variance)] == [half] * 2
    assert (too_short(length) is None) == (whole and half), "and what is lacking has a reason"


def test_forgetting_by_hand() -> None:
    """Best earlier minus now, not first minus now: the second probe rose before it fell."""
    matrix = np.array([[80.0, NAN, NAN], [70.0, 60.0, NAN], [75.0, 90.0, 50.0], [60.0, 85.0, 55.0]])
    found = forgetting(matrix)
    assert found is not None
    lost = [80 - 60, 90 - 85, 50 - 55]
    assert found.average == pytest.approx(sum(lost) / 3)
    assert found.maximum == 20
    assert found.bwt == pytest.approx(((60 - 80) + (85 - 60) + (55 - 50)) / 3)


def test_a_probe_just_born_says_nothing_of_forgetting() -> None:
    assert forgetting(np.array([[80.0]])) is None
    found = forgetting(np.array([[80.0, NAN], [70.0, 10.0]]))
    assert found is not None
    assert (found.average, found.bwt) == (10.0, -10.0)


@given(st.integers(2, 6), st.integers(1, 5), st.integers(0, 1000))
def test_forgetting_bounds_backward_transfer(checkpoints: int, probes: int, seed: int) -> None:
    """The best is at least the first, so forgetting is at least minus BWT; both within 100 points."""
    rows = np.random.default_rng(seed).uniform(0, 100, (checkpoints, probes))
    found = forgetting(rows)
    assert found is not None
    assert -100 <= -found.bwt <= found.average + 1e-9 <= 100 + 1e-9
    assert found.maximum >= found.average - 1e-9


def test_an_agreement_matrix_has_no_value_before_a_birth() -> None:
    matrix = AgreementMatrix()
    matrix.add(10, [10], [50.0])
    matrix.add(20, [10, 20], [40.0, 60.0])
    assert np.isnan(matrix.array()[0, 1])
    assert matrix.array()[1].tolist() == [40.0, 60.0]
    with pytest.raises(ValueError, match="do not continue"):
        matrix.add(30, [20], [1.0])
    with pytest.raises(ValueError, match="do not continue"):
        matrix.add(30, [10, 20], [1.0])


def test_fidelity_of_equals_and_opposites() -> None:
    same = torch.randn(6, 4)
    assert agreement(same, same) == 1.0
    assert loyalty(same, same) == pytest.approx(1.0)
    assert loyalty_reference(same, same) == pytest.approx(1.0, abs=1e-3)
    one, other = torch.tensor([[200.0, 0.0]]), torch.tensor([[0.0, 200.0]])
    assert agreement(one, other) == 0.0
    assert loyalty(one, other) == pytest.approx(0.0, abs=1e-6)
    assert loyalty_reference(one, other) == pytest.approx(1 - np.log(2) ** 0.25)
    assert class_histogram(torch.eye(3)[[0, 2, 2]]).tolist() == [1, 0, 2]


def test_accuracy_of_each_class_by_hand() -> None:
    logits = torch.eye(4)[[0, 0, 1, 2, 1]]
    found = class_accuracy(logits, torch.tensor([0, 0, 0, 2, 1]))
    torch.testing.assert_close(found, torch.tensor([2 / 3, 1, 1, NAN], dtype=torch.float64), equal_nan=True)


def test_which_class_is_taken_for_which_by_hand() -> None:
    found = confusion(torch.eye(3)[[0, 0, 1, 2, 1]], torch.tensor([0, 0, 0, 2, 1]))
    assert found.tolist() == [[2, 1, 0], [0, 1, 0], [0, 0, 1]]


def test_loyalty_by_hand() -> None:
    p, q = np.array([0.5, 0.5]), np.array([0.9, 0.1])
    m = (p + q) / 2
    bits = 0.5 * (p * np.log2(p / m)).sum() + 0.5 * (q * np.log2(q / m)).sum()
    logits = [torch.tensor(np.log(x))[None] for x in (p, q)]
    assert loyalty(*logits) == pytest.approx(1 - bits**0.5)


def test_loyalty_of_a_large_test_set_is_that_of_its_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = torch.randn(2, 5, 4, generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr("lra.metrics.student.AT_ONCE", 2)
    parts = zip(ours.split(1), theirs.split(1), strict=True)
    singles = [(loyalty(*part), loyalty_reference(*part)) for part in parts]
    assert loyalties(ours, theirs) == pytest.approx(tuple(np.mean(singles, axis=0)))


def test_alignment_by_hand(student: nn.Module, double: None) -> None:
    student.double()
    torch.manual_seed(0)
    batches = [Batch(torch.rand(8, 1, 8, 8), torch.randn(8, 10)) for _ in range(2)]
    before = copy.deepcopy(student.state_dict())
    found = gradient_alignment(student.eval(), Objective(l1), *batches)
    assert not student.training
    assert all(torch.equal(value, student.state_dict()[name]) for name, value in before.items())
    assert all(p.grad is None for p in student.parameters())

    student.train()
    gradients, losses = [], []
    for batch in batches:
        losses.append((student(batch.images) - batch.logits).abs().mean())
        gradients.append(torch.cat([g.flatten() for g in torch.autograd.grad(losses[-1], list(student.parameters()))]))
    assert found.cosine == pytest.approx(torch.cosine_similarity(*gradients, dim=0).item())
    assert found.acquisition == pytest.approx(losses[0].item())
    assert found.retention == pytest.approx(losses[1].item())


def test_cosines_of_equal_opposite_and_vanished_gradients() -> None:
    g = [torch.randn(3), torch.randn(2, 2)]
    assert cosine(g, g).item() == pytest.approx(1.0)
    assert cosine(g, [-x for x in g]).item() == pytest.approx(-1.0)
    assert cosine(g, [torch.zeros_like(x) for x in g]).item() == 0.0
    # A parameter that one loss does not touch counts in the other's norm only.
    assert cosine([torch.ones(1), torch.ones(1)], [torch.ones(1), None]).item() == pytest.approx(0.5**0.5)


def test_looking_leaves_nothing_behind(student: nn.Module) -> None:
    student.train()
    student[1].eval()
    before, state = copy.deepcopy(student.state_dict()), torch.get_rng_state()
    with untouched(student):
        student.train()
        student(torch.rand(4, 1, 8, 8))
        torch.rand(3)
    assert [student.training, student[0].training, student[1].training] == [True, True, False]
    assert all(torch.equal(value, student.state_dict()[name]) for name, value in before.items())
    assert torch.equal(torch.get_rng_state(), state)
    student[0].weight.requires_grad_(False)
    with frozen(student):
        assert not any(p.requires_grad for p in student.parameters())
    assert [p.requires_grad for p in student.parameters()] == [False, True, True, True, True]
    with in_mode(student, training=False):
        assert not any(m.training for m in student.modules())
    assert not student[1].training
    assert student[0].training


Run = Callable[..., tuple[dict[str, Tensor], list[dict[str, Any]]]]


@pytest.fixture
def measured_run(make_stream: MakeStream, make_strategy: MakeStrategy, student: nn.Module) -> Run:
    """Train with all measures, or none; gives the student and the records."""

    def run(measuring: bool, test: bool = True, probe_every: int = 1) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
        model, stream = copy.deepcopy(student), make_stream(length=6)
        records: list[dict[str, Any]] = []
        torch.manual_seed(1)
        images, classes = torch.rand(30, 1, 8, 8), torch.arange(30) % 10
        torch.manual_seed(0)
        plugins: list[Any] = [BufferReplay(Ring(2, 4), 4)]
        strategy = make_strategy(model, plugins)
        if measuring:
            objective = strategy.objective
            measures = [
                TestFidelity(stream.teacher),
                ProbeForgetting(stream.synthesizer, stream.teacher, probe_every, 8),
                GradientAlignment(objective, stream.teacher),
                Plasticity(stream.synthesizer, stream.teacher, objective, 8),
                TrainingLosses(),
            ]
            tests = TestExperience(images, classes).origin_stream if test else no_test_stream()
            evaluation = Evaluation(tests, 2, 6, measures, 2, records.append)
            strategy = make_strategy(model, [*plugins, evaluation], evaluation.evaluator)
        strategy.train(stream)
        counts = {
            "queries": torch.tensor(stream.teacher.queries),
            "images": torch.tensor(stream.synthesizer.images_generated),
            "random": torch.get_rng_state(),
        }
        source = {f"source.{name}": value for name, value in stream.synthesizer.generator.state_dict().items()}
        return {**model.state_dict(), **source, **counts}, records

    return run


@pytest.mark.parametrize("test", [True, False])
def test_measuring_leaves_no_trace(measured_run: Run, test: bool) -> None:
    """Weights, generator, random states and counted costs are bit for bit those of a run that measures nothing."""
    without, _ = measured_run(False)
    measured, records = measured_run(True, test)
    assert len(records) == 3
    for name, value in without.items():
        assert torch.equal(value, measured[name]), name


def test_records_say_what_was_measured(measured_run: Run) -> None:
    _, records = measured_run(True)
    assert [r["student_step"] for r in records] == [4, 8, 12]
    assert [r["experience"] for r in records] == [2, 4, 6]
    assert [r["epoch"] for r in records] == [1, 2, 3]
    assert [r["probes"]["birth"] for r in records] == [[4], [4, 8], [4, 8, 12]]
    matrix = AgreementMatrix()
    for record in records:
        matrix.add(record["student_step"], record["probes"]["birth"], record["probes"]["agreement"])
        summary = matrix.summary()
        assert record["forgetting"] == (None if summary is None else summary.average)
        assert -1 <= record["alignment"] <= 1
        assert 0 <= record["accuracy"] <= 100
        assert sum(record["classes"]) == 2 * 16  # of two experiences, the last step's
        assert set(record["losses"]) == {
            "acquisition",
            "retention",
            "acquisition_before",
            "acquisition_after",
            "objective",
        }
        assert record["parts"] == {"distance": record["losses"]["acquisition_after"]}
        assert set(record["synthesis"]) == {"one_hot", "disagreement"}
    curve = evolution([r["accuracy"] for r in records])
    assert records[-1]["accuracy_mean"] == curve.mean
    assert records[-1]["accuracy_variance"] == curve.variance


def test_without_a_test_set_all_but_accuracy_is_measured(measured_run: Run) -> None:
    _, records = measured_run(True, test=False)
    assert {records[-1][key] for key in ("accuracy", "agreement", "loyalty")} == {None}
    assert records[-1]["forgetting"] is not None
    assert records[-1]["alignment"] is not None


def test_probes_are_thinned_and_never_replaced(measured_run: Run) -> None:
    _, records = measured_run(True, probe_every=2)
    assert [r["probes"]["birth"] for r in records] == [[4], [4], [4, 12]]


def test_probes_are_frozen_and_agree_with_the_teacher_by_hand(
    make_stream: MakeStream, make_strategy: MakeStrategy, student: nn.Module
) -> None:
    stream = make_stream(length=2)
    probes = ProbeForgetting(stream.synthesizer, stream.teacher, size=8)
    strategy = make_strategy(student)
    strategy.train(stream)
    first = probes.measure(strategy)
    (probe,) = probes._probes
    student.eval()
    answers = student(probe.images).argmax(dim=1) == stream.teacher.network(probe.images).argmax(dim=1)
    assert first["probes"]["agreement"] == [pytest.approx(100 * answers.double().mean().item())]
    kept = probe.images.clone()
    strategy.train(make_stream(length=1))
    probes.measure(strategy)
    assert torch.equal(probes._probes[0].images, kept)
    assert not torch.equal(probes._probes[1].images, kept)


@pytest.mark.parametrize("method", ["adadfkd", "rgal", "predfkd"])
def test_measuring_costs_no_teacher_queries(method: str) -> None:
    asked = set()
    for every in (1, 4):
        run = experiment(method, f"evaluation.every={every}", replay="memory", experiences=4)
        run.strategy.train(run.stream)
        asked.add(run.stream.teacher.queries)
    assert len(asked) == 1


def test_all_that_is_measured_on_samples_is_measured_on_as_many_as_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    run, sizes = experiment("predfkd", "evaluation={every: 1, probe_size: 6}", experiences=2), []
    synthesizer = run.stream.synthesizer
    peek = synthesizer.peek
    monkeypatch.setattr(synthesizer, "peek", lambda n: sizes.append(n) or peek(n))
    run.strategy.train(run.stream)
    assert len(sizes) == 4, "a probe and fresh samples, twice"
    assert set(sizes) == {6}
