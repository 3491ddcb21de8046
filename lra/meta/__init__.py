"""The LRA meta step: the gradient of L_acq(θ) + w L_ret(θ') with θ' = θ − α · rule(∇L_acq(θ))."""

from lra.meta.carry import carry as carry
from lra.meta.errors import MetaDiverged as MetaDiverged
from lra.meta.errors import MetaStepError as MetaStepError
from lra.meta.guards import check_student as check_student
from lra.meta.inner import InnerRule as InnerRule
from lra.meta.inner import Rate as Rate
from lra.meta.inner import Rates as Rates
from lra.meta.inner_rules import InnerAdam as InnerAdam
from lra.meta.inner_rules import InnerSGD as InnerSGD
from lra.meta.inner_rules import inner_from as inner_from
from lra.meta.learned import LearnedRates as LearnedRates
from lra.meta.passes import beside as beside
from lra.meta.rules import closed_form as closed_form
from lra.meta.session import Curvature as Curvature
from lra.meta.session import Forward as Forward
from lra.meta.session import LookAhead as LookAhead
from lra.meta.settings import AheadStatistics as AheadStatistics
from lra.meta.step import MetaStep as MetaStep
from lra.meta.step import lookahead as lookahead
from lra.meta.step import lra_step as lra_step
