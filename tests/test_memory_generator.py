"""The generative memory: what one update minimises, how far latents move, and what leaks where."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lra.memory.generator import Encoder, MemoryGenerator
from lra.options import MemoryGeneratorOptions
from lra.problem import Batch, Teacher
from lra.synthesis.terms import total
from lra.view import View

pytestmark = pytest.mark.kernels

Make = Callable[..., MemoryGenerator]


@pytest.fixture
def make(teacher: Teacher, double: None) -> Make:
    """Build the same memory each time, in float64."""
    teacher.double()

    def build(**options: Any) -> MemoryGenerator:
        torch.manual_seed(5)
        generator = nn.Sequential(nn.Linear(6, 64), nn.BatchNorm1d(64), nn.Sigmoid(), nn.Unflatten(1, (1, 8, 8)))
        encoder = Encoder(6, (1, 8, 8), mean=(0.5,), std=(0.5,), width=8)
        return MemoryGenerator(generator, encoder, teacher, 6, MemoryGeneratorOptions(**options))

    return build


def new_batch(teacher: Teacher, n: int = 8) -> Batch:
    images = torch.rand(n, 1, 8, 8)
    return Batch(images, teacher.label(images))


def gradients(module: nn.Module) -> list[Tensor]:
    return [parameter.grad.clone() for parameter in module.parameters() if parameter.grad is not None]


def latents_seen(memory: MemoryGenerator) -> list[Tensor]:
    seen: list[Tensor] = []
    memory.generator.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].detach().clone()))
    return seen


@pytest.mark.parametrize("steps", [0, 1, 3])
@pytest.mark.parametrize("leak", [False, True])
def test_tuning_moves_each_latent_by_at_most_the_rate_per_step(make: Make, steps: int, leak: bool) -> None:
    memory = make(latent_lr=0.05, latent_steps=steps, leak_latent_grad=leak)
    seen = latents_seen(memory)
    torch.manual_seed(0)
    memory.sample(8)
    torch.manual_seed(0)
    assert torch.equal(seen[0], torch.randn(8, 6)), "tuning starts from the prior"
    moved = (seen[-1] - seen[0]).abs()
    assert len(seen) == steps + 1
    # Adam's first step is one of the sign; later ones are at most (1 - β₁)/√(1 - β₂) as long (Kingma & Ba, 2.1).
    assert float(moved.max()) <= 0.05 * (steps if steps < 2 else 1 + 3.17 * (steps - 1)) * (1 + 1e-6)
    if steps == 1:
        assert float(moved.min()) == pytest.approx(0.05, rel=1e-3)


def test_tuning_lowers_its_loss(make: Make) -> None:
    losses = []
    for steps in (0, 25):
        memory = make(latent_lr=0.02, latent_steps=steps)
        seen = latents_seen(memory)
        torch.manual_seed(0)
        memory.sample(16)
        losses.append(memory._latent_loss(seen[-1]).item())
    assert losses[1] < losses[0]


def test_remembered_samples_carry_the_teachers_logits(make: Make) -> None:
    memory = make()
    queries = memory.teacher.queries
    batch = memory.sample(5)
    assert torch.equal(batch.logits, memory.teacher.network(batch.images))
    assert not batch.images.requires_grad
    assert memory.teacher.queries == queries + 10, "five to tune the latents, five for the answers"


def test_sampling_leaves_the_memory_as_it_is(make: Make) -> None:
    memory = make()
    before = copy.deepcopy(memory.generator.state_dict())
    memory.sample(8)
    assert all(torch.equal(value, memory.generator.state_dict()[name]) for name, value in before.items())
    assert gradients(memory.generator) == []


def clean_gradient(memory: MemoryGenerator, new: Batch, replayed: int) -> tuple[list[Tensor], list[Tensor]]:
    """By hand: gradients on M of the reconstruction loss and, apart from it, of the latents' loss."""
    memory.generator.train()
    memory.encoder.train()
    parameters = list(memory.generator.parameters())
    # Tuned on a copy; M's statistics move as they do there.
    latents = torch.randn(replayed, 6, requires_grad=True)
    loss, _ = total(memory.terms, View(memory.generator(latents), memory.teacher))
    loss = loss + ((latents.var(dim=0) - 1) ** 2).mean() + (latents.mean(dim=0) ** 2).mean()
    gradient, *leaked = torch.autograd.grad(loss, [latents, *parameters])
    tuned = (latents - memory.options.latent_lr * gradient / (gradient.abs() + 1e-8)).detach()
    with torch.no_grad():
        remembered = memory.generator(tuned)
    target = torch.cat([new.images, remembered])
    answers = torch.cat([new.logits, memory.teacher.label(remembered)])
    mu, log_variance = _encoded(memory.encoder, target)
    z = mu + torch.randn_like(mu) * (log_variance / 2).exp()
    images = memory.generator(z)
    divergence = -0.5 * (1 + log_variance - mu**2 - log_variance.exp()).sum(dim=1).mean()
    loss = F.l1_loss(images, target) + F.l1_loss(memory.teacher(images), answers) + 1e-5 * divergence
    return list(torch.autograd.grad(loss, parameters)), leaked


def _encoded(encoder: Encoder, images: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and log variance, found in the encoding without drawing from it."""
    state = torch.get_rng_state()
    encoding = encoder(images)
    torch.set_rng_state(state)
    return encoding.mu, encoding.logvar


@pytest.mark.parametrize("leak", [False, True], ids=["clean", "leak"])
def test_an_update_follows_the_published_gradient(make: Make, teacher: Teacher, leak: bool) -> None:
    new = new_batch(teacher)
    expected_of = make()
    torch.manual_seed(0)
    clean, leaked = clean_gradient(expected_of, new, replayed=4)

    memory = make(leak_latent_grad=leak)
    torch.manual_seed(0)
    memory.update(new, replayed=4)
    expected = [c + s for c, s in zip(clean, leaked, strict=True)] if leak else clean
    for found, wanted in zip(gradients(memory.generator), expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-10)
    assert any(not torch.allclose(s, torch.zeros_like(s), atol=1e-6) for s in leaked), "there is something to leak"


def test_an_update_teaches_what_it_is_shown(make: Make, teacher: Teacher) -> None:
    torch.manual_seed(0)
    memory = make(lr=5e-3)
    new = new_batch(teacher, 16)
    losses = [float(memory.update(new, 0)) for _ in range(60)]
    assert memory.updates == 60
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])


def test_a_memory_goes_on_from_its_state(make: Make, teacher: Teacher) -> None:
    new = new_batch(teacher)
    memory = make()
    for _ in range(2):
        memory.update(new, 4)
    other = make()
    other.load_state_dict(copy.deepcopy(memory.state_dict()))
    outcomes = []
    for each in (memory, other):
        torch.manual_seed(7)
        each.update(new, 4)
        outcomes.append((each.updates, each.sample(3).images))
    assert outcomes[0][0] == outcomes[1][0] == 3
    assert torch.equal(outcomes[0][1], outcomes[1][1])
