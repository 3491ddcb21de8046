"""The methods, one short file each: how samples are made. What the student keeps of them is another axis."""

from __future__ import annotations

from typing import Any

from lra.strategies.method import Method, Setup
from lra.strategies.methods.adadfkd import AdaDFKD
from lra.strategies.methods.adi import ADI
from lra.strategies.methods.aeahlrg import AEAHLRG
from lra.strategies.methods.cmi import CMI
from lra.strategies.methods.cudfkd import CuDFKD
from lra.strategies.methods.dafl import DAFL
from lra.strategies.methods.dfme import DFME
from lra.strategies.methods.dfq import DFQ
from lra.strategies.methods.fast import Fast
from lra.strategies.methods.gdfq import GDFQ
from lra.strategies.methods.nayer import NAYER
from lra.strategies.methods.predfkd import PreDFKD
from lra.strategies.methods.rgal import RGAL
from lra.strategies.methods.softtarget import SoftTarget
from lra.strategies.methods.zskd import ZSKD
from lra.strategies.methods.zskt import ZSKT

METHODS: dict[str, type[Method]] = {
    method.name: method
    for method in (
        PreDFKD,
        DAFL,
        ZSKT,
        DFQ,
        CuDFKD,
        AdaDFKD,
        DFME,
        ADI,
        CMI,
        Fast,
        RGAL,
        NAYER,
        AEAHLRG,
        ZSKD,
        SoftTarget,
        GDFQ,
    )
}
"""Name to method, in the order they are listed."""


def fitted(name: str, setup: Setup, options: Any) -> Method:
    """The method ``name``, if its options can work with the teacher.

    Raises:
        UnfitTeacher: if they ask for BatchNorm statistics and the teacher has none, in one line that names the
            methods that ask for none.
    """
    from lra.anatomy import batchnorm_layers
    from lra.teacher import UnfitTeacher

    method = METHODS[name](setup, options)
    if method.needs_batchnorm and not batchnorm_layers(setup.teacher.network, setup.problem.image):
        others = [m.name for m in METHODS.values() if not m(setup, m.Options()).needs_batchnorm]
        raise UnfitTeacher(
            f"method {name!r} compares BatchNorm statistics and the teacher has no BatchNorm: choose a teacher with "
            f"it (teacher.network), set {method.without_batchnorm}, or a method without: {', '.join(others)}"
        )
    return method
