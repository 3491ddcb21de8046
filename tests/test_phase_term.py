"""A stream that dwells on a few classes at a time."""

import pytest
import torch
from torch import nn

from lra.problem import Teacher
from lra.synthesis.terms import ClassPhases
from lra.view import View


@pytest.fixture
def view() -> View:
    torch.manual_seed(0)
    teacher = Teacher(nn.Sequential(nn.Flatten(), nn.Linear(4, 5)).double())
    return View(torch.rand(6, 1, 2, 2, dtype=torch.float64, requires_grad=True), teacher)


def test_classes_take_turns_cyclically() -> None:
    term = ClassPhases(1.0, classes=5, per_phase=2, length=3)
    seen = []
    for _ in range(9):
        seen.append(term.present().tolist())
        term.settle()
    assert seen == [[0, 1]] * 3 + [[2, 3]] * 3 + [[4, 0]] * 3


def test_value_is_minus_log_of_the_mass_on_present_classes(view: View) -> None:
    term = ClassPhases(1.0, classes=5, per_phase=2, length=1)
    mass = view.teacher_logits.softmax(dim=1)[:, :2].sum(dim=1)
    torch.testing.assert_close(term(view), -mass.log().mean())


def test_all_classes_at_once_ask_for_nothing(view: View) -> None:
    value = ClassPhases(1.0, classes=5, per_phase=5, length=1)(view)
    torch.testing.assert_close(value, torch.zeros((), dtype=torch.float64))


def test_the_count_survives_a_checkpoint() -> None:
    term = ClassPhases(1.0, 5, 2, 1)
    term.settle()
    other = ClassPhases(1.0, 5, 2, 1)
    other.load_state_dict(term.state_dict())
    assert other.present().tolist() == [2, 3]


@pytest.mark.parametrize(("per_phase", "length"), [(0, 1), (6, 1), (2, 0)])
def test_phases_that_cannot_be(per_phase: int, length: int) -> None:
    with pytest.raises(ValueError, match="phases of"):
        ClassPhases(1.0, 5, per_phase, length)
