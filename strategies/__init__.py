"""Data-free distillation inside Avalanche: the stream, the strategy, retention plugins and methods."""

from typing import TYPE_CHECKING

from lra.exports import offered

if TYPE_CHECKING:
    from lra.strategies.checkpoint import capture as capture
    from lra.strategies.checkpoint import restore as restore
    from lra.strategies.evaluation import QuietEvaluation as QuietEvaluation
    from lra.strategies.increment.abd import ABDPlugin as ABDPlugin
    from lra.strategies.increment.benchmark import growing as growing
    from lra.strategies.increment.benchmark import split as split
    from lra.strategies.increment.datafree import DataFreeReplayPlugin as DataFreeReplayPlugin
    from lra.strategies.increment.deepinversion import DeepInversionPlugin as DeepInversionPlugin
    from lra.strategies.increment.fecam import FeCAMPlugin as FeCAMPlugin
    from lra.strategies.increment.lwf_mc import LwFMCPlugin as LwFMCPlugin
    from lra.strategies.increment.options import ABDOptions as ABDOptions
    from lra.strategies.increment.options import DataFreeReplayOptions as DataFreeReplayOptions
    from lra.strategies.increment.options import DeepInversionOptions as DeepInversionOptions
    from lra.strategies.increment.options import FeCAMOptions as FeCAMOptions
    from lra.strategies.increment.options import RDFCILOptions as RDFCILOptions
    from lra.strategies.increment.rdfcil import RDFCILPlugin as RDFCILPlugin
    from lra.strategies.lra import LRA as LRA
    from lra.strategies.method import Method as Method
    from lra.strategies.method import OnlineMethod as OnlineMethod
    from lra.strategies.method import OnlineOptions as OnlineOptions
    from lra.strategies.method import Parts as Parts
    from lra.strategies.method import Setup as Setup
    from lra.strategies.methods import METHODS as METHODS
    from lra.strategies.replay import BufferReplay as BufferReplay
    from lra.strategies.retention import REPLAYS as REPLAYS
    from lra.strategies.retention import ReservoirReplay as ReservoirReplay
    from lra.strategies.strategy import DataFreeDistillation as DataFreeDistillation
    from lra.strategies.strategy import Replay as Replay
    from lra.strategies.stream import SynthesisStream as SynthesisStream
    from lra.strategies.stream import TestExperience as TestExperience

PUBLIC = {
    "capture": "lra.strategies.checkpoint",
    "restore": "lra.strategies.checkpoint",
    "QuietEvaluation": "lra.strategies.evaluation",
    "ABDPlugin": "lra.strategies.increment.abd",
    "growing": "lra.strategies.increment.benchmark",
    "split": "lra.strategies.increment.benchmark",
    "DataFreeReplayPlugin": "lra.strategies.increment.datafree",
    "DeepInversionPlugin": "lra.strategies.increment.deepinversion",
    "FeCAMPlugin": "lra.strategies.increment.fecam",
    "LwFMCPlugin": "lra.strategies.increment.lwf_mc",
    "ABDOptions": "lra.strategies.increment.options",
    "DataFreeReplayOptions": "lra.strategies.increment.options",
    "DeepInversionOptions": "lra.strategies.increment.options",
    "FeCAMOptions": "lra.strategies.increment.options",
    "RDFCILOptions": "lra.strategies.increment.options",
    "RDFCILPlugin": "lra.strategies.increment.rdfcil",
    "LRA": "lra.strategies.lra",
    "Method": "lra.strategies.method",
    "OnlineMethod": "lra.strategies.method",
    "OnlineOptions": "lra.strategies.method",
    "Parts": "lra.strategies.method",
    "Setup": "lra.strategies.method",
    "METHODS": "lra.strategies.methods",
    "BufferReplay": "lra.strategies.replay",
    "REPLAYS": "lra.strategies.retention",
    "ReservoirReplay": "lra.strategies.retention",
    "DataFreeDistillation": "lra.strategies.strategy",
    "Replay": "lra.strategies.strategy",
    "SynthesisStream": "lra.strategies.stream",
    "TestExperience": "lra.strategies.stream",
}
"""The public names of this package and their modules: the same as imported above for type checkers."""

__getattr__, __dir__ = offered(__name__, PUBLIC)
