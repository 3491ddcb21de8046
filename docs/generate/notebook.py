"""A notebook as a page: what was written, what was run, and what it gave."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def page(file: Path) -> str:
    """The Markdown of a notebook."""
    cells = json.loads(file.read_text())["cells"]
    return "\n\n".join(part for cell in cells for part in _parts(cell)) + "\n"


def _parts(cell: dict[str, Any]) -> Iterator[str]:
    source = "".join(cell["source"])
    if cell["cell_type"] == "markdown":
        yield source
        return
    yield f"~~~~python\n{source}\n~~~~"
    for output in cell["outputs"]:
        data = output.get("data", {})
        if "image/png" in data:
            yield f"![what the cell above shows](data:image/png;base64,{''.join(data['image/png']).strip()})"
        elif "text/markdown" in data:
            yield "".join(data["text/markdown"])
        else:
            yield f"~~~~text\n{''.join(output.get('text') or data['text/plain']).rstrip()}\n~~~~"
