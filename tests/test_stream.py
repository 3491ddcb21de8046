"""The stream: lazy, closed-loop, one pass, O(1) per experience, and at home in Avalanche."""

import gc
import io
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from avalanche.evaluation.metrics import accuracy_metrics, forgetting_metrics, loss_metrics, timing_metrics
from avalanche.logging import CSVLogger, InteractiveLogger, TensorboardLogger, TextLogger
from avalanche.training.plugins import EvaluationPlugin, EWCPlugin, MASPlugin, ReplayPlugin, SynapticIntelligencePlugin
from avalanche.training.storage_policy import ReservoirSamplingBuffer
from torch import nn

from lra.strategies.strategy import DataFreeDistillation
from lra.strategies.stream import SynthesisStream, TestExperience

MakeStream = Callable[..., SynthesisStream]
MakeStrategy = Callable[..., DataFreeDistillation]


def test_nothing_is_made_before_it_is_asked_for(make_stream: MakeStream, student: nn.Module) -> None:
    stream = make_stream(length=3)
    stream.student = student
    walk = iter(stream)
    assert stream.synthesizer.generator_steps == 0
    experience = next(walk)
    assert stream.synthesizer.generator_steps == 1
    assert stream.synthesizer.images_generated == 16, "only the update's own batch"
    experience.draw(5)
    assert stream.synthesizer.images_generated == 21


def test_every_update_works_against_the_student_as_it_stands(make_stream: MakeStream, student: nn.Module) -> None:
    """Two walks that differ only in what the student became after the first experience part ways there."""
    images = []
    for change in (0.0, 0.5):
        stream = make_stream(length=2)
        stream.student = student
        torch.manual_seed(0)
        seen = []
        for experience in stream:
            seen.append(experience.draw(8).images)
            with torch.no_grad():
                for parameter in student.parameters():
                    parameter.add_(change)
        images.append(seen)
    assert torch.equal(images[0][0], images[1][0])
    assert not torch.equal(images[0][1], images[1][1])


def test_the_strategy_hands_its_student_to_the_stream(
    make_stream: MakeStream, make_strategy: MakeStrategy, student: nn.Module
) -> None:
    stream = make_stream()
    with pytest.raises(ValueError, match="no student"):
        next(iter(stream))
    make_strategy(student).train(stream)
    assert stream.student is student


def test_past_experiences_are_not_kept(
    make_stream: MakeStream, make_strategy: MakeStrategy, student: nn.Module
) -> None:
    alive: list[weakref.ref[Any]] = []
    most = 0

    class Watch:
        def before_training_exp(self, strategy: DataFreeDistillation, **kwargs: object) -> None:
            nonlocal most
            alive.append(weakref.ref(strategy.experience))
            gc.collect()
            most = max(most, sum(ref() is not None for ref in alive))

    stream = make_stream(length=8)
    gc.freeze()  # What is there already need not be walked each time.
    try:
        make_strategy(student, [Watch()]).train(stream)
        gc.collect()
    finally:
        gc.unfreeze()
    assert len(alive) == 8
    assert most == 1
    assert not any(ref() is not None for ref in alive)


def test_a_stream_is_walked_once_and_goes_on_from_its_position(make_stream: MakeStream, student: nn.Module) -> None:
    stream = make_stream(length=5)
    stream.student = student
    walk = iter(stream)
    first = [next(walk).current_experience for _ in range(2)]
    # The second experience was left unfinished: it is the one to begin again with.
    assert first == [0, 1]
    assert [e.current_experience for e in stream] == [1, 2, 3, 4]
    assert list(stream) == []
    assert stream.position == 5


def test_the_last_experience_may_be_shorter(
    make_stream: MakeStream, make_strategy: MakeStrategy, student: nn.Module
) -> None:
    strategy = make_strategy(student)
    strategy.train(make_stream(length=3, steps=4, last_steps=1))
    assert strategy.clock.train_iterations == 9
    assert strategy.clock.train_exp_counter == 3


def test_batches_carry_the_teachers_logits_and_queries_are_counted(make_stream: MakeStream, student: nn.Module) -> None:
    stream = make_stream()
    stream.student = student
    experience = next(iter(stream))
    before = stream.teacher.queries
    images, logits, *_ = experience.draw(7)
    assert stream.teacher.queries == before + 7
    assert torch.equal(logits, stream.teacher.network(images))
    assert not images.requires_grad
    assert not logits.requires_grad


