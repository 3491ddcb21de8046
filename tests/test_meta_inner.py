"""Inner rules against torch's optimisers, and what they refuse."""

import copy
from typing import Any

import pytest
import torch
from torch import nn

from lra.meta.inner import INNER, InnerAdam, InnerRule
from lra.meta.options import LookAheadOptions

pytestmark = pytest.mark.kernels


def rule(alpha: float | list[float] = 0.1, inner: str = "sgd", **options: Any) -> InnerRule:
    rates = alpha if isinstance(alpha, list) else [alpha] * 6
    return INNER[inner](rates, LookAheadOptions(inner=inner, **options))


def moved(rule: InnerRule, model: nn.Module) -> list[torch.Tensor]:
    parameters = list(model.parameters())
    return [p.detach() for p in rule.update(parameters, [p.grad for p in parameters])]


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
        (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "dampening": 0.4}),
        (torch.optim.Adam, {"lr": 1e-3}),
        (torch.optim.Adam, {"lr": 1e-2, "betas": (0.5, 0.9), "eps": 1e-4, "weight_decay": 0.1}),
        (torch.optim.Adam, {"lr": 1e-2, "amsgrad": True}),
    ],
)
def test_one_step_is_the_optimisers_first(kind: Any, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    net = model()
    optimizer = kind(net.parameters(), **settings)
    monkeypatch.setattr(InnerAdam, "eps", settings.get("eps", InnerAdam.eps))
    decay = settings.get("weight_decay", 0.0)
    found = moved(rule(settings["lr"], kind.__name__.lower(), inner_weight_decay=decay), net)
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
    found = moved(rule([0.5, 0.5, 0.1, 0.1, 0.1, 0.1]), net)
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
    found = moved(rule(clip=0.01), net)
    for value, p in zip(found, clipped.parameters(), strict=True):
        assert torch.allclose(value, p, rtol=1e-4)
    step = [p - value for value, p in zip(moved(rule(normalise=True), net), net.parameters(), strict=True)]
    assert float(nn.utils.get_total_norm(step)) == pytest.approx(0.1)


def test_a_large_clip_changes_nothing() -> None:
    net = model()
    free, clipped = moved(rule(), net), moved(rule(clip=1e6), net)
    assert all(torch.equal(a, b) for a, b in zip(free, clipped, strict=True))


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"alpha": -0.1}, "alpha"),
        ({"alpha": float("nan")}, "alpha"),
        ({"inner_weight_decay": -1.0}, "weight_decay"),
        ({"clip": 0.0}, "clip"),
        ({"clip": 1.0, "normalise": True}, "exclude"),
    ],
)
def test_bad_settings_are_named(options: dict[str, Any], word: str) -> None:
    with pytest.raises(ValueError, match=word):
        LookAheadOptions(**options)
