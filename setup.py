"""What pyproject.toml cannot say: README.md as an index of packages shows it, away from the files that it links to.

Links within the repository lead there once ``[project.urls]`` has its address as ``Repository``; until then their text
stands alone, and pictures are left out.
"""

import re
import tomllib
from pathlib import Path

from setuptools import setup

ROOT = Path(__file__).parent
ELSEWHERE = r"(?![a-z]+:|#)"
"""Before what is a path: no address, and no anchor on the page itself."""

MARKDOWN = re.compile(rf"(!?)\[((?:[^][]|\[[^][]*\](?:\([^()]*\))?)*)\]\({ELSEWHERE}([^()\s]+)\)")
PICTURE = re.compile(rf'<(?:img|source)\b[^>]*\bsrc(?:set)?="{ELSEWHERE}[^"]*"[^>]*>')
ATTRIBUTE = re.compile(rf'\b(src|srcset|href)="{ELSEWHERE}([^"]+)"')


def index_page(readme: str, repository: str | None) -> str:
    """A README in Markdown without relative links: they lead to ``repository``, if it has an address, or nowhere."""

    def address(path: str, picture: bool) -> str:
        return f"{repository}/{'raw' if picture else 'blob'}/HEAD/{path}"

    def link(found: re.Match[str]) -> str:
        picture, text = found[1] == "!", MARKDOWN.sub(link, found[2])
        if repository is None:
            return "" if picture else text
        return f"{found[1]}[{text}]({address(found[3], picture)})"

    def attribute(found: re.Match[str]) -> str:
        return "" if repository is None else f'{found[1]}="{address(found[2], found[1] != "href")}"'

    if repository is None:
        readme = PICTURE.sub("", readme)
    return ATTRIBUTE.sub(attribute, MARKDOWN.sub(link, readme))


if __name__ == "__main__":
    addresses = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"].get("urls", {})
    setup(
        long_description=index_page((ROOT / "README.md").read_text(encoding="utf-8"), addresses.get("Repository")),
        long_description_content_type="text/markdown",
    )
