"""Teachers and students by name; every one takes normalised images (n,C,H,W) and returns logits (n,K).

Importing this imports no torch: names are known before a network is built.
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
"""The networks that are offered by name; `is_known` has the others of their families too."""


def is_known(name: str) -> bool:
    """Whether a network of this name is built here, offered or of another depth or width."""
    return recipe_of(name) is not None


def described(name: str) -> str:
    """What a network is, in one line: of this toolkit, or where it is from."""
    origin = name.partition(":")[0]
    return summary_of(name) or ELSEWHERE.get(f"{origin}:NAME", ELSEWHERE["MODULE:FUNCTION"])


def instead(name: str) -> str:
    """What may have been meant by a name that is not known: the sizes there are, or the nearest name."""
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
        name: one of `NETWORKS` or their families, where underscores may stand for hyphens, or one from elsewhere, see
            `build_foreign`.
        classes: number of classes K, at least 1.
        image: channels, height and width.
        trains: whether one from elsewhere has to work in training mode, see `build_foreign`.
        auxiliary: whether it may answer with auxiliary classifiers there, see `build_foreign`.

    Raises:
        ValueError: if the name is unknown, or the network cannot take such images.
        ModuleNotFoundError: if it is in a package that is not installed.
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
