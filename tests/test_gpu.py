"""What a run on a graphics card waits for: nothing in a step, one look at its numbers in an experience.

A card is pretended where there is none (`pretended_card`), which shows what a program asks of it, and not how fast it
is. The last test asks a real one.
"""

import json
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pretended_card import CARD, Card, OnCard, pretended
from short_runs import experiment

from lra.benchmarks.robustness.unchanged import quick
from lra.benchmarks.runs import machine
from lra.benchmarks.setup.experiment import Experiment
from lra.benchmarks.setup.resolution import resolve, restored
from lra.memory.buffers import reservoir_places
from lra.problem import reduced
from lra.randomness import drawn_on_device, integers, normal, permutation, sent, uniform
from lra.state import untouched
from lra.strategies.divergence import TOGETHER
from lra.strategies.methods import METHODS
from lra.strategies.retention import REPLAYS
from lra.synthesis.batches import BatchSynthesizer, Diverged
from lra.synthesis.online import OnlineGenerator

GUARD, BATCH, TRIPLETS = "strategies/divergence.py", "lra/synthesis/batches.py", "lra/relations.py"
FILTER = ("lra/synthesis/confidence.py", "lra/synthesis/online.py")
"""How often a filter of samples draws depends on answers, which it looks at."""
CASES = [
    *((method, "none", False) for method in METHODS),
    *(("predfkd", replay, meta) for replay in REPLAYS if replay != "none" for meta in (False, True)),
    *(
        (method, METHODS[method].memory, True)
        for method in ("cmi", "fast", "nayer")
        if METHODS[method].memory != "none"
    ),
]
EXPERIENCES, STEADY = 5, 2
"""In all; and those that are watched, when every buffer and optimiser has what it needs."""


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> Card:  # type: ignore[misc]
    with pretended(monkeypatch) as found:
        yield found


def trained(made: Experiment, watch: Callable[[bool], None]) -> int:
    """Train; ``watch`` is told where the steady part begins and ends. Gives its experiences."""
    # Evaluations look at many numbers, and are not what is asked about.
    made.evaluation.every, made.evaluation.length = 10**9, -1
    made.stream.at_rest = lambda: watch(True) if made.stream.position == EXPERIENCES - STEADY else None
    made.strategy.train(made.stream)
    watch(False)
    return STEADY


def expected(made: Experiment, experiences: int, steps: int) -> Counter[str]:
    """How often the host may wait, by file."""
    source = made.stream.synthesizer
    told = Counter({GUARD: experiences})
    if isinstance(source, BatchSynthesizer):
        told[BATCH] = experiences * source.options.rounds
        # RGAL's triplets: how many there are depends on the answers, in synthesis and in student steps.
        if any(term.name == "triplet" and term.weight for term in source.terms):
            told[TRIPLETS] = 2 * experiences * (source.options.rounds * source.options.steps + steps)
    return told


def by_file(waits: Counter[str]) -> Counter[str]:
    found: Counter[str] = Counter()
    for line, count in waits.items():
        found[line.split(":")[0]] += count
    return found


@pytest.mark.parametrize(("method", "replay", "meta"), CASES)
def test_steps_wait_for_nothing(card: Card, method: str, replay: str, meta: bool) -> None:
    """Neither a student step nor one of synthesis: the count is that of experiences, and of batches."""
    steps = 2

    def watch(on: bool) -> None:
        card.watching = on

    made = experiment(
        method,
        f"device={CARD}",
        f"schedule.steps_per_experience={steps}",
        replay=replay,
        meta=meta,
        experiences=EXPERIENCES,
    )
    done = trained(made, watch)
    found = by_file(card.waits)
    if isinstance(made.stream.synthesizer, OnlineGenerator) and made.stream.synthesizer.confident is not None:
        assert all(found.pop(file) for file in FILTER)
    assert found == expected(made, done, steps), dict(card.waits)
    assert all(isinstance(p, OnCard) for p in made.strategy.model.parameters())


