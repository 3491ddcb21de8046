"""Generators carried from task to task: what learns at which rate, what is kept, what is refused."""

import copy

import pytest
import torch
from torch import nn

from lra.networks.composed import FusedGenerator
from lra.networks.generators import gen_s, memory_generator
from lra.problem import Teacher
from lra.synthesis.sources import ReusableSource, symmetric
from lra.synthesis.sources.lasting import RATES, calmer
from lra.synthesis.synthesizer import load_reused

IMAGE = (1, 8, 8)


def fused(latent: int = 6, image: tuple[int, int, int] = IMAGE) -> FusedGenerator:
    return FusedGenerator(gen_s(latent, image, width=8), gen_s(latent, image, width=8))


def teacher() -> Teacher:
    torch.manual_seed(9)
    return Teacher(nn.Sequential(nn.Flatten(), nn.Linear(64, 12), nn.ReLU(), nn.Linear(12, 4)))


def source(reuse: str = "anew", seed: int = 0, **options) -> ReusableSource:
    torch.manual_seed(seed)
    return ReusableSource(fused(), teacher(), 0.01, 0.02, 3, reuse, **options)


def one_batch(made: ReusableSource) -> None:
    made.begin(torch.zeros(8, dtype=torch.long))
    for _ in range(3):
        made.update((made.images() - 0.3).square().sum())
    made.end()


def parts(generator: FusedGenerator) -> dict[str, nn.Module]:
    return {"first": generator.first, "second": generator.second, "decoder": generator.decoder}


@pytest.mark.parametrize("reuse", RATES)
def test_each_part_learns_at_its_rate_inside_and_outside(reuse: str) -> None:
    made = source(reuse)
    made.begin(torch.zeros(4, dtype=torch.long))
    learning = [rate for rate in RATES[reuse] if rate]
    inner = [group["lr"] for group in made._optimiser.param_groups]
    assert inner == pytest.approx([0.01 * rate for rate in learning] + [0.02])
    assert [group["lr"] for group in made.outer.param_groups] == pytest.approx([0.03 * rate for rate in learning])


@pytest.mark.parametrize("reuse", RATES)
def test_what_is_fixed_stays_and_the_rest_moves(reuse: str) -> None:
    made = source(reuse)
    before = {name: [p.clone() for p in part.parameters()] for name, part in parts(made.generator).items()}
    one_batch(made)
    for (name, part), rate in zip(parts(made.generator).items(), RATES[reuse], strict=True):
        same = all(torch.equal(a, b) for a, b in zip(before[name], part.parameters(), strict=True))
        assert same == (rate == 0), name


def test_reused_parts_move_a_tenth_as_far_as_adam_would_move_them_in_its_first_step() -> None:
    moved = {}
    for reuse in ("common", "finetune"):
        made = source(reuse)
        made.begin_with(fused().state_dict() if reuse == "none" else source(seed=5).generator.state_dict())
        before = made.generator.decoder[0].weight.detach().clone()
        # One inner step: its gradient is the same in both modes, and Adam's first step is lr · sign(gradient).
        made.begin(torch.zeros(8, dtype=torch.long))
        made.update((made.images() - 0.3).square().sum())
        made.end()
        moved[reuse] = (made.generator.decoder[0].weight.detach() - before).abs().mean().item()
    assert moved["finetune"] == pytest.approx(moved["common"] / 10, rel=1e-2)


def test_the_branches_are_independent_by_default_and_equal_for_ever_as_released() -> None:
    for generator, equal in ((fused(), False), (symmetric(fused()), True)):
        made = ReusableSource(generator, teacher(), 0.01, 0.02, 3)
        one_batch(made)
        pairs = zip(made.generator.first.parameters(), made.generator.second.parameters(), strict=True)
        assert all(torch.allclose(a, b, atol=1e-6) for a, b in pairs) == equal


@pytest.mark.parametrize("follow", [True, False])
def test_a_saved_generator_works_in_evaluation_mode_only_if_its_statistics_follow(follow: bool) -> None:
    made = source(follow=follow)
    with torch.no_grad():
        made.generator.first.linear.weight.mul_(20)
    for _ in range(20):
        one_batch(made)
    torch.manual_seed(1)
    latents = torch.randn(256, 6)
    with torch.no_grad():
        by_batch = made.generator.train()(latents)
        counted = made.generator.first.norm.num_batches_tracked.item()
        by_running = made.generator.eval()(latents)
    assert (counted > 1) == follow
    assert ((by_batch - by_running).abs().mean().item() < 0.1) == follow


def test_a_later_task_takes_the_second_branch_and_the_decoder_of_a_reused_generator() -> None:
    early, late = source(seed=1), source("fix", seed=2)
    one_batch(early)
    first = copy.deepcopy(late.generator.first.state_dict())
    kept = early.generator_to_reuse()
    assert late.awaits_generator
    late.begin_with(kept.state_dict())
    assert not late.awaits_generator
    for name in ("second", "decoder"):
        found, wanted = (getattr(g, name).state_dict() for g in (late.generator, kept))
        assert all(torch.equal(found[key], wanted[key]) for key in wanted)
    assert all(torch.equal(first[key], late.generator.first.state_dict()[key]) for key in first)


def test_a_generator_to_reuse_makes_the_same_images_whichever_branch_comes_second() -> None:
    latents = torch.randn(4, 6)
    for branch in ("features", "first"):
        made = source(branch=branch)
        one_batch(made)
        kept = made.generator_to_reuse().eval()
        assert torch.allclose(kept(latents), made.generator.eval()(latents), atol=1e-6)
    assert kept.second is made.generator.first


def test_the_branch_that_moves_the_teacher_less_is_kept_and_looking_leaves_no_trace() -> None:
    made = source()
    with torch.no_grad():
        # A decoder that passes on; a branch that is black beside one that is white.
        made.generator.decoder = nn.Identity()
        for branch, level in ((made.generator.first, -20.0), (made.generator.second, 20.0)):
            branch.last.weight.zero_()
            branch.last.bias.fill_(level)
    plain = Teacher(nn.Sequential(nn.Flatten(), nn.Linear(64, 4)))
    state, buffers = torch.get_rng_state(), copy.deepcopy(made.generator.state_dict())
    assert calmer(made.generator, plain) == "first"
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(buffers[key], value) for key, value in made.generator.state_dict().items())
    made.teacher = plain
    assert made.generator_to_reuse().second is made.generator.first
    assert plain.queries == 0


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (lambda: {k: v for k, v in fused().state_dict().items() if not k.startswith("decoder")}, "no 'decoder' part"),
        (lambda: gen_s(6, IMAGE, width=8).state_dict(), "no 'second' part"),
        (lambda: fused(latent=7).state_dict(), "linear.weight is"),
        (lambda: fused(image=(1, 16, 16)).state_dict(), "linear"),
    ],
)
def test_a_generator_that_does_not_fit_is_refused(weights, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        source("common").begin_with(weights())


def test_anew_takes_nothing() -> None:
    with pytest.raises(ValueError, match="anew"):
        source().begin_with(fused().state_dict())


def test_a_warm_start_keeps_this_tasks_normalisation() -> None:
    old = memory_generator(6, IMAGE, mean=[0.2], std=[0.1], width=8)
    new = memory_generator(6, IMAGE, mean=[0.6], std=[0.3], width=8)
    load_reused(new, old.state_dict())
    assert torch.equal(new.linear.weight, old.linear.weight)
    assert new.head[2].mean.item() == pytest.approx(0.6)
    assert new.head[2].std.item() == pytest.approx(0.3)
