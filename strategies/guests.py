"""Avalanche's plugins by name: ``avalanche:ewc`` after ``--replay`` or ``--plugin``.

A synthesis stream has no classes, no tasks and no finite dataset. Where a plugin asks for them it gets the teacher's
argmax, one task label 0, and a draw of as many images as the student's steps of the experience take. `GUESTS` is the
table of what each asks for and what becomes of it; the documentation shows it.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Guest:
    """A row of the table.

    Attributes:
        plugin: the class, as ``package.module:Class``; ``None`` for one that cannot work here.
        needs: what it asks of a stream.
        gets: what the synthesis stream gives it for that.
        verdict: what to expect of it, or why it is refused.
        stock_data: whether it works on Avalanche's data loaders.
        classes: Avalanche's own classes, exactly these, that the row says to be no good here as they are.
    """

    plugin: str | None
    needs: str
    gets: str
    verdict: str
    stock_data: bool = False
    classes: tuple[str, ...] = ()


FITTED = "lra.strategies.avalanche_plugins"

DRAW = "a draw of the experience"
LOGITS = f"{DRAW} with the teacher's logits; the student's distance to them is the loss"

GUESTS: dict[str, Guest] = {
    "lwf": Guest(
        f"{FITTED}:LwF",
        "classes and tasks of past experiences",
        "the teacher's argmax; one task",
        "works; its old model is the student one experience ago, so it holds back little",
    ),
    "ewc": Guest(
        f"{FITTED}:EWC",
        "a labelled dataset after each experience",
        LOGITS,
        "works; `mode=separate` grows with the number of experiences",
    ),
    "si": Guest(
        f"{FITTED}:SI",
        "nothing but the student's path",
        "that",
        "works, with earlier weights copied; as Avalanche has it, it is inert on a CPU",
        classes=("SynapticIntelligencePlugin",),
    ),
    "mas": Guest("avalanche.training.plugins:MASPlugin", "unlabelled images after each experience", DRAW, "works"),
    "rwalk": Guest(
        f"{FITTED}:RWalk",
        "a labelled batch per step",
        "the step's batch and logits",
        "works, with the student kept in training mode, which Avalanche's leaves",
        classes=("RWalkPlugin",),
    ),
    "agem": Guest(
        f"{FITTED}:AGEM",
        "a labelled dataset to keep samples of",
        LOGITS,
        "works; memory and time grow with the number of experiences",
    ),
    "gem": Guest(
        f"{FITTED}:GEM",
        "a labelled dataset to keep samples of",
        LOGITS,
        "works on short streams: one backward pass per past experience and step",
    ),
    "replay": Guest(
        f"{FITTED}:StoredReplay",
        "data loaders over labelled datasets; classes for `class-balanced`",
        f"{LOGITS}; classes are the teacher's argmax",
        "works; slows down with the number of experiences, which `--replay reservoir` does not",
        stock_data=True,
    ),
    "mir": Guest(
        f"{FITTED}:MIR",
        "labelled datasets to keep samples of, by class",
        f"{LOGITS}; classes are the teacher's argmax",
        "works; slows down with the number of experiences",
    ),
    "cwr": Guest(
        None,
        "experiences that bring new classes",
        "nothing: every experience has every class",
        "refused: it would clear the last layer and freeze the rest after the first experience",
        classes=("CWRStarPlugin",),
    ),
    "from-scratch": Guest(
        None,
        "all past data in every experience",
        "nothing: an experience has its own samples only",
        "refused: a student reset at every generator update learns from the last one alone",
        classes=("FromScratchTrainingPlugin",),
    ),
    "gdumb": Guest(
        None,
        "many epochs on a memory, once",
        "nothing: a step is one pass over a new draw",
        "refused: it resets the student at every generator update",
        classes=("GDumbPlugin",),
    ),
    "generative": Guest(
        None,
        "a generator with a strategy of its own and integer classes",
        "nothing: its copies of generator and student cost more than the step",
        "refused: use `--replay generative`, which is made for streams",
        classes=("GenerativeReplayPlugin", "TrainGeneratorAfterExpPlugin"),
    ),
    "bic": Guest(
        None,
        "classes that come one after another, and a validation set split from each experience",
        "nothing: every experience has every class, and its samples are drawn as they are needed",
        "refused: there is no bias towards new classes to correct",
        classes=("BiCPlugin",),
    ),
    "cope": Guest(
        None,
        "integer classes, and features in place of logits",
        "nothing: the student gives logits, and answers are the teacher's logits",
        "refused: its prototypes and its loss are of classes",
        classes=("CoPEPlugin",),
    ),
    "evaluation": Guest(
        None,
        "metrics and loggers, which are objects",
        "nothing: no option can hold one",
        "refused: a run measures by itself, see `evaluation.every` and `--tensorboard`",
        classes=("EvaluationPlugin",),
    ),
    "feature-distillation": Guest(
        None,
        "a student that keeps its last features as an attribute",
        "nothing: students keep none",
        "refused: use `avalanche:lwf`, on logits",
        classes=("FeatureDistillationPlugin",),
    ),
    "gss": Guest(
        None,
        "integer classes of each minibatch",
        "nothing: answers are the teacher's logits",
        "refused: use `--replay reservoir`, or `avalanche:mir`, which chooses too",
        classes=("GSS_greedyPlugin",),
    ),
    "lfl": Guest(
        None,
        "a student of Avalanche's with `get_features`",
        "nothing: students have none",
        "refused: it would freeze the last layer after the first experience",
        classes=("LFLPlugin",),
    ),
    "lr-scheduler": Guest(
        None,
        "a scheduler of the student's optimiser, which is an object",
        "nothing: no option can hold one",
        "refused: set `schedule.lr`, or step a scheduler in a plugin of your own",
        classes=("LRSchedulerPlugin",),
    ),
    "ncm": Guest(
        None,
        "a student that classifies by class means or covariances",
        "nothing: students have a layer for it that is trained",
        "refused: there are no means to update",
        classes=(
            *("CurrentDataNCMUpdate", "MemoryNCMUpdate", "NCMOracle"),
            *("CurrentDataFeCAMUpdate", "MemoryFeCAMUpdate", "FeCAMOracle"),
        ),
    ),
    "rar": Guest(
        None,
        "integer classes, and a student that torch.fx can trace",
        "nothing: answers are the teacher's logits",
        "refused: it perturbs samples towards other classes",
        classes=("RARPlugin",),
    ),
}
"""Name, as typed after ``avalanche:``, to row."""
