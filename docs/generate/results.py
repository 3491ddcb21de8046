"""The committed tables of results, as pages; and what they say about one method."""

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

FOLDER = Path(__file__).parents[2] / "benchmarks" / "results"


def pages() -> Iterator[tuple[str, str]]:
    """Address and Markdown of a list, and of every file of results as it is."""
    files = {file.name: file.read_text() for file in sorted(FOLDER.glob("*.md"))}
    listed = "".join(f"- [{_title(text, name)}]({name})\n" for name, text in files.items())
    yield "results/index.md", f"# Results\n\nEach page says which command repeats it.\n\n{listed}"
    for name, text in files.items():
        yield f"results/{name}", text


@cache
def about(method: str) -> list[tuple[str, str, str]]:
    """Address, title and table of the rows that name a method in their first cell, file by file."""
    found = []
    for address, text in pages():
        head: list[str] = []
        kept: list[str] = []
        for line in text.splitlines():
            if not line.startswith("|"):
                head = []
            elif len(head) < 2:
                head.append(line)
            elif re.split(r"[^\w-]", line.strip("|` ").lower())[0] == method:
                kept += ([] if head[0] in kept else ["", *head]) + [line]
        if kept:
            found.append((address, _title(text, address), "\n".join(kept).strip() + "\n"))
    return found


def _title(text: str, otherwise: str) -> str:
    return next((line[2:] for line in text.splitlines() if line.startswith("# ")), otherwise)
