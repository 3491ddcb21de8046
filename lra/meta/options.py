"""How a step looks ahead, and what it minimises, declared apart from what it sets: reading this needs no torch."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from lra.options import Count, NonNegative, Options, Positive


class LookAheadOptions(Options):
    """α, the rule of the inner step, and how the gradient through it is computed."""

    alpha: NonNegative = 0.03
    """Inner rate α, of the acquisition loss as it counts by ``mixture``; published as 0.9, where the live term sends
    training to chance. 0 is replay without a look-ahead: what the look-ahead is to be compared with."""
    alpha_ratio: Positive | None = None
    """α as a multiple of the student's current learning rate, in place of ``alpha``; 1 looks as far ahead as a step of
    plain SGD on the new samples' part of the loss would go."""
    alpha_rate: NonNegative = 0.02
    """Learn α, one for each parameter tensor, from ``alpha`` on: the step of log α (see `LearnedRates`). 0 keeps it
    constant, and is the default where ``alpha_ratio`` sets it or ``alpha`` is 0."""
    inner: Literal["sgd", "adam"] = "sgd"
    """The rule of the inner step; adam moves every weight by about α."""
    inner_weight_decay: NonNegative = 0.0
    """λ of the inner step (published: 5e-4)."""
    clip: Annotated[float, Field(gt=0)] | None = None
    """Largest norm of the inner gradient, over all parameters."""
    normalise: bool = False
    """Divide the inner gradient by that norm."""
    shares: Literal["joint", "own"] = "joint"
    """On several processes: whether the inner step goes along the acquisition gradient of all shares, which takes three
    messages a student step, or each process's along its own, which takes one and is another objective."""
    order: Literal[1, 2] = 2
    """1 leaves the curvature out: θ' is taken as given."""
    curvature: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Part of the new batch whose Hessian stands for that of all; 1 is exact."""
    engine: Literal["lean", "higher"] = "lean"
    """What computes the gradient; both give the same."""
    rules: bool = True
    """Second derivatives of convolution and BatchNorm in closed form; without, PyTorch's: the same, and slower."""
    batchnorm: Literal["acquisition", "both"] = "acquisition"
    """Which batches move the student's running statistics, once each per step."""
    statistics: Literal["joint", "batch", "running"] = "joint"
    """What BatchNorm normalises by: new and replayed images by their statistics together, as in plain replay (at θ' by
    those they had at θ, whose gradient counts too); each batch by its own, which is cheaper and the paper's; or the
    replayed ones, at θ', by the running statistics."""

    @model_validator(mode="before")
    @classmethod
    def _constant(cls, given: Any) -> Any:
        """No rates are learned where α comes from elsewhere or is 0, unless that is asked for."""
        if not isinstance(given, dict) or "alpha_rate" in given:
            return given
        constant = given.get("alpha_ratio") is not None or given.get("alpha") == 0
        return {**given, "alpha_rate": 0.0} if constant else given

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.clip is not None and self.normalise:
            raise ValueError("clip and normalise exclude each other; drop one")
        if self.alpha_rate and self.alpha_ratio is not None:
            raise ValueError("alpha_rate learns alpha, which alpha_ratio sets; drop one")
        if self.alpha_rate and not self.alpha:
            raise ValueError("alpha_rate learns alpha from a start above 0; raise alpha")
        if (self.batchnorm, self.statistics) == ("both", "joint"):
            raise ValueError("batchnorm=both needs statistics=batch: the joint ones are taken once; change one")
        if self.curvature < 1 and (self.engine, self.order) != ("lean", 2):
            raise ValueError(f"curvature={self.curvature:g} needs engine=lean and order=2; change these, or drop it")
        return self


class LRAOptions(LookAheadOptions):
    """The look-ahead of a distillation step, and how its two losses add up."""

    weight: NonNegative = 1.0
    """w, of the retention loss."""
    mixture: Literal["proportional", "convex", "sum"] = "proportional"
    """How the two losses add up: each by its share of the images, as in plain replay's joint batch; by 1/(1+w) and
    w/(1+w); or whole, as the paper writes it (with an eighth of the images, replay then pulls as hard as all new
    samples together, and the student's effective rate doubles)."""
    objective: Literal["paper", "reference", "reference_detached"] = "paper"
    """What is minimised; see above."""
    along: Literal["acquisition", "momentum"] = "acquisition"
    """What the inner step goes down: ∇L_acq as it counts; or, ours and in no paper, the mean of all late gradients that
    the optimiser's momentum m is, (1 − μ) m, known before the step: no gradient of its own is taken, and no Hessian
    comes in. In turn that direction is some steps old, and of both losses; α is constant."""
    every: Count = 1
    """Look ahead in one student step of so many, ours and in no paper; the others are plain replay."""

    @model_validator(mode="before")
    @classmethod
    def _known_beforehand(cls, given: Any) -> Any:
        """No rates are learned along the momentum, unless that is asked for."""
        if not isinstance(given, dict) or given.get("along") != "momentum" or "alpha_rate" in given:
            return given
        return {**given, "alpha_rate": 0.0}

    @model_validator(mode="after")
    def _composes(self) -> Self:
        if self.along == "momentum":
            for name in ("alpha_rate", "clip", "normalise", "inner", "inner_weight_decay", "curvature", "engine"):
                value, needed = getattr(self, name), _ALONG.get(name, type(self).model_fields[name].default)
                if value != needed:
                    raise ValueError(f"{name}={value} is about the gradient of acquisition: drop it, or along=momentum")
            if self.objective != "paper":
                raise ValueError(f"objective={self.objective} goes along the acquisition alone: drop along=momentum")
        if self.every > 1 and (self.objective, self.mixture, self.weight) != ("paper", "proportional", 1):
            raise ValueError(
                f"every={self.every} takes steps of plain replay between, which count both losses by their images: "
                "it needs objective=paper, mixture=proportional and weight=1"
            )
        return self


_ALONG = {"alpha_rate": 0.0}
"""What options of the inner gradient must be along the momentum, where that is not their default."""
