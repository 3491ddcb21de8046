"""Files of weights as they are found: any wrapping and prefix, any suffix; a refusal says what and how to save."""

import argparse
import pickle
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from lra.benchmarks.errors import UsageError
from lra.benchmarks.setup.weights_files import read_weights
from lra.networks import build
from lra.networks.weights import load_weights

IMAGE = (3, 16, 16)

State = dict[str, Any]


def under(*prefixes: str) -> Callable[[State], State]:
    return lambda state: {"".join(prefixes) + name: value for name, value in state.items()}


def averaged(state: State) -> State:
    network = build("resnet8", 7, IMAGE)
    network.load_state_dict(state)
    return torch.optim.swa_utils.AveragedModel(nn.DataParallel(network), use_buffers=True).state_dict()


def trained(state: State) -> State:
    """A checkpoint with an optimiser that has moments of its own."""
    network = build("resnet8", 7, IMAGE)
    optimiser = torch.optim.Adam(network.parameters())
    network(torch.rand(2, *IMAGE)).sum().backward()
    optimiser.step()
    return {"epoch": 3, "optimizer": optimiser.state_dict(), "state_dict": state, "best_acc1": 93.5, "arch": "resnet8"}


DRESSES: dict[str, Callable[[State], State]] = {
    "plain": lambda state: state,
    "parallel": under("module."),
    "compiled": under("_orig_mod."),
    "compiled and parallel": under("_orig_mod.", "module."),
    "parallel and compiled": under("module.", "_orig_mod."),
    "three deep": under("module.", "_orig_mod.", "module."),
    "lightning": lambda state: {"state_dict": under("model.")(state), "callbacks": {"a": {}}, "hyper_parameters": {}},
    "net": lambda state: {"state_dict": under("net.")(state)},
    "student": under("student."),
    "nested": lambda state: {"model": {"state_dict": state}},
    "nested the other way": lambda state: {"state_dict": {"model": under("module.")(state)}},
    "an unusual key": lambda state: {"netT": state, "epoch": 3},
    "an average": averaged,
    "an average in a checkpoint": lambda state: {"model": averaged(state)},
    "of an average": lambda state: {"ema": {"decay": 0.99, "module": state}},
    "counters": lambda state: under("ema_model.")(state) | {"initted": torch.tensor(True), "step": torch.tensor(3)},
    "a number beside": lambda state: {"state_dict": state, "loss": torch.tensor(0.3)},
    "trained": trained,
    "twice the same": lambda state: {"state_dict": state, "model": state},
}


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(0)
    return build("resnet8", 7, IMAGE).eval()


@pytest.mark.parametrize("dress", DRESSES)
def test_wrappings_and_prefixes_are_peeled_until_none_is_left(network: nn.Module, tmp_path: Path, dress: str) -> None:
    torch.save(DRESSES[dress](network.state_dict()), tmp_path / "t.pt")
    other = build("resnet8", 7, IMAGE).eval()
    load_weights(other, read_weights(tmp_path / "t.pt")[0])
    images = torch.rand(2, *IMAGE)
    assert torch.equal(other(images), network(images))


def test_a_prefix_of_the_networks_own_is_kept() -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = nn.Sequential(nn.Linear(2, 2))

    one, other = Own(), Own()
    for dress in ("plain", "parallel", "lightning"):
        load_weights(other, DRESSES[dress](one.state_dict()))
        assert torch.equal(one.model[0].weight, other.model[0].weight)
        nn.init.zeros_(other.model[0].weight)


@pytest.mark.parametrize(
    ("dress", "said"),
    [
        (lambda one, two: {"state_dict": one, "state_dict_ema": two}, "state_dict and state_dict_ema"),
        (lambda one, two: {"model": one, "ema": {"module": two}}, "model and ema"),
        (lambda one, two: {"netA": one, "netB": two}, "netA and netB"),
        (lambda one, two: under("student.")(one) | under("teacher.")(two), "student and teacher"),
        (lambda one, two: under("online_model.")(one) | under("ema_model.")(two), "online_model and ema_model"),
        (lambda one, two: {"state_dict": under("model.")(one) | {"criterion.weight": torch.ones(7)}}, "under model "),
    ],
)
def test_more_than_one_network_in_a_file_is_refused(
    network: nn.Module, dress: Callable[[State, State], State], said: str
) -> None:
    two = build("resnet8", 7, IMAGE).state_dict()
    other = build("resnet8", 7, IMAGE)
    with pytest.raises(ValueError, match=rf"{said}.*save the one that is meant") as error:
        load_weights(other, dress(network.state_dict(), two))
    assert "\n" not in str(error.value)


def test_mappings_that_hold_themselves_come_to_an_end() -> None:
    knot: State = {"epoch": 3}
    knot["model"] = knot
    with pytest.raises(ValueError, match="no weights"):
        load_weights(nn.Linear(2, 2), knot)
    weights = nn.Linear(2, 2).state_dict()
    weights["model"] = weights
    load_weights(nn.Linear(2, 2), weights)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "t.pt", "t.pth", "t", "t.safetensors"])
def test_safetensors_are_known_by_their_content(network: nn.Module, tmp_path: Path, name: str) -> None:
    save_file(network.state_dict(), tmp_path / name)
    assert read_weights(tmp_path / name)[0].keys() == network.state_dict().keys()
    torch.save(network.state_dict(), tmp_path / name)
    assert read_weights(tmp_path / name)[0].keys() == network.state_dict().keys()


class Own(nn.Linear):
    """A module of somebody's own."""


@pytest.mark.parametrize(
    ("content", "refused", "remedy"),
    [
        ({"state_dict": {}, "best_acc1": np.float64(93.2)}, "multiarray.scalar", "['state_dict'], 'weights.pt')"),
        ({"state_dict": {}, "history": np.zeros(3)}, "multiarray._reconstruct", "['state_dict'], 'weights.pt')"),
        ({"state_dict": {}, "args": argparse.Namespace(lr=0.1)}, "argparse.Namespace", "['state_dict']"),
        (nn.Sequential(nn.Linear(2, 2)), "torch.nn.modules.container.Sequential", ".state_dict(), 'weights.pt')"),
        ({"model": nn.DataParallel(nn.Linear(2, 2))}, "DataParallel", ".state_dict(), 'weights.pt')"),
        (Own(2, 2), "Own", "torch.save(torch.load('t.pt', weights_only=False).state_dict(), 'weights.pt')"),
        (
            {"state_dict": {}, "net": Own(2, 2)},
            "Own",
            "torch.save(torch.load('t.pt', weights_only=False)['state_dict'],",
        ),
        (OrderedDict(args=argparse.Namespace(lr=0.1)), "argparse.Namespace", "['state_dict']"),
    ],
)
@pytest.mark.parametrize("form", [{}, {"_use_new_zipfile_serialization": False}, {"pickle_protocol": 4}])
def test_what_is_refused_is_named_with_how_to_save_it_again(
    tmp_path: Path, content: Any, refused: str, remedy: str, form: dict[str, Any]
) -> None:
    torch.save(content, tmp_path / "t.pt", **form)
    with pytest.raises(UsageError, match=r"\A.*\Z") as error:
        read_weights(tmp_path / "t.pt")
    assert f"{refused})" in str(error.value)
    assert remedy in str(error.value)


def test_a_pickle_without_torch_names_what_it_would_import(tmp_path: Path) -> None:
    (tmp_path / "t.pkl").write_bytes(pickle.dumps({"weight": torch.zeros(2)}))
    with pytest.raises(UsageError, match=r"torch\.storage\._load_from_bytes"):
        read_weights(tmp_path / "t.pkl")
