"""Teachers and students by name; each takes normalised images (n,C,H,W) and returns logits (n,K).

Importing this does not import torch: names are known before a network is built.
"""

from __future__ import annotations

import difflib
import importlib
from typing import TYPE_CHECKING

from lra.networks.families import FAMILIES, Recipe, canonical, recipe_of, summary_of
from lra.networks.foreign import ELSEWHERE, build_foreign, is_foreign

if TYPE_CHECKING:
    from torch import nn

NETWORKS: dict[str, Recipe] = {
    family.name(*numbers): family.recipe(*numbers) for family in FAMILIES for numbers in family.offered
}
"""The networks listed by name; `is_known` also accepts the other members of their families."""


def is_known(name: str) -> bool:
    """Whether a network of this name can be built here, whether listed or of another depth or width."""
    return recipe_of(name) is not None


def described(name: str) -> str:
    """A one-line description of a network of this toolkit, or where another one is from."""
    origin = name.partition(":")[0]
    return summary_of(name) or ELSEWHERE.get(f"{origin}:NAME", ELSEWHERE["MODULE:FUNCTION"])


def instead(name: str) -> str:
    """A suggestion for an unknown name: the sizes that exist, or the nearest name."""
    alike = [family for family in FAMILIES if family.numbers(canonical(name)) is not None]
    if alike:
        return f"the depth of {alike[0].form} is {' or '.join(family.sizes for family in alike)}."
    close = difflib.get_close_matches(canonical(name), NETWORKS, n=1)
    return f"did you mean {close[0]!r}?" if close else f"choose from {', '.join(NETWORKS)}"


def build(
    name: str, classes: int, image: tuple[int, int, int], trains: bool = True, auxiliary: bool = False
) -> nn.Module:
    """Build a network with fresh weights, drawn from torch's global generator.

    Args:
        name: one of `NETWORKS` or their families, with underscores allowed for hyphens, or an external one, see
            `build_foreign`.
        classes: number of classes K, at least 1.
        image: channels, height and width.
        trains: whether an external one must work in training mode, see `build_foreign`.
        auxiliary: whether it may then return logits of auxiliary classifiers, see `build_foreign`.

    Raises:
        ValueError: if the name is unknown, or the network cannot take such images.
        ModuleNotFoundError: if its package is not installed.
    """
    if classes < 1:
        raise ValueError(f"a network needs at least 1 class; got {classes}")
    if is_foreign(name):
        return build_foreign(name, classes, image, trains, auxiliary)
    recipe = recipe_of(name)
    if recipe is None:
        raise ValueError(f"unknown network {name!r}; {instead(name)} Valid: {', '.join(NETWORKS)}")
    module, _, definition = recipe.place.partition(":")
    network: nn.Module = getattr(importlib.import_module(module), definition)(classes, image, **recipe.options)
    return network
