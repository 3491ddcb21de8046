"""Why a pickled file of weights is refused: what it would do when loaded, found out without loading it."""

import io
import pickletools
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path

SYSTEM = ("builtins", "nt", "os", "posix", "runpy", "subprocess", "sys")
"""Modules that only code needs, never saved weights."""

HARMLESS = re.compile(r"torch\.\w+$|torch\._utils\.|collections\.")
"""Names that pickled weights consist of."""


def why_refused(path: Path, said: str) -> str:
    """What is refused in a pickled file, and how to save it again if it is trusted; ``said`` is torch's message."""
    found = re.search(r"GLOBAL (\S+)", said)
    refused = found.group(1) if found else next(iter(_imported(path)), None)
    if refused is None:
        return "cannot be read, or would run code when loaded, which is refused: save a state dict, or safetensors"
    if refused.split(".")[0] in SYSTEM:
        return f"would run {refused} when loaded, which is refused: get it again, from a source that you trust"
    inside = "['state_dict']"
    if refused.startswith("numpy"):
        what = "a number or array of numpy besides its weights"
    elif re.match(r"(torch\.nn|torchvision|timm)\b", refused) or _is_object(path):
        what, inside = "a whole module in place of its weights", ".state_dict()"
    else:
        what = "more than weights"
    return (
        f"holds {what} ({refused}), which could run code when loaded and is refused: if you trust it, save its weights "
        f"alone, torch.save(torch.load({path.name!r}, weights_only=False){inside}, 'weights.pt')"
    )


def _imported(path: Path) -> Iterator[str]:
    """Names that a pickle would import, except torch's own and plain containers, read without running it."""
    try:
        stream, texts = io.BytesIO(_pickled(path)), [""]
        # The older form of torch.save is several pickles, one after another.
        while True:
            for code, argument, _ in pickletools.genops(stream):
                if "UNICODE" in code.name:
                    texts.append(str(argument))
                name = str(argument).replace(" ", ".") if code.name == "GLOBAL" else ".".join(texts[-2:])
                if code.name in ("GLOBAL", "STACK_GLOBAL") and not HARMLESS.match(name):
                    yield name
    # The last pickle is followed by bytes of tensors; a damaged file or its archive may raise anything.
    except Exception:
        return


def _pickled(path: Path) -> bytes:
    """The pickle of a file that torch saved, in either of its forms."""
    if not zipfile.is_zipfile(path):
        return path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        member = next((name for name in archive.namelist() if name.endswith("data.pkl")), None)
        return b"" if member is None else archive.read(member)


def _is_object(path: Path) -> bool:
    """Whether what torch pickled is an object of some class, not a dictionary, plain or ordered."""
    try:
        stream = io.BytesIO(_pickled(path))
        # The older form of torch.save has three pickles before the one that matters; the first is a long number.
        for _ in range(4):
            codes = [(code.name, argument) for code, argument, _ in pickletools.genops(stream)]
            name, argument = next(code for code in codes if code[0] not in ("PROTO", "FRAME", "MARK"))
            if name in ("GLOBAL", "SHORT_BINUNICODE", "BINUNICODE"):
                return not str(argument).startswith("collections")
            if name == "EMPTY_DICT" and ("BINUNICODE", "protocol_version") not in codes:
                return False
    # A file that names something may be damaged after it, and raise anything.
    except Exception:
        return False
    return False
