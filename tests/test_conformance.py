"""What every method has to do with every retention choice, in one table.

It learns and its teacher does not; it goes on from where it was stopped as if nothing had been; it keeps no more than
it says; it counts what it asks; and what cannot work is refused. Methods and replays come from their registries: a new
one is in the table by being there.
"""

import copy
import io
import re
from itertools import product
from typing import Any, NamedTuple

import pytest
import torch
from avalanche.core import SupervisedPlugin
from avalanche.training.plugins import ReplayPlugin
from differences import differences
from short_runs import experiment, plain_teacher, small_teacher
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook

from lra.benchmarks.errors import UsageError
from lra.benchmarks.setup.experiment import Experiment
from lra.benchmarks.setup.retaining import forgetful
from lra.networks.normalized import Normalized
from lra.state import State, random_states, seed_everything
from lra.strategies.checkpoint import capture, restore
from lra.strategies.method import OptimisedMethod
from lra.strategies.methods import METHODS
from lra.strategies.replay import BufferReplay, PoolReplay
from lra.strategies.retention import REPLAYS
from lra.strategies.strategy import Replay

STOP, END = 3, 4
"""Experiences before a run is saved, and in all. There is an evaluation after the third."""
SHORT = ["schedule.epochs=6", "evaluation={every: 3, probe_size: 8}"]
AVALANCHE = "avalanche:replay"
CAPACITY = {"memory": 2, "reservoir": 24, "pool": 24, AVALANCHE: 24}
"""Images that a replay may hold, where it has the settings `BOUNDED`; more are made for it."""
BOUNDED = {
    "memory": ["replay.slots=1"],
    "reservoir": ["replay.capacity=24"],
    "pool": ["replay.policy=reservoir", "replay.capacity=24"],
    AVALANCHE: ["plugin={mem_size: 24, batch_size_mem: 2}"],
}
FORMS = {
    "zskt original": ["synthesis.form=original", "synthesis.attention=250", "synthesis.clip=5"],
    "predfkd prioritised": ["replay.priority=0.6"],
    "cmi prioritised": ["replay.priority=0.6"],
    "predfkd useful": ["replay={policy: useful, capacity: 24}"],
    "cmi useful": ["replay={policy: useful, capacity: 24}"],
    "ssd useful": ["replay={policy: useful, capacity: 24}"],
    "dfq confident": ["synthesis.redraws=3"],
    "gdfq confident": ["synthesis.redraws=1"],
    "cpsc released": ["synthesis={logarithm: true, double_softmax: true, student_mode: train, betas: [0.0, 0.0]}"],
    "predfkd averaged": ["student.ema=0.9"],
    "fixed distinct": ["synthesis={family: deadleaves, distinct: 20}"],
}
"""Other forms of a method that have more to remember: with each replay that a form is about, or else with `SOME`."""
SOME = ("none", "memory", "ema")


class Choice(NamedTuple):
    """A row of the table."""

    form: str
    replay: str
    meta: bool

    def __str__(self) -> str:
        return f"{self.form}, {self.replay}{', meta' if self.meta else ''}"

    @property
    def method(self) -> str:
        return self.form.split()[0]

    @property
    def bounded(self) -> bool:
        """Whether its replay is given a capacity: without the LRA step a pool keeps everything."""
        return self.replay in BOUNDED and ((self.replay, self.meta) != ("pool", False) or self.form.endswith("useful"))

    @property
    def retains(self) -> bool:
        """Whether one of our replays is in it."""
        return self.replay in REPLAYS and self.replay != "none"

    def build(self) -> Experiment:
        more = [*(BOUNDED[self.replay] if self.bounded else []), *FORMS.get(self.form, [])]
        if "width" in METHODS[self.method].Options.model_fields:
            more.append("synthesis.width=4")
        return experiment(self.method, *SHORT, *more, replay=self.replay, meta=self.meta)


PRIORITISED = [name for name, options in REPLAYS.items() if "priority" in options.model_fields]
CHOICES = [
    Choice(*row)
    for row in product([*METHODS, *FORMS], [*REPLAYS, AVALANCHE], (False, True))
    if row[0] in METHODS or row[1] in {"prioritised": PRIORITISED, "useful": ["pool"]}.get(row[0].split()[1], SOME)
]
FORGETS = [choice for choice in CHOICES if choice.meta and not choice.retains]
"""The LRA step needs something that replays, and Avalanche's replay tells it nothing."""
RENEWS = [
    choice
    for choice in CHOICES
    if choice.replay == "ema" and (issubclass(METHODS[choice.method], OptimisedMethod) or "distinct" in choice.form)
]
"""There is no generator to average."""
CANNOT = [*FORGETS, *RENEWS]


