"""Reading what a stranger may have written: as data alone, and no more of it than fits."""

from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile, is_zipfile

import yaml

from lra.benchmarks.errors import UsageError, one_line

NODES = 200_000
"""Values in a YAML text at most, each counted as often as aliases repeat it."""
UNPACKED = 2**30
"""Bytes that an archive may always unpack to."""
SWELLING = 200
"""How many times its own size an archive may unpack to beyond that; photographs reach 2, blank ones 1000."""


class NotPlain(ValueError):
    """A text that is no plain YAML; the message says why in one line."""


class _Plain(yaml.SafeLoader):
    """YAML's safe loader, but a key given twice is an error, as YAML has it, and not lost."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if (key.tag, key.value) in seen:
                raise NotPlain(f"line {key.start_mark.line + 1} gives {key.value!r} a second time")
            seen.add((key.tag, key.value))
        return node


def parse_yaml(text: str) -> Any:
    """The data in a YAML text; tags that would make objects are errors.

    Raises:
        NotPlain: if it is no YAML, nested too deeply, or swollen by aliases.
    """
    try:
        tree = yaml.load(text, _Plain)
    except RecursionError:
        raise NotPlain("it is nested too deeply") from None
    # Odd scalars (a 13th month, an empty !!int) make the safe loader raise anything.
    except Exception as error:
        raise NotPlain(one_line(error) or "it cannot be read") from None
    left = NODES
    open_nodes = [tree]
    while open_nodes:
        node = open_nodes.pop()
        left -= 1
        if left < len(open_nodes):
            raise NotPlain(f"it holds more than {NODES:,} values; aliases repeat them")
        if isinstance(node, dict):
            open_nodes += [*node.keys(), *node.values()]
        elif isinstance(node, list | tuple | set):
            open_nodes += node
    return tree


def refuse_zip_bomb(path: Path) -> None:
    """Raise `UsageError` for an archive that unpacks to far more than it seems to hold, or does not say how much.

    What is no archive, or not there, is the reader's.
    """
    try:
        if not is_zipfile(path):
            return
        with ZipFile(path) as archive:
            unpacked = sum(member.file_size for member in archive.infolist())
    except OSError:
        return
    # zipfile raises NotImplementedError at what it cannot read; other readers, torch's for one, are content with less.
    except (BadZipFile, ValueError, NotImplementedError) as error:
        raise UsageError(f"{path} is an archive that cannot be looked into ({error}): save it anew") from None
    if unpacked > max(UNPACKED, SWELLING * path.stat().st_size):
        raise UsageError(
            f"{path} unpacks from {path.stat().st_size:,} to {unpacked:,} bytes, which is refused: save it uncompressed"
        )
