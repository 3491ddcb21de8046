"""Inner rules against torch's optimisers, and what they refuse."""

import copy
from typing import Any

import pytest
import torch
from torch import nn

from lra.meta import InnerAdam, InnerRule, InnerSGD, inner_from

pytestmark = pytest.mark.kernels


def moved(rule: InnerRule, model: nn.Module) -> list[torch.Tensor]:
    named = dict(model.named_parameters())
    parameters, gradients = list(named.values()), [p.grad for p in named.values()]
    return [p.detach() for p in rule.update(parameters, gradients, rule.rates(named))]


def model() -> nn.Module:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2), nn.Linear(5, 5)).double()
    net[:2](torch.randn(6, 4).double()).square().mean().backward()
    return net


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        (torch.optim.SGD, {"lr": 0.1}),
        (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "weight_decay": 5e-4}),
        (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "weight_decay": 5e-2, "nesterov": True}),
        (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "dampening": 0.4}),
        (torch.optim.Adam, {"lr": 1e-3}),
        (torch.optim.Adam, {"lr": 1e-2, "betas": (0.5, 0.9), "eps": 1e-4, "weight_decay": 0.1}),
        (torch.optim.Adam, {"lr": 1e-2, "amsgrad": True}),
    ],
)
def test_one_step_is_the_optimisers_first(kind: Any, settings: dict[str, Any]) -> None:
    net = model()
    optimizer = kind(net.parameters(), **settings)
    found = moved(inner_from(optimizer), net)
    optimizer.step()
    for value, parameter in zip(found, net.parameters(), strict=True):
        if kind is torch.optim.SGD:
            assert torch.equal(value, parameter)
        assert torch.allclose(value, parameter, rtol=1e-13, atol=1e-15)


def test_groups_may_differ_in_their_rate() -> None:
    net = model()
    groups = [
        {"params": net[0].parameters(), "lr": 0.5},
        {"params": [*net[1].parameters(), *net[2].parameters()]},
    ]
    optimizer = torch.optim.SGD(groups, lr=0.1)
    found = moved(inner_from(optimizer), net)
    optimizer.step()
    assert all(torch.equal(value, p) for value, p in zip(found, net.parameters(), strict=True))


def test_clipping_is_torchs() -> None:
    net, clipped = model(), copy.deepcopy(model())
    for p, q in zip(clipped.parameters(), net.parameters(), strict=True):
        p.grad = None if q.grad is None else q.grad.clone()
    norm = nn.utils.clip_grad_norm_(clipped.parameters(), 0.01)
    assert norm > 0.01
    optimizer = torch.optim.SGD(clipped.parameters(), lr=0.1)
    optimizer.step()
    found = moved(InnerSGD(0.1, clip=0.01), net)
    for value, p in zip(found, clipped.parameters(), strict=True):
        assert torch.allclose(value, p, rtol=1e-4)
    step = [p - value for value, p in zip(moved(InnerSGD(0.1, normalise=True), net), net.parameters(), strict=True)]
    assert float(nn.utils.get_total_norm(step)) == pytest.approx(0.1)


def test_a_large_clip_changes_nothing() -> None:
    net = model()
    free, clipped = moved(InnerSGD(0.1), net), moved(InnerSGD(0.1, clip=1e6), net)
    assert all(torch.equal(a, b) for a, b in zip(free, clipped, strict=True))


@pytest.mark.parametrize(
    ("optimizer", "word"),
    [
        (lambda p: torch.optim.AdamW(p), "AdamW"),
        (lambda p: torch.optim.LBFGS(p), "LBFGS"),
        (lambda p: torch.optim.RMSprop(p), "RMSprop"),
        (lambda p: torch.optim.SGD(p, lr=0.1, maximize=True), "maximize"),
        (
            lambda p: torch.optim.SGD([{"params": p[:1]}, {"params": p[1:], "momentum": 0.5}], lr=0.1),
            "momentum",
        ),
    ],
)
def test_refuses_what_it_cannot_mirror(optimizer: Any, word: str) -> None:
    with pytest.raises(ValueError, match=word) as caught:
        inner_from(optimizer(list(model().parameters())))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("make", "word"),
    [
        (lambda: InnerSGD(-0.1), "lr is -0.1"),
        (lambda: InnerSGD(float("nan")), "lr is nan"),
        (lambda: InnerSGD(0.1, momentum=1.0), "momentum"),
        (lambda: InnerSGD(0.1, nesterov=True), "nesterov"),
        (lambda: InnerSGD(0.1, weight_decay=-1.0), "weight_decay"),
        (lambda: InnerSGD(0.1, clip=0.0), "clip"),
        (lambda: InnerSGD(0.1, clip=1.0, normalise=True), "exclude"),
        (lambda: InnerAdam(0.1, betas=(0.9, 1.0)), "betas"),
        (lambda: InnerAdam(0.1, eps=0.0), "eps"),
        (lambda: InnerSGD([0.1]).rates(dict(model().named_parameters())), "1 rates for 6"),
        (lambda: InnerSGD({"0.weight": 0.1}).rates(dict(model().named_parameters())), "0.bias"),
    ],
)
def test_bad_settings_are_named(make: Any, word: str) -> None:
    with pytest.raises(ValueError, match=word):
        make()
