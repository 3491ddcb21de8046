"""Links that hold on GitHub and in the built site alike.

Pages written by hand link to files of the repository: to a page beside them, to a module, to a table of results. GitHub
shows these as they are. In the site each link leads to the page that is made of the file.
"""

import re
from collections.abc import Iterable, Iterator
from html import unescape
from pathlib import Path
from posixpath import dirname, normpath, relpath
from urllib.parse import unquote

from generate import notebook, pages

FENCED = re.compile(r"^(```|~~~~).*?^\1$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(?<=\]\()(?![a-z]+:|#)([^)\s#]+)(#[^)\s]*)?(?=\))")


def rewritten(text: str, source: str, address: str) -> str:
    """``text`` of the file ``source``, with its links as the site's page ``address`` has to have them."""

    def led(found: re.Match[str]) -> str:
        path = normpath(f"{dirname(source)}/{found[1]}" if dirname(source) else found[1])
        return relpath(address_of(path), dirname(address) or ".") + (found[2] or "")

    return "".join(part if fenced else LINK.sub(led, part) for fenced, part in _parts(text))


def linked(text: str, source: str) -> Iterator[str]:
    """Files and folders that the file ``source`` links to, from the root."""
    for fenced, part in _parts(text):
        for found in () if fenced else LINK.finditer(part):
            yield normpath(f"{dirname(source)}/{found[1]}" if dirname(source) else found[1])


def _parts(text: str) -> Iterator[tuple[bool, str]]:
    """The text in pieces, each with whether it is a block of code."""
    start = 0
    for block in FENCED.finditer(text):
        yield False, text[start : block.start()]
        yield True, block[0]
        start = block.end()
    yield False, text[start:]


def address_of(path: str) -> str:
    """Where the site shows a file or folder of the repository."""
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    return pages.addresses().get(path) or f"files/{path}" + ("" if path.endswith(".md") else ".md")


def file_pages(sources: Iterable[str]) -> Iterator[tuple[str, str, str]]:
    """Address, Markdown and path of ``sources``, and of all that they link to, where these have no page otherwise."""
    done: set[str] = set()
    waiting = list(sources)
    while waiting:
        path = waiting.pop()
        file = pages.ROOT / path
        if path in done or not file.exists():
            continue
        done.add(path)
        if not path.startswith("docs/") and path not in pages.addresses():
            yield address_of(path), _shown(file), path
        if file.suffix == ".md":
            waiting += linked(file.read_text(), path)


def _shown(file: Path) -> str:
    name = file.relative_to(pages.ROOT).as_posix()
    if file.is_dir():
        inside = "".join(f"- `{child.name}`\n" for child in sorted(file.iterdir()) if not child.name.startswith("__"))
        return f"# `{name}/`\n\n{inside}"
    if file.suffix == ".ipynb":
        return notebook.page(file)
    return file.read_text() if file.suffix == ".md" else f"# `{name}`\n\n{block(file)}"


def block(file: Path) -> str:
    """A file as a block of code."""
    language = {".py": "python", ".yaml": "yaml", ".toml": "toml", ".sh": "bash"}.get(file.suffix, "text")
    return f"~~~~{language}\n{file.read_text()}~~~~"


ADDRESS = re.compile(r"\s(?:href|src)=(?:\"([^\"]*)\"|([^\s>\"]+))")
ANCHOR = re.compile(r"\s(?:id|name)=(?:\"([^\"]*)\"|([^\s>\"]+))")


def broken(site: Path) -> Iterator[str]:
    """Every link of the pages in ``site`` that leads nowhere in it, as ``page: link``."""
    texts = {file: file.read_text() for file in sorted(site.rglob("*.html")) if file.name != "404.html"}
    anchors = {file: {unescape(a or b) for a, b in ANCHOR.findall(text)} for file, text in texts.items()}
    for page, text in texts.items():
        for link in sorted({unescape(a or b) for a, b in ADDRESS.findall(text)}):
            path, _, anchor = link.partition("#")
            if re.match(r"[a-z]+:", link):
                continue
            file = (page.parent / unquote(path)).resolve() if path else page
            lost = not file.is_file() or (anchor and file in anchors and unquote(anchor) not in anchors[file])
            if lost and link not in ("#", "."):
                yield f"{page.relative_to(site)}: {link}"
