"""Replay plugins: when they store, what they bring, and how it is weighed."""

import io
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from differences import differences
from short_runs import experiment
from torch import Tensor, nn

from lra.benchmarks.errors import UsageError
from lra.benchmarks.setup.experiment import Experiment
from lra.distances import l1
from lra.memory.buffers import Buffer, Reservoir, Ring
from lra.memory.generator import Encoder, MemoryGenerator
from lra.options import MemoryGeneratorOptions
from lra.problem import Batch, Problem, Teacher
from lra.strategies.checkpoint import capture, restore
from lra.strategies.extensions import ExtensionError
from lra.strategies.lra import LRA
from lra.strategies.method import Setup
from lra.strategies.replay import BufferReplay, GenerativeReplay
from lra.strategies.retention import REPLAYS, BufferOptions, GenerativeMemory, MemoryBank, ReservoirReplay
from lra.strategies.strategy import DataFreeDistillation
from lra.strategies.stream import SynthesisStream

MakeStream = Callable[..., SynthesisStream]
MakeStrategy = Callable[..., DataFreeDistillation]


class Pushes(Buffer):
    """Remembers when it was offered what."""

    def __init__(self) -> None:
        super().__init__(1)
        self.offered: list[Tensor] = []

    def add(self, batch: Batch) -> None:
        self.offered.append(batch.images)

    def sample(self, n: int) -> Batch:
        raise AssertionError("nothing was stored")


class Steps:
    """Keeps what each student step worked on."""

    def __init__(self) -> None:
        self.seen: list[tuple[Batch, Batch | None, int, float]] = []

    def before_backward(self, strategy: DataFreeDistillation, **kwargs: object) -> None:
        assert strategy.acquired is not None
        self.seen.append((strategy.acquired, strategy.replayed, len(strategy.mb_x), strategy.loss.item()))


@pytest.fixture
def setup(teacher: Teacher) -> Setup:
    problem = Problem((1, 8, 8), 10, (0.5,), (0.3,))
    return Setup(problem, teacher, l1, batch_size=16, steps=2, experiences=12, experiences_per_epoch=3)


def make_memory(teacher: Teacher, **options: Any) -> MemoryGenerator:
    torch.manual_seed(5)
    generator = nn.Sequential(nn.Linear(6, 64), nn.BatchNorm1d(64), nn.Sigmoid(), nn.Unflatten(1, (1, 8, 8)))
    encoder = Encoder(6, (1, 8, 8), mean=(0.5,), std=(0.5,), width=8)
    return MemoryGenerator(generator, encoder, teacher, 6, MemoryGeneratorOptions(**options))


def test_the_bank_is_filled_at_the_end_of_epochs_0_5_10(setup: Setup) -> None:
    """Every fifth epoch from the first, whatever an epoch's length, as MB-DFKD does."""
    replay = MemoryBank(period=5).build(setup)
    assert isinstance(replay, BufferReplay)
    replay.buffer = pushes = Pushes()
    stored_after = []
    stub = type("Stub", (), {"acquired": Batch(torch.zeros(16, 1, 8, 8), torch.zeros(16, 10))})()
    for experience in range(3 * 12):
        before = len(pushes.offered)
        replay.after_training_exp(stub)
        if len(pushes.offered) > before:
            stored_after.append(experience)
    # Experiences 2, 17, 32 end the epochs 0, 5, 10 of three experiences each.
    assert stored_after == [2, 17, 32]


def test_the_bank_has_the_published_shape(setup: Setup) -> None:
    replay = MemoryBank().build(setup)
    assert isinstance(replay, BufferReplay)
    assert isinstance(replay.buffer, Ring)
    assert (replay.buffer.slots, replay.buffer.slot_size, replay.size) == (10, 2, 2)


def test_a_reservoir_is_offered_every_experience(
    setup: Setup, make_stream: MakeStream, make_strategy: MakeStrategy, student: nn.Module
) -> None:
    replay = ReservoirReplay(capacity=24).build(setup)
    assert isinstance(replay, BufferReplay)
    assert isinstance(replay.buffer, Reservoir)
    make_strategy(student, [replay]).train(make_stream(length=3))
    assert replay.buffer.seen == 48
    assert len(replay.buffer) == 24


