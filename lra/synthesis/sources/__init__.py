"""What is optimised to make a batch of synthetic images: pixels, or a generator with its latents."""

from lra.synthesis.sources.lasting import MetaSource as MetaSource
from lra.synthesis.sources.lasting import NoisyLayerSource as NoisyLayerSource
from lra.synthesis.sources.lasting import RenewedSource as RenewedSource
from lra.synthesis.sources.lasting import ReusableSource as ReusableSource
from lra.synthesis.sources.lasting import symmetric as symmetric
from lra.synthesis.sources.source import LatentSource as LatentSource
from lra.synthesis.sources.source import Pixels as Pixels
from lra.synthesis.sources.source import Source as Source
