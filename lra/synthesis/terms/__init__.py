"""The losses that a synthesis step minimises, one class each."""

from lra.synthesis.terms.adversarial import Adversarial as Adversarial
from lra.synthesis.terms.adversarial import Disagreement as Disagreement
from lra.synthesis.terms.adversarial import SquaredGap as SquaredGap
from lra.synthesis.terms.adversarial import ZerothOrder as ZerothOrder
from lra.synthesis.terms.contrastive import CrossView as CrossView
from lra.synthesis.terms.contrastive import FeatureBank as FeatureBank
from lra.synthesis.terms.contrastive import RingNCE as RingNCE
from lra.synthesis.terms.contrastive import SupervisedContrast as SupervisedContrast
from lra.synthesis.terms.contrastive import Triplet as Triplet
from lra.synthesis.terms.contrastive import description as description
from lra.synthesis.terms.contrastive import projection_head as projection_head
from lra.synthesis.terms.predictions import Activation as Activation
from lra.synthesis.terms.predictions import Balance as Balance
from lra.synthesis.terms.predictions import ClassPhases as ClassPhases
from lra.synthesis.terms.predictions import OneHot as OneHot
from lra.synthesis.terms.predictions import PriorFeature as PriorFeature
from lra.synthesis.terms.predictions import SoftLabelKL as SoftLabelKL
from lra.synthesis.terms.priors import L2 as L2
from lra.synthesis.terms.priors import BNStat as BNStat
from lra.synthesis.terms.priors import CoupledMaps as CoupledMaps
from lra.synthesis.terms.priors import Smoothness as Smoothness
from lra.synthesis.terms.priors import Spread as Spread
from lra.synthesis.terms.priors import TotalVariation as TotalVariation
from lra.synthesis.terms.term import Term as Term
from lra.synthesis.terms.term import TermValue as TermValue
from lra.synthesis.terms.term import total as total