class Outcome(NamedTuple):
    """What became of a choice."""

    choice: Choice
    whole: Experiment
    """Trained to the end."""
    before: list[Tensor]
    """What is to learn, at its start: the student, and what its objective learns beside it."""
    held: list[int]
    """Images in the replay after each experience."""
    brought: list[int]
    """Images that the experience had for it, likewise."""
    sizes: list[int]
    """Bytes of all that replay and synthesizer remember, likewise."""
    asked: list[tuple[int, int]]
    """Images that the teacher says it was asked about, and that its network answered for, likewise."""
    resumed: Experiment | None
    """Freshly built, taken up where the other was saved, and trained to the end; ``None`` if that cannot be."""
    random: tuple[State, State]
    """Random states at the end of both."""


@pytest.fixture(scope="module", params=[choice for choice in CHOICES if choice not in CANNOT], ids=str)
def ended(request: pytest.FixtureRequest) -> Outcome:
    choice: Choice = request.param
    whole, saved = choice.build(), io.BytesIO()
    strategy, stream = whole.strategy, whole.stream
    before = copy.deepcopy(learning(whole))
    answered = stream.teacher.queries
    found = Outcome(choice, whole, before, [], [], [], [], None, ({}, {}))

    head = list(stream.teacher.network.modules())[-1]

    def count(module: nn.Module, inputs: tuple[Tensor], _: Tensor) -> None:
        nonlocal answered
        whole = isinstance(module, Normalized) and any(part is head for part in module.modules())
        answered += len(inputs[0]) if whole else 0

    def look() -> None:
        batch = stream.synthesizer.batch() or strategy.acquired
        found.held.append(images_in(whole))
        found.brought.append(len(batch.images))
        found.sizes.append(bytes_of([part.state_dict() for part in (stream.synthesizer, *replays(whole, Replay))]))
        found.asked.append((stream.teacher.queries, answered))
        if stream.position == STOP and not forgetful(whole.config):
            torch.save(capture(strategy, stream), saved)

    usual, stream.at_rest, stream.length = stream.at_rest, look, END
    # On all modules, among them the teacher's network with folded BatchNorm, which shares its last layer: a hook on the
    # network itself would make the teacher answer in another way than that of the resumed run.
    hook = register_module_forward_hook(count)
    strategy.train(stream)
    hook.remove()
    stream.at_rest = usual
    final = random_states()
    if not saved.tell():
        return found
    saved.seek(0)
    resumed = choice.build()
    resumed.stream.length = END
    seed_everything(99)
    restore(torch.load(saved, weights_only=True), resumed.strategy, resumed.stream)
    resumed.strategy.train(resumed.stream)
    return found._replace(resumed=resumed, random=(final, random_states()))


def replays(run: Experiment, *kinds: type) -> list[Any]:
    return [plugin for plugin in run.strategy.plugins if isinstance(plugin, kinds)]


def learning(run: Experiment) -> list[Tensor]:
    """The parameters of the student, and of what its objective learns itself: a projection, say."""
    return [*run.strategy.model.parameters(), *run.strategy.objective.parameters()]


def images_in(run: Experiment) -> int:
    """How many images its replay holds."""
    stores = [replay.buffer for replay in replays(run, BufferReplay)]
    stores += [replay.pool for replay in replays(run, PoolReplay)]
    stores += [replay.storage_policy.buffer for replay in replays(run, ReplayPlugin)]
    return sum(map(len, stores))


def bytes_of(state: Any) -> int:
    if isinstance(state, dict):
        state = list(state.values())
    if isinstance(state, list | tuple):
        return sum(map(bytes_of, state))
    return state.nbytes if isinstance(state, Tensor) else 0


def test_it_learns_and_its_teacher_does_not(ended: Outcome) -> None:
    strategy, teacher = ended.whole.strategy, ended.whole.stream.teacher.network
    assert all(value.isfinite().all() for value in strategy.model.state_dict().values())
    assert not any(map(torch.equal, learning(ended.whole), ended.before))
    assert (strategy.replayed is not None) == ended.choice.retains
    untaught = small_teacher().network.state_dict()
    assert all(torch.equal(value, untaught[name]) for name, value in teacher.state_dict().items())
    assert not any(parameter.grad is not None for parameter in teacher.parameters())