@pytest.mark.parametrize("options", [MemoryBank, ReservoirReplay])
@pytest.mark.parametrize("meta", [False, True])
def test_stored_images_can_take_the_place_of_new_ones(
    options: type[BufferOptions],
    meta: bool,
    setup: Setup,
    make_stream: MakeStream,
    make_strategy: MakeStrategy,
    student: nn.Module,
    teacher: Teacher,
) -> None:
    """Of 16, once there are any: the synthesizer makes so many less, and the teacher labels only what is new."""
    replay = options(place="instead", fraction=0.75).build(replace(setup, experiences_per_epoch=1))
    seen: list[tuple[int, int]] = []

    class Look:
        def after_training_iteration(self, strategy: DataFreeDistillation, **kwargs: object) -> None:
            replayed = strategy.replayed
            seen.append((len(strategy.acquired.images), 0 if replayed is None else len(replayed.images)))

    stream, before = make_stream(length=3), teacher.queries
    make_strategy(student, [replay, *([LRA(replay)] if meta else []), Look()]).train(stream)
    steps = len(seen) // 3
    assert seen == [(16, 0)] * steps + [(4, 12)] * (2 * steps)
    spent = teacher.queries - before
    without, before = make_stream(length=3), teacher.queries
    make_strategy(student, []).train(without)
    assert teacher.queries - before - spent == 2 * steps * 12


def test_a_bank_beside_a_pool_that_displaces_nearly_all_new_images_stores_what_there_is() -> None:
    built = experiment("zskd", "replay={share: 1.0, least: 2}", "plugin={use: [memory], fraction: 0.5}", experiences=3)
    (bank,) = (plugin for plugin in built.strategy.plugins if isinstance(plugin, BufferReplay))
    bank.period = 1
    built.strategy.train(built.stream)
    assert len(bank.buffer) == bank.size + 2 + 2


def test_replays_that_would_leave_no_new_images_are_refused(
    setup: Setup, make_strategy: MakeStrategy, student: nn.Module
) -> None:
    half = ReservoirReplay(place="instead", fraction=0.5).build(setup)
    make_strategy(student, [half])
    with pytest.raises(ValueError, match="may replace 16 of the 16 new images of a step and leave none"):
        make_strategy(student, [half, MemoryBank(place="instead", fraction=0.5).build(setup)])


def test_stored_answers_are_the_teachers(
    make_stream: MakeStream, make_strategy: MakeStrategy, student: nn.Module, teacher: Teacher
) -> None:
    replay = BufferReplay(Ring(2, 4), 4)
    steps = Steps()
    make_strategy(student, [replay, steps]).train(make_stream(length=3))
    stored = replay.buffer.read(torch.arange(8))
    torch.testing.assert_close(stored.logits, teacher.network(stored.images))
    # The last experience's offer is the first images of its last step.
    assert torch.equal(stored.images[:4], steps.seen[-1][0].images[:4])


def test_a_joined_minibatch_weighs_new_and_old_by_their_number(
    make_stream: MakeStream, make_strategy: MakeStrategy, teacher: Teacher
) -> None:
    """16 new and 2 replayed images: 8/9 and 1/9. A student without BatchNorm, so that the parts can be told apart."""
    torch.manual_seed(1)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    checked = 0

    class Check:
        def before_backward(self, strategy: DataFreeDistillation, **kwargs: object) -> None:
            nonlocal checked
            if strategy.replayed is None:
                assert len(strategy.mb_x) == 16
                return
            checked += 1
            parts = [strategy.objective(model, part) for part in (strategy.acquired, strategy.replayed)]
            torch.testing.assert_close(strategy.loss.squeeze(), 8 / 9 * parts[0] + 1 / 9 * parts[1])

    make_strategy(model, [BufferReplay(Ring(3, 2), 2), Check()]).train(make_stream(length=3))
    assert checked == 4


def test_what_is_replayed_was_seen_and_is_not_offered_again(
    make_stream: MakeStream, make_strategy: MakeStrategy, student: nn.Module
) -> None:
    replay, steps = BufferReplay(Ring(8, 4), 4), Steps()
    make_strategy(student, [replay, steps]).train(make_stream(length=4))
    new = torch.cat([acquired.images for acquired, *_ in steps.seen])
    assert [replayed is None for _, replayed, *_ in steps.seen] == [True] * 2 + [False] * 6
    assert len(new) == 8 * 16, "what is acquired never holds replayed images"
    for _, replayed, size, _ in steps.seen[2:]:
        assert replayed is not None
        assert size == 20
        assert all((new == image).all(dim=(1, 2, 3)).any() for image in replayed.images)


def test_a_first_experience_without_replay_is_plain(
    make_stream: MakeStream, make_strategy: MakeStrategy, student: nn.Module
) -> None:
    start = {name: value.clone() for name, value in student.state_dict().items()}
    results = []
    for plugins in ([], [BufferReplay(Ring(2, 4), 4)], [BufferReplay(Reservoir(8), 4)]):
        student.load_state_dict(start)
        torch.manual_seed(0)
        make_strategy(student, plugins).train(make_stream(length=1))
        results.append({name: value.clone() for name, value in student.state_dict().items()})
    assert all(torch.equal(value, other[name]) for other in results[1:] for name, value in results[0].items())