@pytest.mark.parametrize(("method", "replay"), [("predfkd", "generative"), ("cmi", "pool")])
def test_a_card_makes_no_difference(monkeypatch: pytest.MonkeyPatch, method: str, replay: str) -> None:
    """Random numbers are those of the host, and an evaluation finds its tensors where it needs them."""

    drawn: list[torch.Tensor] = []

    def ended(device: str) -> tuple[dict[str, object], list[torch.Tensor]]:
        records: list[dict[str, object]] = []
        settings = (f"device={device}", "schedule.steps_per_experience=1")
        made = experiment(method, *settings, replay=replay, experiences=2, keep=records.append)
        made.strategy.train(made.stream)
        drawn.append(torch.get_rng_state())
        return records[-1], [value.detach() for value in made.strategy.model.state_dict().values()]

    record, weights = ended("cpu")
    with pretended(monkeypatch):
        there, held = ended(str(CARD))
    assert torch.equal(*drawn)
    assert there.keys() == record.keys()
    for one, other in zip(weights, held, strict=True):
        assert isinstance(other, OnCard)
        # Kernels round otherwise where a tensor begins elsewhere, and the sign of a difference may turn by that.
        torch.testing.assert_close(other.held, one, atol=0.05, rtol=0.05)


def test_what_the_pretended_card_counts(card: Card) -> None:
    values = torch.arange(6.0).to(CARD)
    card.watching = True
    on_host = torch.tensor([0, 1])
    for ask in (
        lambda: values.sum().item(),
        lambda: bool(values.sum() > 1),
        lambda: float(values[0]),
        lambda: values.cpu(),
        lambda: values.tolist(),
        lambda: values[values > 2],
        lambda: values.nonzero(),
        lambda: values[on_host],
        lambda: on_host.to(CARD),
        lambda: torch.tensor([1.0], device=CARD),
        lambda: torch.equal(values, values),
    ):
        before = sum(card.waits.values())
        ask()
        assert sum(card.waits.values()) > before
    card.waits.clear()
    torch.where(values > 2, values, 0 * values).sum().add_(1)
    sent(on_host, CARD)
    values.index_select(0, sent(on_host, CARD))
    assert not card.waits
    with pytest.raises(RuntimeError, match="on the host"):
        values + torch.ones(6)


@pytest.mark.parametrize("at", [4, 7])
def test_a_bad_number_is_named_with_its_step(card: Card, at: int) -> None:
    """The guard looks late, and knows when it was."""
    made = experiment("predfkd", f"device={CARD}", "schedule.steps_per_experience=4", replay="memory", experiences=3)
    criterion, steps = made.strategy.criterion, made.strategy.clock

    def bad() -> torch.Tensor:
        return criterion() * (torch.nan if steps.train_iterations == at else 1.0)

    made.strategy.criterion = bad
    with pytest.raises(Diverged, match=f"the student's loss is nan at student step {at}$"):
        made.strategy.train(made.stream)
    assert steps.train_iterations <= max(at + TOGETHER, 8)


def test_numbers_drawn_by_the_device(card: Card) -> None:
    """On demand nothing is copied, and what a context drew stays apart from what is drawn outside of it."""
    card.watching = True
    with drawn_on_device():
        drawn = [normal(3, 2, device=CARD), uniform(3, device=CARD), integers(5, 4, device=CARD), permutation(6, CARD)]
    assert not card.waits
    assert all(isinstance(each, OnCard) for each in drawn)
    assert sorted(drawn[3].held.tolist()) == list(range(6))
    card.watching = False
    torch.manual_seed(0)
    first = normal(3, 2, device=CARD)
    torch.manual_seed(0)
    assert torch.equal(first.held, torch.randn(3, 2))


