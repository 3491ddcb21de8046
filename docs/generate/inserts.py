"""What pages written by hand leave to the code: ``<!-- insert NAME -->`` on a line of its own, and formulas in LaTeX.

On GitHub such a line is not seen, so the text before it says where to look or which command prints it.
"""

import inspect
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert

import lra.benchmarks
import lra.strategies
from generate import pages
from generate.links import block
from generate.tables import code, options_table, table
from lra.benchmarks.setup.presets import printed, scales
from lra.meta.options import LRAOptions
from lra.metrics.quantities import QUANTITIES
from lra.strategies.guests import GUESTS
from lra.strategies.increment.options import IncrementOptions
from lra.strategies.retention import REPLAYS

ROOT = Path(__file__).parents[2]

INSERT = re.compile(r"^<!-- insert (\S+) -->$", re.MULTILINE)


def filled(text: str) -> str:
    """``text`` with every insert in its place: what `INSERTS` has under its name, or the file of that path as code."""
    return INSERT.sub(lambda found: INSERTS[found[1]]() if found[1] in INSERTS else block(ROOT / found[1]), text)


def formula(source: str, language: str, css_class: str, options: Any, md: Any, **kwargs: Any) -> str:
    """A fenced block of LaTeX as displayed formulas, one for each line, in MathML: browsers need no script for it."""
    return "".join(f'<div class="math">{convert(line, display="block")}</div>' for line in source.splitlines())


def _replays() -> str:
    rows = [[code(name), replay.summary] for name, replay in REPLAYS.items()]
    return table(("`--replay`", "what the student sees again"), rows)


def _replay_options() -> str:
    parts = [
        f"## Options of `{name}`\n\n{inspect.getdoc(replay)}\n\n{options_table(replay, 'replay.')}"
        for name, replay in REPLAYS.items()
        if name != "none"
    ]
    return "\n\n".join(parts)


def _meta_options() -> str:
    return options_table(LRAOptions, "meta.")


def _increment_options() -> str:
    return options_table(IncrementOptions, "")


def _published_increments() -> str:
    entries = [entry for entry in printed() if "experiences" in entry]
    rows = [[code(name), *_figures(entries, name)] for name in dict.fromkeys(str(e["method"]) for e in entries)]
    return table(("final accuracy (%)", *(f"{n} experiences" for n in PUBLISHED_SPLITS), "10, ResNet-18"), rows)


PUBLISHED_SPLITS = (5, 10, 20)


def _figures(entries: Sequence[Mapping[str, Any]], name: str) -> Iterator[str]:
    for student, n in [*(("resnet32", n) for n in PUBLISHED_SPLITS), ("resnet18", 10)]:
        found = [e for e in entries if (e["method"], e["student"], e["experiences"]) == (name, student, n)]
        spread = "".join(f" ± {e['deviation']:g}" for e in found if "deviation" in e)
        yield f"{found[0]['value']:g}{spread}" if found else "—"


def _guests() -> str:
    rows = [[code(name), guest.needs, guest.gets, guest.verdict] for name, guest in GUESTS.items()]
    return table(("`avalanche:`", "needs", "gets", "works?"), rows)


def _scales() -> str:
    rows = [
        [code(scale.name), scale.summary, code(scale.method), scale.networks, scale.cost] for scale in scales().values()
    ]
    return table(("scale", "for", "method", "teacher to student, budget", "cost"), rows)


def _quantities() -> str:
    better = {1: "higher", -1: "lower", 0: ""}
    rows = [
        [code(q.name), q.heading, better[q.better], " and ".join(need.words for need in q.needs), q.meaning]
        for q in QUANTITIES.values()
    ]
    return table(("`--columns`", "in tables", "better", "needs", "meaning"), rows)


def _public() -> str:
    """The names that packages offer, each with the first line of its docstring and a link to the rest."""
    parts = []
    for package in (lra, lra.strategies, lra.benchmarks):
        rows = []
        for name, module in sorted(package.PUBLIC.items()):
            file = pages.modules()[module]
            address = f"{pages.module_address(module)}#{module}.{name}"
            rows.append([f"[`{name}`]({address})", pages.first_line(file, name)])
        parts.append(f"## `{package.__name__}`\n\n{table(('name', 'what it is'), rows)}")
    return "\n\n".join(parts)


INSERTS: dict[str, Callable[[], str]] = {
    "replays": _replays,
    "replay-options": _replay_options,
    "meta-options": _meta_options,
    "increment-options": _increment_options,
    "published-increments": _published_increments,
    "avalanche-plugins": _guests,
    "scales": _scales,
    "quantities": _quantities,
    "public": _public,
}
"""Name to the function that writes it."""
