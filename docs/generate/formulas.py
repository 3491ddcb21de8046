"""Formulas as MathML, which browsers draw by themselves: no script, no font, no network."""

from typing import Any

from latex2mathml.converter import convert

FENCE = {"name": "math", "class": "math"}


def fence(source: str, language: str, css_class: str, options: Any, md: Any, **kwargs: Any) -> str:
    """A fenced block of LaTeX as a displayed formula, one for each line."""
    return "".join(f'<div class="math">{convert(line, display="block")}</div>' for line in source.splitlines())