def test_a_dataset_is_drawn_once_on_demand_and_shared_by_views(make_stream: MakeStream, student: nn.Module) -> None:
    stream = make_stream(steps=2, batch_size=16)
    stream.student = student
    experience = next(iter(stream))
    before = stream.synthesizer.images_generated
    dataset = experience.logging().dataset
    assert experience.dataset is dataset
    assert stream.synthesizer.images_generated == before + 32
    image, logits, task = dataset[3]
    assert image.shape == (1, 8, 8)
    assert task == 0
    assert int(logits.argmax()) == dataset.targets[3]


def test_avalanches_evaluator_metrics_and_loggers_work(
    make_stream: MakeStream, make_strategy: MakeStrategy, student: nn.Module, tmp_path: Path
) -> None:
    text = io.StringIO()
    loggers = [
        TextLogger(text),
        InteractiveLogger(),
        CSVLogger(str(tmp_path / "csv")),
        TensorboardLogger(str(tmp_path / "board")),
    ]
    metrics = [
        *accuracy_metrics(minibatch=True, epoch=True, experience=True, stream=True),
        *loss_metrics(epoch=True, stream=True),
        *forgetting_metrics(experience=True, stream=True),
        *timing_metrics(epoch=True),
    ]
    strategy = make_strategy(student, evaluator=EvaluationPlugin(*metrics, loggers=loggers))
    strategy.train(make_stream())
    test = TestExperience(torch.rand(20, 1, 8, 8), torch.arange(20) % 10)
    found = strategy.eval(test.origin_stream)
    answers = student(test.tensors[0]).argmax(dim=1)
    expected = (answers == test.tensors[1]).double().mean().item()
    (accuracy,) = [value for name, value in found.items() if name.startswith("Top1_Acc_Stream/eval_phase")]
    assert accuracy == pytest.approx(expected)
    assert "Top1_Acc" in text.getvalue()
    assert list((tmp_path / "board").glob("events*"))
    assert len((tmp_path / "csv" / "training_results.csv").read_text().splitlines()) > 3


@pytest.mark.parametrize("stock_data", [False, True])
@pytest.mark.parametrize(
    "plugin",
    [
        lambda: EWCPlugin(ewc_lambda=100.0, mode="online", decay_factor=0.5),
        lambda: MASPlugin(lambda_reg=100.0),
        # Alone of the three it does nothing on the CPU: Avalanche lets its old weights be views of the live ones.
        lambda: SynapticIntelligencePlugin(si_lambda=1.0),
    ],
    ids=["ewc", "mas", "si"],
)
def test_avalanches_regularisers_run_on_the_stream(
    make_stream: MakeStream,
    make_strategy: MakeStrategy,
    student: nn.Module,
    plugin: Callable[[], Any],
    stock_data: bool,
) -> None:
    start = {name: value.clone() for name, value in student.state_dict().items()}
    weights = []
    for plugins in ([], [plugin()]):
        student.load_state_dict(start)
        torch.manual_seed(0)
        make_strategy(student, plugins, stock_data=stock_data).train(make_stream())
        weights.append(torch.cat([p.detach().flatten() for p in student.parameters()]))
    assert torch.isfinite(weights[1]).all()
    if not isinstance(plugins[0], SynapticIntelligencePlugin):
        assert not torch.equal(*weights)


def test_a_plugin_that_leaves_the_student_in_evaluation_mode_does_no_harm(
    make_stream: MakeStream, make_strategy: MakeStrategy, student: nn.Module
) -> None:
    modes: list[bool] = []

    class Careless:
        def before_forward(self, strategy: DataFreeDistillation, **kwargs: object) -> None:
            modes.append(strategy.model.training)

        def after_training_exp(self, strategy: DataFreeDistillation, **kwargs: object) -> None:
            strategy.model.eval()

    make_strategy(student, [Careless()]).train(make_stream(length=3, steps=1))
    assert modes == [True, True, True]


def test_avalanches_replay_works_on_stock_data(
    make_stream: MakeStream, make_strategy: MakeStrategy, student: nn.Module
) -> None:
    sizes = []

    class Sizes:
        def before_forward(self, strategy: DataFreeDistillation, **kwargs: object) -> None:
            sizes.append(len(strategy.mb_x))

    policy = ReservoirSamplingBuffer(max_size=24)
    replay = ReplayPlugin(mem_size=24, batch_size=16, batch_size_mem=4, storage_policy=policy)
    make_strategy(student, [replay, Sizes()], stock_data=True).train(make_stream(length=3, steps=2))
    assert sizes == [16, 16, 20, 20, 20, 20]
    assert len(policy.buffer) == 24
