"""Every relative link leads somewhere: on GitHub, which shows the files as they are, and in the built site."""

import importlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md") if (ROOT / name).is_file()),
    *sorted(path for folder in ("docs", "benchmarks", "examples") for path in (ROOT / folder).rglob("*.md")),
]
CODE = re.compile(r"^(```|~~~~).*?^\1$|`[^`\n]+`", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)(?: \"[^\"]*\")?\)|(?:href|src)=\"([^\"]+)\"")


def links(page: Path) -> Iterator[str]:
    """Relative targets of a page's links and pictures, without those in code."""
    for found in LINK.finditer(CODE.sub("`code`", page.read_text())):
        target = found[1] or found[2]
        if not re.match(r"[a-z]+:", target):
            yield target


def anchors(page: Path) -> set[str]:
    """Anchors that GitHub gives the headings of a page."""
    text = re.sub(r"^(```|~~~~).*?^\1$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    found: set[str] = set()
    for heading in re.findall(r"^#+ (.+)$", text, re.MULTILINE):
        shown = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading)
        anchor = re.sub(r"[^\w\- ]", "", shown.strip().lower()).replace(" ", "-")
        found.add(anchor if anchor not in found else f"{anchor}-1")
    return found


def lost(page: Path) -> list[str]:
    """Links of a page that GitHub could not follow."""
    missing = []
    for target in links(page):
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        there = file.exists() and file.is_relative_to(ROOT)
        if not there or (anchor and (file.suffix != ".md" or anchor not in anchors(file))):
            missing.append(target)
    return missing


@pytest.mark.parametrize("page", [pytest.param(page, id=str(page.relative_to(ROOT))) for page in PAGES])
def test_links_hold_on_github(page: Path) -> None:
    assert not lost(page)
    bare = CODE.sub("", page.read_text())
    assert not re.search(r"\{\{|--8<--|^\?\?\? |^!!! |\{ #", bare, re.MULTILINE), "GitHub shows this as it stands"


def test_what_is_linked_is_in_the_repository() -> None:
    """Not only on this disk."""
    if not (ROOT / ".git").exists():
        pytest.skip("no clone")
    for page in PAGES:
        for target in links(page):
            file = (page.parent / target.partition("#")[0]).resolve()
            ignored = subprocess.run(["git", "check-ignore", "-q", file], cwd=ROOT, check=False).returncode == 0
            assert not ignored, f"{page.name}: {target}"


def test_a_link_that_leads_nowhere_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    page = tmp_path / "page.md"
    page.write_text(
        "# One thing, θ\n\n[a](#one-thing-θ) [b](#another) [c](page.md#one-thing-θ) [d](none.md) [e](../up.md)\n"
        '[f](https://example.org) `[g](code.md)` <img src="picture.png">\n\n```\n[h](code.md)\n```\n'
    )
    assert lost(page) == ["#another", "none.md", "../up.md", "picture.png"]


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module that leads links to the pages of the site."""
    pytest.importorskip("latex2mathml", reason="the extra docs is not installed")
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    return importlib.import_module("generate.links")


@pytest.mark.parametrize(
    ("link", "expected"),
    [
        ("data.md#arrays", "data.md#arrays"),
        ("../concepts/stream.md", "../concepts/stream.md"),
        ("../../strategies/methods/dfme.py", "../methods/dfme.md"),
        ("../../strategies/methods", "../methods/index.md"),
        ("../../benchmarks/results/lra.md#phases", "../results/lra.md#phases"),
        ("../../lra/meta/step.py", "../reference/lra/meta/step.md"),
        ("../../lra/meta", "../reference/lra/meta/index.md"),
        ("../../examples/library.py", "../files/examples/library.py.md"),
        ("https://example.org", "https://example.org"),
        ("#here", "#here"),
    ],
)
def test_links_lead_to_pages_of_the_site(link: str, expected: str, made: ModuleType) -> None:
    code = f"\n```\n[x]({link})\n```\n"
    text = made.rewritten(f"see [x]({link}).{code}", "docs/how-to/page.md", "how-to/page.md")
    assert text == f"see [x]({expected}).{code}"


def test_a_broken_link_of_the_site_is_noticed(made: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text(
        '<h1 id="top"><a href="#top"></a><a href="b.html#there"></a><a href="b.html#gone"></a>'
        '<img src="no.png"><a href="https://example.org"></a><a href="c.html"></a>'
    )
    (tmp_path / "b.html").write_text("<h1 id=there></h1><a href=a.html#top></a>")
    assert list(made.broken(tmp_path)) == ["a.html: b.html#gone", "a.html: c.html", "a.html: no.png"]
