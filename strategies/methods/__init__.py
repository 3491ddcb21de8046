"""The methods, one short file each: how samples are made. What the student keeps of them is another axis."""

from __future__ import annotations

from lra.strategies.method import Method
from lra.strategies.methods.adadfkd import AdaDFKD
from lra.strategies.methods.adi import ADI
from lra.strategies.methods.aeahlrg import AEAHLRG
from lra.strategies.methods.cmi import CMI
from lra.strategies.methods.cpnet import CPNet
from lra.strategies.methods.cpsc import CPSC
from lra.strategies.methods.cudfkd import CuDFKD
from lra.strategies.methods.dafl import DAFL
from lra.strategies.methods.dfme import DFME
from lra.strategies.methods.dfq import DFQ
from lra.strategies.methods.dlig import DLIG
from lra.strategies.methods.fast import Fast
from lra.strategies.methods.fixed import Fixed
from lra.strategies.methods.gdfq import GDFQ
from lra.strategies.methods.nayer import NAYER
from lra.strategies.methods.predfkd import PreDFKD
from lra.strategies.methods.rgal import RGAL
from lra.strategies.methods.softtarget import SoftTarget
from lra.strategies.methods.ssd import SSD
from lra.strategies.methods.tadfkd import TADFKD
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
        TADFKD,
        DFME,
        ADI,
        CMI,
        Fast,
        SSD,
        RGAL,
        NAYER,
        DLIG,
        AEAHLRG,
        ZSKD,
        SoftTarget,
        GDFQ,
        CPSC,
        CPNet,
        Fixed,
    )
}
"""Name to method, in the order they are listed."""