def test_it_goes_on_where_it_was_stopped_and_has_forgotten_nothing(ended: Outcome) -> None:
    if ended.resumed is None:
        assert forgetful(ended.whole.config) == [AVALANCHE], "which has no state to go on from"
        return
    whole, resumed = (
        (run.strategy, run.stream, run.evaluation, random)
        for run, random in zip((ended.whole, ended.resumed), ended.random, strict=True)
    )
    assert list(differences(whole, resumed, "run", set())) == []


def test_it_keeps_to_its_memory(ended: Outcome) -> None:
    if ended.choice.bounded:
        assert max(ended.held) == ended.held[-1] == CAPACITY[ended.choice.replay] < sum(ended.brought)
    else:
        everything = sum(ended.brought) if ended.choice.replay == "pool" else 0
        assert ended.held[-1] == everything, "all images, or none"
    if (ended.choice.replay, ended.choice.bounded) != ("pool", False):
        assert ended.sizes[-1] == ended.sizes[STOP - 1], "nothing else grows"


def test_it_counts_what_it_asks(ended: Outcome) -> None:
    counted, answered = ended.asked[STOP - 2]
    assert counted > 0
    # Measures ask uncounted, and have not yet asked; the stages of a network are found with an image of their own.
    assert answered - counted in ((0, 1) if ended.choice.form == "zskt original" else (0,))


@pytest.mark.parametrize("choice", FORGETS, ids=str)
def test_the_lra_step_without_a_replay_is_refused_in_one_line(choice: Choice) -> None:
    with pytest.raises(UsageError, match="--meta") as refusal:
        choice.build()
    assert "\n" not in str(refusal.value)
    assert refusal.value.code == 2


@pytest.mark.parametrize("choice", RENEWS, ids=str)
def test_the_average_of_a_generator_that_is_renewed_is_refused_in_one_line(choice: Choice) -> None:
    with pytest.raises(UsageError, match="replay ema averages a persistent generator") as refusal:
        choice.build()
    assert "\n" not in str(refusal.value)
    assert refusal.value.code == 2


@pytest.mark.parametrize("method", METHODS)
def test_a_teacher_without_batchnorm_will_do_or_is_refused_with_a_remedy(method: str) -> None:
    remedy = []
    if METHODS[method].Options().needs_batchnorm:
        with pytest.raises(
            UsageError, match=rf"method '{method}' .*no BatchNorm.*predfkd, dafl, zskt.*zskd"
        ) as refusal:
            experiment(method, teacher=plain_teacher())
        assert "\n" not in str(refusal.value)
        assert refusal.value.code == 2
        remedy = re.search(r"set (.*?), or a method", str(refusal.value))[1].split(" and ")
    built = experiment(method, *remedy, teacher=plain_teacher(), experiences=1)
    built.strategy.train(built.stream)
    assert all(value.isfinite().all() for value in built.strategy.model.state_dict().values())


@pytest.mark.parametrize("method", [name for name in METHODS if name != "fixed"])
def test_the_triplet_term_joins_any_method_that_learns(method: str) -> None:
    records: list[dict[str, Any]] = []
    built = experiment(method, "synthesis.triplet=0.1", experiences=1, keep=records.append)
    built.strategy.train(built.stream)
    assert "triplet" in records[-1]["synthesis"]
    assert 0 <= records[-1]["synthesis"]["triplet_fallback"]["raw"] <= 1


class Forgetful(SupervisedPlugin):
    """Remembers something that its state does not say."""

    def __init__(self) -> None:
        super().__init__()
        self.module = nn.Linear(2, 2)
        self.count = 0

    def after_training_exp(self, strategy: Any, **kwargs: object) -> None:
        self.count += 1
        nn.init.constant_(self.module.bias, self.count)


def test_what_is_forgotten_is_found() -> None:
    runs = [Choice("predfkd", "memory", False).build() for _ in range(2)]
    for run, length in zip(runs, (END, 1), strict=True):
        run.strategy.plugins.append(Forgetful())
        run.stream.length = length
        run.strategy.train(run.stream)
    found = "\n".join(differences(runs[0].strategy, runs[1].strategy, "run", set()))
    assert f".count: {END} and 1" in found
    assert ".bias" in found