def test_places_of_a_reservoir_are_the_hosts_business(card: Card) -> None:
    card.watching = True
    places, chosen = reservoir_places(10, 8, 12)
    assert not card.waits
    assert type(places) is type(chosen) is torch.Tensor


def test_buffers_are_put_back_after_one_look(card: Card) -> None:
    norm = torch.nn.BatchNorm1d(2).to(CARD)
    before = norm.running_mean.held.clone()  # type: ignore[union-attr]
    card.watching = True
    with untouched(norm):
        norm(torch.ones(4, 2, device=CARD))
        assert not torch.equal(norm.running_mean.held, before)  # type: ignore[union-attr]
    assert torch.equal(norm.running_mean.held, before)  # type: ignore[union-attr]
    assert card.waits.total() == 1


@pytest.mark.parametrize(("method", "replay"), [("predfkd", "generative"), ("cmi", "none")])
def test_a_run_that_draws_on_the_device(card: Card, method: str, replay: str) -> None:
    """Next to nothing is sent to it then, which every step is otherwise."""

    def sent_ahead(where: str) -> int:
        settings = (f"device={CARD}", f"compute.random={where}", "schedule.steps_per_experience=3")
        made = experiment(method, *settings, replay=replay, experiences=EXPERIENCES)
        card.sent.clear()
        trained(made, lambda on: setattr(card, "watching", on))
        return sum(count for line, count in card.sent.items() if line.startswith("lra/"))

    rare = STEADY * 2  # Labels, and rows of a bank: once a batch.
    assert sent_ahead("device") <= rare < STEADY * 3 < sent_ahead("host")


def test_on_a_processor_it_is_all_one_where_numbers_are_drawn() -> None:
    def ended(where: str) -> list[torch.Tensor]:
        made = experiment("cmi", f"compute.random={where}", replay="pool", experiences=2)
        made.strategy.train(made.stream)
        return list(made.strategy.model.state_dict().values())

    assert all(map(torch.equal, ended("host"), ended("device")))


@pytest.mark.parametrize(("method", "meta"), [("predfkd", True), ("cmi", False), ("rgal", False), ("dfq", False)])
def test_synthesis_in_bfloat16(method: str, meta: bool) -> None:
    """Generator, teacher and student pass in it; all that is left behind or compared is in single precision."""
    records: list[dict[str, Any]] = []
    settings = ("compute.precision=bfloat16", "synthesis.steps=2")
    made = experiment(method, *settings, replay="memory", meta=meta, experiences=2, keep=records.append)
    seen: dict[str, set[torch.dtype]] = {"teacher": set(), "generator": set()}
    for name, dtypes in seen.items():
        for layer in made.networks[name].modules():
            if isinstance(layer, torch.nn.Conv2d):
                layer.register_forward_hook(lambda module, given, output, dtypes=dtypes: dtypes.add(output.dtype))
    made.strategy.train(made.stream)
    assert torch.bfloat16 in seen["teacher"]
    assert seen["generator"] >= {torch.bfloat16}
    assert made.strategy.acquired is not None
    for value in (
        *made.strategy.acquired[:2],
        *made.strategy.model.parameters(),
        *made.networks["generator"].parameters(),
    ):
        assert value.dtype == torch.float32
        assert value.isfinite().all()
    assert records[-1]["losses"]["objective"] > 0
    assert made.stream.precision == torch.bfloat16


def test_half_precision_follows_weights_that_are_updated() -> None:
    """Autocast would keep its copies of weights as long as the context lasts, over all steps of an experience."""
    layer = torch.nn.Linear(2, 1, bias=False)
    with reduced(torch.bfloat16, torch.device("cpu")):
        layer.weight.data.fill_(1.0)
        before = layer(torch.ones(1, 2))
        layer.weight.data.fill_(2.0)
        assert (before.dtype, before.item(), layer(torch.ones(1, 2)).item()) == (torch.bfloat16, 2.0, 4.0)


