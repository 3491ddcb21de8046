"""What is declared of quantities holds wherever they stand."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from lra.benchmarks.commands.summary import table
from lra.benchmarks.comparison.compare import measured
from lra.benchmarks.errors import UsageError
from lra.benchmarks.records import read_run
from lra.benchmarks.reports.report import write_report
from lra.benchmarks.text import number_text, quantity_text
from lra.distances import l1
from lra.distillation.objective import Objective
from lra.metrics.quantities import COMPARED, FOLLOWED, ON_CARDS, QUANTITIES, TILES, Quantity, at, quantities
from lra.strategies.evaluation import Evaluation, Measure, Record
from lra.strategies.metrics import standard
from lra.strategies.stream import TestExperience

ELSEWHERE = ("cost", "teacher")
"""Sections of ``result.json`` that no measure writes."""


class WeightNorm(Measure):
    """A user's own measure, of a quantity of its own."""

    gives = (Quantity("weight_norm", "weights.norm", "weight norm", record="norm", mean_of_records=True),)

    def measure(self, strategy: Any) -> Record:
        return {"norm": sum(float(p.detach().square().sum()) for p in strategy.model.parameters()) ** 0.5}


@pytest.fixture
def evaluated(make_stream: Any, make_strategy: Any, student: nn.Module) -> tuple[Evaluation, list[Record]]:
    """A run of three evaluations, and its records."""
    stream, records = make_stream(length=6), []
    tests = TestExperience(torch.rand(30, 1, 8, 8), torch.arange(30) % 10).origin_stream
    measures = [*standard(stream, Objective(l1), probe_size=8), WeightNorm()]
    evaluation = Evaluation(tests, 2, 6, measures, 2, records.append)
    make_strategy(student, [evaluation], evaluation.evaluator).train(stream)
    return evaluation, records


def test_a_measure_gives_what_it_declares_and_no_other_does(evaluated: tuple[Evaluation, list[Record]]) -> None:
    evaluation, records = evaluated
    result = evaluation.outcome(records)
    given = [quantity for measure in evaluation.measures for quantity in measure.gives]
    assert len(given) == len(set(given))
    for quantity in given:
        section, _, key = quantity.path.rpartition(".")
        assert key in (at(result, section) if section else result), quantity
        assert all(
            at(record, quantity.record) is not None or quantity.name in ("forgetting", "bwt", "alignment")
            for record in records
            if quantity.record
        ), quantity
    ours = {q for q in QUANTITIES.values() if q.path.partition(".")[0] not in ELSEWHERE and q.usual}
    assert ours <= set(given)


def test_a_users_quantity_is_in_records_and_result(evaluated: tuple[Evaluation, list[Record]]) -> None:
    evaluation, records = evaluated
    norms = [record["norm"] for record in records]
    assert evaluation.outcome(records)["weights"]["norm"] == pytest.approx(sum(norms) / 3)


@pytest.mark.parametrize("names", [COMPARED, FOLLOWED, ON_CARDS, TILES])
def test_what_is_shown_unasked_is_declared(names: tuple[str, ...]) -> None:
    assert quantities(*names)


def _result(**changed: Any) -> dict[str, Any]:
    return {
        "method": "gdfq",
        "replay": "none",
        "meta": False,
        "seed": 0,
        "dataset": "digits",
        "status": "finished",
        "teacher": {"name": "mlp", "accuracy": None},
        "student": {"name": "mlp", "parameters": 5},
        "accuracy": None,
        "agreement": None,
        "loyalty": None,
        "forgetting": {"average": 1.0, "maximum": 2.0, "bwt": -1.0},
        "alignment": {"mean": None},
        "cost": {"student_steps": 1000, "experiences": 2, "teacher_queries": 3, "seconds": 4.0, "peak_memory_mb": 5.0},
    } | changed


@pytest.mark.parametrize("name", ["gained", "post_training"])
@pytest.mark.parametrize(
    ("changed", "why"),
    [({}, "a quantised student"), ({"quantization": {"bits_per_weight": 4.5, "post_training": None}}, "a test set")],
)
def test_what_a_quantised_student_gains_needs_a_test_set(
    tmp_path: Path, name: str, changed: dict[str, Any], why: str
) -> None:
    (tmp_path / "result.json").write_text(json.dumps(_result(**changed)))
    with pytest.raises(UsageError, match=f"it needs {why}"):
        measured({name: QUANTITIES[name]}, [read_run(tmp_path)], asked=True)


def test_a_new_quantity_is_shown_everywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Declared, and among those that a comparison shows: nothing else has to know of it."""
    new = Quantity("entropy", "entropy", "entropy", "bits", better=1, meaning="how undecided the student is")
    monkeypatch.setitem(QUANTITIES, "entropy", new)
    monkeypatch.setattr("lra.benchmarks.commands.summary.COMPARED", (*COMPARED, "entropy"))
    (tmp_path / "result.json").write_text(json.dumps(_result(entropy=1.25)))
    run = read_run(tmp_path)
    kept, _ = measured({"entropy": new}, [run], asked=True)
    assert list(kept) == ["entropy"]
    assert "entropy     1.25 bits" in table(run.result, tmp_path)
    row = '<tr><th>entropy</th><td class="n">1.25 bits</td><td>how undecided the student is</td></tr>'
    assert row in write_report(tmp_path).read_text()


def test_numbers_are_written_one_way() -> None:
    assert [number_text(value, 1) for value in (1234.56, -2, 0.04, -0.04, None, True, "x", float("nan"))] == [
        *("1,234.6", "−2.0", "0.0", "0.0", "—", "—", "—", "—"),
    ]
    assert number_text(0.04, 1, "+") == "0.0"
    assert quantity_text(QUANTITIES["bwt"], 3) == "+3.00 points"
    assert quantity_text(QUANTITIES["agreement"], None, "not measured") == "not measured"
