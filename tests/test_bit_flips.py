"""Progressive bit search: two's complement, first-order gains, the best flip of a small network found by trying all."""

import itertools

import pytest
import torch
from torch import nn

from lra.bit_flips import BitNetwork, Flip, best_step, candidates, search, to_integers


def network() -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Tanh(), nn.Flatten(), nn.Linear(8, 3)]
    return nn.Sequential(*layers).double().eval()


def images(n: int = 16) -> torch.Tensor:
    torch.manual_seed(1)
    return torch.rand(n, 1, 4, 4, dtype=torch.float64)


def test_eight_bits_cost_little_and_biases_stay() -> None:
    victim, plain = BitNetwork(network()), network()
    assert torch.equal(victim.network[4].bias, plain[4].bias)
    assert torch.equal(victim.network[0].bias, plain[0].bias)
    for layer, step in zip(victim.layers, victim.steps, strict=True):
        multiples = layer.weight.detach() / step
        assert torch.allclose(multiples, multiples.round(), atol=1e-9)
    assert (victim.network(images()) - plain(images())).abs().max() < 0.02


def test_the_step_is_no_worse_than_the_one_that_reaches_the_largest_weight() -> None:
    for weights in (torch.randn(500), torch.cat([torch.randn(500) * 0.01, torch.tensor([1.0])])):
        largest = weights.abs().max() / 127
        errors = [(to_integers(weights, s) * s - weights).square().sum() for s in (best_step(weights), largest)]
        assert errors[0] <= errors[1]
    assert best_step(torch.zeros(3)) == 1


@pytest.mark.parametrize("value", [-128, -1, 0, 5, 127])
def test_a_flip_changes_the_weight_by_the_value_of_its_bit(value: int) -> None:
    victim = BitNetwork(network())
    for bit in range(8):
        victim.integers[0].view(-1)[3] = value
        victim.flip([Flip(0, 3, bit)])
        expected = torch.tensor(value & 0xFF ^ 1 << bit, dtype=torch.uint8).view(torch.int8)
        assert victim.integers[0].view(-1)[3] == expected
        assert victim.layers[0].weight.flatten()[3] == expected.double() * victim.steps[0]


def test_two_flips_of_a_bit_are_none() -> None:
    victim = BitNetwork(network())
    before = [w.clone() for w in victim.integers]
    flips = [Flip(0, 1, 7), Flip(1, 2, 0), Flip(1, 2, 5)]
    victim.flip(flips)
    victim.flip(flips)
    assert all(torch.equal(a, b) for a, b in zip(before, victim.integers, strict=True))


def test_candidates_are_the_rising_bits_in_order_of_their_gain() -> None:
    integers = torch.tensor([5, -3, 0, 100], dtype=torch.int8)
    gradient = torch.tensor([1.0, -2.0, 0.1, 0.0])
    gains = {}
    for weight, bit in itertools.product(range(4), range(8)):
        flipped = (integers[weight].item() & 0xFF) ^ (1 << bit)
        change = (flipped - 256 if flipped > 127 else flipped) - integers[weight].item()
        gains[weight, bit] = change * gradient[weight].item()
    found = candidates(integers, gradient, most=4)
    assert set(found) == {key for key, gain in gains.items() if gain > 0}
    assert [gains[key] for key in found] == sorted((g for g in gains.values() if g > 0), reverse=True)
    assert {weight for weight, _ in candidates(integers, gradient, most=1)} == {1}


def test_the_search_raises_the_loss_at_every_step_and_leaves_the_network_it_was_given() -> None:
    plain = network()
    before = [p.clone() for p in plain.parameters()]
    victim = BitNetwork(plain)
    labels = victim.network(images()).argmax(dim=1)
    losses = [victim.loss(images(), labels).item()]
    for _ in itertools.islice(search(victim, images(), labels), 5):
        losses.append(victim.loss(images(), labels).item())
    assert len(losses) == 6
    assert all(a < b for a, b in itertools.pairwise(losses))
    assert all(torch.equal(a, b) for a, b in zip(before, plain.parameters(), strict=True))


def test_the_first_flip_is_the_best_of_each_layers_most_promising_one() -> None:
    victim = BitNetwork(network())
    labels = victim.network(images()).argmax(dim=1)
    gradients = victim.gradients(images(), labels)
    tried = {}
    for layer, (integers, gradient) in enumerate(zip(victim.integers, gradients, strict=True)):
        flip = Flip(layer, *candidates(integers.view(-1), gradient, 10)[0])
        victim.flip([flip])
        tried[flip] = victim.loss(images(), labels).item()
        victim.flip([flip])
    assert next(search(victim, images(), labels)) == [max(tried, key=tried.__getitem__)]


def test_gradients_are_of_the_integers() -> None:
    victim = BitNetwork(network())
    labels = victim.network(images()).argmax(dim=1)
    analytic = victim.gradients(images(), labels)[1][4].item()
    step = victim.steps[1]
    with torch.no_grad():
        losses = []
        for sign in (1, -1):
            victim.layers[1].weight.view(-1)[4] += sign * 1e-3 * step
            losses.append(victim.loss(images(), labels).item())
            victim.layers[1].weight.view(-1)[4] -= sign * 1e-3 * step
    assert analytic == pytest.approx((losses[0] - losses[1]) / 2e-3, rel=1e-4)
