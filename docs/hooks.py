"""What mkdocs is told beside mkdocs.yml: which pages are made from the code, and that no page may need the network."""

import logging
import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from generate import inserts, links, pages
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from lra import __version__

log = logging.getLogger("mkdocs.hooks.lra")

LOADED = re.compile(r"<(?:script|img|iframe|source)\b[^>]*\bsrc=\"?https?:[^>]*>|<link\b[^>]*\bhref=\"?https?:[^>]*>")
"""Tags that make a browser fetch something from elsewhere."""

ROOTS = ("CONTRIBUTING.md", "examples/tutorial.ipynb")
"""What the navigation names beside pages of `docs/`."""

MADE: dict[str, str] = {}
"""Pages that are made of files elsewhere in the repository, with these files."""


def on_startup(command: str, dirty: bool) -> None:
    """Lay out the sources, before the reader of docstrings looks for them."""
    pages.lay_out()


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Make the pages, and put them where the navigation names their folder."""
    results = {f"benchmarks/{address}": text for address, text in pages.result_pages() if address != "results/index.md"}
    written = [file.relative_to(pages.ROOT).as_posix() for file in sorted(Path(config.docs_dir).rglob("*.md"))]
    made = dict([*pages.method_pages(), *pages.result_pages(), pages.leaderboard_page(), *pages.reference_pages()])
    MADE.update({links.address_of(source): source for source in results})
    for address, text, source in links.file_pages([*written, *results, *ROOTS]):
        made[address] = text
        MADE[address] = source
    config.extra["pages"] = made
    config.nav = [_expanded(entry, list(made)) for entry in config.nav or []]
    config.repo_url, config.repo_name = _repository()
    config.site_name = f"{config.site_name} {__version__}"
    fences = {"custom_fences": [{"name": "math", "class": "math", "format": inserts.formula}]}
    config.mdx_configs["pymdownx.superfences"] = fences
    return config


def _repository() -> tuple[str | None, str | None]:
    """Where the code is in public, and a name for it: as `pyproject.toml` says, or where this clone is from."""
    urls = tomllib.loads((pages.ROOT / "pyproject.toml").read_text())["project"].get("urls", {})
    asked = ["git", "-C", str(pages.ROOT), "remote", "get-url", "origin"]
    url = urls.get("Repository") or subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip()
    url = re.sub(r"^git@([^:]+):", r"https://\1/", url).removesuffix(".git")
    return (url, urlsplit(url).path.strip("/")) if url.startswith("https://") else (None, None)


def _expanded(entry: Any, addresses: list[str]) -> Any:
    """A navigation entry ``title: folder/`` with the pages of that folder."""
    match entry:
        case {**one} if isinstance(folder := next(iter(one.values())), str) and folder.endswith("/"):
            return {next(iter(one)): _tree([address for address in addresses if address.startswith(folder)], folder)}
    return entry


def _tree(addresses: list[str], folder: str) -> list[Any]:
    """Pages of a folder: its index, its pages, then the folders in it."""
    here = [address for address in addresses if "/" not in address.removeprefix(folder)]
    below = dict.fromkeys(address.removeprefix(folder).split("/")[0] for address in addresses if address not in here)
    here.sort(key=lambda address: not address.endswith("/index.md"))
    inner = [
        {name: _tree([a for a in addresses if a.startswith(f"{folder}{name}/")], f"{folder}{name}/")} for name in below
    ]
    return [*here, *inner]


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that were made."""
    for address, text in config.extra["pages"].items():
        files.append(File.generated(config, address, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Lead links to the pages that are made of what they name, and fill in what a page leaves to the code."""
    address = page.file.src_uri
    source = MADE.get(address) or (None if address in config.extra["pages"] else f"docs/{address}")
    return inserts.filled(links.rewritten(markdown, source, address) if source else markdown)


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:
    """Warn, which fails a strict build, of a page that cannot be read without the network."""
    for tag in LOADED.findall(output):
        log.warning("%s needs the network: %s", page.file.src_uri, tag)
    return output


def on_post_build(config: MkDocsConfig) -> None:
    """Warn of links that lead nowhere, those in HTML too."""
    for link in links.broken(Path(config.site_dir)):
        log.warning("a link leads nowhere: %s", link)