@pytest.mark.parametrize("option", ["student.precision", "compute.precision"])
def test_bfloat16_where_the_hardware_has_none(
    lra_bench: Callable[..., Any], tiny: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, option: str
) -> None:
    monkeypatch.setattr(machine, "has_bfloat16", lambda device: False)
    code, out, err = lra_bench("run", *tiny, "--set", f"{option}=bfloat16", "--out", tmp_path)
    assert (code, out) == (2, "")
    assert err.splitlines()[-1] == (
        f"lra-bench: {option} = 'bfloat16': cpu has no bfloat16; leave it out, or use another device"
    )


@pytest.mark.parametrize(
    ("told", "slow"),
    [
        ({"avx512_bf16": False, "amx_bf16": False, "avx2": True}, True),
        ({"avx512_bf16": True, "amx_bf16": False}, False),
        ({"avx512_bf16": False, "amx_bf16": False, "avx_ne_convert": True}, False),
        ({"neon": True}, False),  # Nothing is known of bfloat16.
        (None, False),  # Nor by earlier versions of torch.
    ],
)
def test_whether_a_processor_is_known_to_lack_instructions_for_bfloat16(
    monkeypatch: pytest.MonkeyPatch, told: dict[str, bool] | None, slow: bool
) -> None:
    if told is None:
        monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    else:
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: told, raising=False)
    assert machine.emulates_bfloat16() is slow


def test_a_processor_that_only_emulates_bfloat16_is_told_of_once_and_the_work_is_done(
    lra_bench: Callable[..., Any], tiny: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    note = "compute.precision = 'bfloat16': this processor has no instructions for it, float32 takes less time"
    for slow in (True, False):
        monkeypatch.setattr(machine, "emulates_bfloat16", lambda slow=slow: slow)
        for asked, said in (("bfloat16", slow), ("float32", False)):
            code, _, err = lra_bench("run", "--dry-run", "--no-timing", "--set", f"compute.precision={asked}")
            assert (code, err.splitlines().count(note)) == (0, said)
    monkeypatch.setattr(machine, "emulates_bfloat16", lambda: True)
    code, _, err = lra_bench("run", *tiny, "--set", "compute.precision=bfloat16", "--out", tmp_path)
    assert (code, err.splitlines().count(note)) == (0, 1)
    grid = tmp_path / "grid.yaml"
    settings = {"compute.precision": "bfloat16", "data.size": 8, "teacher.epochs": 3}
    grid.write_text(json.dumps({"teacher": "mlp", "student": "mlp", "seed": [0, 1], "steps": 4, "set": settings}))
    code, _, err = lra_bench("sweep", grid, "--dry-run", "--out", tmp_path / "sweep")
    assert (code, err.splitlines().count(note)) == (0, 1)


def test_how_it_is_computed_is_part_of_the_configuration() -> None:
    """Said, it is stored and makes another run; unsaid, configurations and hashes are those of before."""
    plain, half = (resolve([quick("dafl", "none", False), layer]) for layer in ({}, {"compute": {"random": "device"}}))
    assert "compute" not in plain.tree()
    assert half.tree()["compute"] == {"precision": "float32", "random": "device"}
    assert plain.provisional != half.provisional
    assert restored(half.tree()) == half


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize(("method", "replay", "meta"), CASES)
def test_steps_wait_for_nothing_by_pytorchs_own_count(method: str, replay: str, meta: bool) -> None:
    """PyTorch warns wherever the host waits for the GPU: once an experience, and a batch, and no more."""
    made = experiment(method, "device=cuda:0", replay=replay, meta=meta, experiences=EXPERIENCES)
    steps = made.config.schedule.steps_per_experience
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            done = trained(made, lambda on: torch.cuda.set_sync_debug_mode("warn" if on else "default"))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    waits = [f"{each.filename}:{each.lineno}" for each in caught if "synchroniz" in str(each.message)]
    assert len(waits) <= sum(expected(made, done, steps).values()), Counter(waits)
