"""surrogate_loss: exactly the given gradients, beside whatever else is in the loss."""

import pytest
import torch
from torch import nn

from lra.meta.lookahead import surrogate_loss


def test_backward_adds_exactly_the_gradients() -> None:
    layer = nn.Linear(3, 2)
    parameters = list(layer.parameters())
    gradients = [torch.randn_like(p) for p in parameters]
    value = layer(torch.ones(1, 3)).sum()
    loss = surrogate_loss(value, parameters, gradients)
    assert torch.equal(loss, value)
    loss.backward()
    assert all(torch.equal(p.grad, g) for p, g in zip(parameters, gradients, strict=True) if p.grad is not None)
    assert layer.weight.grad is not None


def test_composes_with_penalties_and_scaling() -> None:
    layer = nn.Linear(3, 2)
    parameters = list(layer.parameters())
    gradients = [torch.randn_like(p) for p in parameters]
    loss = surrogate_loss(torch.tensor(2.0), parameters, gradients)
    loss += 0.5 * layer.weight.square().sum()
    assert loss.item() > 2.0
    (4 * loss).backward()
    assert torch.allclose(layer.weight.grad, 4 * (gradients[0] + layer.weight.detach()))
    assert torch.equal(layer.bias.grad, 4 * gradients[1])


def test_refuses_what_does_not_fit() -> None:
    layer = nn.Linear(3, 2)
    parameters = list(layer.parameters())
    with pytest.raises(ValueError, match="1 gradients for 2 parameters"):
        surrogate_loss(torch.tensor(0.0), parameters, [torch.zeros(2, 3)])
    with pytest.raises(ValueError, match="gradient 0 has shape"):
        surrogate_loss(torch.tensor(0.0), parameters, [torch.zeros(2), torch.zeros(2, 3)])
