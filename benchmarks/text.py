"""Numbers and tables as text, in the same way for terminals, Markdown, LaTeX and pages."""

from collections.abc import Collection, Iterable, Iterator, Sequence

from lra.benchmarks.records import number
from lra.metrics.quantities import Quantity

Cells = Sequence[Sequence[str]]
"""A table, row by row, with the headings first."""

TEX = {
    "\\": r"\textbackslash{}",
    **{c: f"\\{c}" for c in "&%$#_{}"},
    **{"~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "−": "$-$", "μ": r"$\mu$", "σ": r"$\sigma^2$"},
    **{"—": "--", "<": "$<$", ">": "$>$"},
}


def number_text(value: object, digits: int = 0, sign: str = "", missing: str = "—") -> str:
    """A number with thousands separators and a true minus sign, zero without a sign; ``missing`` if it is not a number.

    Args:
        value: the number.
        digits: decimal places.
        sign: ``"+"`` to write a plus sign too.
        missing: the text for a missing number.
    """
    found = number(value)
    if found is None:
        return missing
    text = f"{found:{sign},.{digits}f}"
    return text.replace("-", "−") if text.strip("-+0.,") else text.lstrip("-+")


def counted(number: int, noun: str) -> str:
    """A number of things: ``1 run``, ``2,000 runs``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def quantity_text(quantity: Quantity, value: object, missing: str = "—") -> str:
    """The value of a quantity with its unit, where it stands alone."""
    found = number_text(value, quantity.digits, "+" if quantity.signed else "", missing)
    return found if number(value) is None or not quantity.unit else f"{found} {quantity.unit}"


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]], words: Collection[int] = (0,)) -> str:
    """A pipe table: columns with an index in ``words`` left-aligned, others right-aligned; cells may contain pipes."""
    rule = ["---" if index in words else "---:" for index in range(len(head))]
    escaped = ([cell.replace("|", "\\|") for cell in row] for row in rows)
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, rule, *escaped))


def latex_table(cells: Cells) -> str:
    """A booktabs table: the first column left-aligned, numbers right-aligned."""
    head, *rows = (" & ".join(map(_tex, row)) + r" \\" for row in cells)
    columns = f"l{'r' * (len(cells[0]) - 1)}"
    lines = [
        rf"\begin{{tabular}}{{{columns}}}",
        r"\toprule",
        head,
        r"\midrule",
        *rows,
        r"\bottomrule",
        r"\end{tabular}",
    ]
    return "\n".join(lines)


def _tex(text: str) -> str:
    return "".join(TEX.get(c, c) for c in text.replace("σ²", "σ"))


def aligned_table(cells: Cells, room: int) -> str:
    """Aligned columns, in as many blocks of at most ``room`` characters as needed, each with the labels."""
    widths = [max(len(row[i]) for row in cells) for i in range(len(cells[0]))]
    return "\n\n".join("\n".join(_lines(cells, block, widths)) for block in _blocks(widths, room))


def _blocks(widths: Sequence[int], room: int) -> list[list[int]]:
    blocks = [[0]]
    for i in range(1, len(widths)):
        used = sum(widths[j] + 2 for j in blocks[-1])
        if used + widths[i] > room and len(blocks[-1]) > 1:
            blocks.append([0])
        blocks[-1].append(i)
    return blocks


def _lines(cells: Cells, block: Sequence[int], widths: Sequence[int]) -> Iterator[str]:
    for row in cells:
        label, *rest = (row[i].rjust(widths[i]) if i else row[i].ljust(widths[i]) for i in block)
        yield "  ".join([label, *rest]).rstrip()


def experience_line(row: Sequence[float], experiences: int) -> str:
    """A row of an accuracy matrix (%): one entry for each of the ``experiences`` done so far."""
    each = " ".join(f"{accuracy:5.1f}" for accuracy in row)
    return f"after {len(row)}/{experiences} experiences: {sum(row) / len(row):5.1f} %  ({each})"
