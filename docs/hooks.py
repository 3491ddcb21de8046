"""What mkdocs is told beside mkdocs.yml: which pages are made from the code, and that no page may need the network."""

import logging
import re
from typing import Any

from generate import inserts, pages
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

log = logging.getLogger("mkdocs.hooks.lra")

LOADED = re.compile(r"<(?:script|img|iframe|source)\b[^>]*\bsrc=\"?https?:[^>]*>|<link\b[^>]*\bhref=\"?https?:[^>]*>")
"""Tags that make a browser fetch something from elsewhere."""


def on_startup(command: str, dirty: bool) -> None:
    """Lay out the sources, before the reader of docstrings looks for them."""
    pages.lay_out()


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Make the pages, and put them where the navigation names their folder."""
    config.extra["pages"] = dict([*pages.method_pages(), *pages.result_pages(), *pages.reference_pages()])
    config.nav = [_expanded(entry, list(config.extra["pages"])) for entry in config.nav or []]
    fences = {"custom_fences": [{"name": "math", "class": "math", "format": inserts.formula}]}
    config.mdx_configs["pymdownx.superfences"] = fences
    return config


def _expanded(entry: Any, addresses: list[str]) -> Any:
    """A navigation entry ``title: folder/`` with the pages of that folder."""
    match entry:
        case {**one} if isinstance(folder := next(iter(one.values())), str) and folder.endswith("/"):
            return {next(iter(one)): [address for address in addresses if address.startswith(folder)]}
    return entry


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that were made."""
    for address, text in config.extra["pages"].items():
        files.append(File.generated(config, address, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Fill in what a page leaves to the code."""
    return inserts.filled(markdown)


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:
    """Warn, which fails a strict build, of a page that cannot be read without the network."""
    for tag in LOADED.findall(output):
        log.warning("%s needs the network: %s", page.file.src_uri, tag)
    return output