@pytest.mark.parametrize("warmup", [0, 1, 2])
def test_generative_replay_starts_after_its_warmup(
    make_stream: MakeStream, make_strategy: MakeStrategy, student: nn.Module, teacher: Teacher, warmup: int
) -> None:
    memory, steps = make_memory(teacher), Steps()
    replay = GenerativeReplay(memory, size=4, updates=1, warmup=warmup)
    make_strategy(student, [replay, steps]).train(make_stream(length=3, steps=2))
    assert [replayed is not None for _, replayed, *_ in steps.seen] == [index // 2 >= warmup for index in range(6)]


def test_the_memory_learns_half_batches_in_the_first_steps_and_rehearses_after_the_first_experience(
    make_stream: MakeStream,
    make_strategy: MakeStrategy,
    student: nn.Module,
    teacher: Teacher,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    memory, taught = make_memory(teacher), []
    monkeypatch.setattr(memory, "update", lambda new, replayed: taught.append((len(new.images), replayed)))
    make_strategy(student, [GenerativeReplay(memory, size=4, updates=3)]).train(make_stream(length=3, steps=5))
    assert taught == [(8, 0)] * 3 + [(8, 4)] * 6


@pytest.mark.parametrize("name", REPLAYS)
def test_every_replay_resumes_from_its_state(
    setup: Setup, make_stream: MakeStream, make_strategy: MakeStrategy, student: nn.Module, name: str
) -> None:
    torch.manual_seed(4)
    options = REPLAYS[name].model_validate({"width": 8, "latent": 6} if name == "generative" else {})
    stream = make_stream(length=4)
    setup = replace(setup, source=stream.synthesizer)
    replay, other = options.build(setup), options.build(setup)
    if replay is None or other is None:
        return
    make_strategy(student, [replay]).train(stream)
    other.load_state_dict(replay.state_dict())
    for each in (replay, other):
        # The pool's images are shown by the source, which a plugin learns of when an experience opens.
        if hasattr(each, "_source"):
            each._source = stream.synthesizer
            each.size = 4
    recalled = []
    for each in (replay, other):
        torch.manual_seed(9)
        recalled.append(each.recall())
    assert recalled[0] is not None
    assert recalled[1] is not None
    assert torch.equal(recalled[0].images, recalled[1].images)
    assert torch.equal(recalled[0].logits, recalled[1].logits)


def test_sizes_are_an_eighth_unless_told(setup: Setup) -> None:
    assert MemoryBank().size(setup) == 2
    assert MemoryBank(fraction=0.5).size(setup) == 8
    assert GenerativeMemory(fraction=0.01).size(setup) == 1, "one image at least"


def test_a_second_replay_brings_its_own_beside_the_first() -> None:
    """``--replay ema --plugin reservoir``: a step sees what both recall, and each knows what it brought."""
    built = experiment("predfkd", "plugin={use: [reservoir], fraction: 0.25}", replay="ema", experiences=3)
    first, second = built.strategy._replays
    built.strategy.train(built.stream)
    seen = built.strategy.replayed
    assert seen is not None
    assert [len(built.strategy.brought_by(each, seen.logits)) for each in (first, second)] == [first.size, second.size]
    assert len(seen.images) == first.size + second.size == built.strategy.train_mb_size * 1.25


def test_two_replays_go_on_from_where_they_were_saved() -> None:
    def build() -> Experiment:
        return experiment("predfkd", "plugin={use: [reservoir], capacity: 24}", replay="ema")

    whole, resumed, saved = build(), build(), io.BytesIO()

    def save() -> None:
        if whole.stream.position == 2:
            torch.save(capture(whole.strategy, whole.stream), saved)

    whole.stream.at_rest = save
    whole.strategy.train(whole.stream)
    saved.seek(0)
    restore(torch.load(saved, weights_only=True), resumed.strategy, resumed.stream)
    resumed.strategy.train(resumed.stream)
    ends = [capture(run.strategy, run.stream) for run in (whole, resumed)]
    assert list(differences(*ends, "run", set())) == []


@pytest.mark.parametrize(
    ("use", "said"),
    [("ema", "is the replay already"), ("none", "returns no Avalanche plugin"), ("memory, slots: 0", "slots = 0")],
)
def test_a_second_replay_that_cannot_be_is_refused(use: str, said: str) -> None:
    names, _, options = use.partition(", ")
    with pytest.raises((UsageError, ExtensionError), match=said):
        experiment("predfkd", f"plugin={{use: [{names}], {options}}}", replay="ema")
