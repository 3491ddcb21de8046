"""Options of the look-ahead and of its objective, declared apart from the code they configure: this needs no torch."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from lra.options import Count, NonNegative, Options, Positive


class LookAheadOptions(Options):
    """α, the rule of the inner step, and how the gradient through it is computed."""

    alpha: NonNegative = 0.03
    """Inner learning rate α, of the acquisition loss as weighted by ``mixture``; published as 0.9, where the term, once
    it takes effect, reduces training to chance. 0 is replay without a look-ahead, the control for the look-ahead."""
    alpha_ratio: Positive | None = None
    """α as a multiple of the student's current learning rate, in place of ``alpha``; 1 looks as far ahead as a step of
    plain SGD on the new samples' part of the loss would go."""
    alpha_rate: NonNegative = 0.02
    """Learn α, one for each parameter tensor, starting from ``alpha``: the step size for log α (see `LearnedRates`). 0
    keeps α constant, and is the default where ``alpha_ratio`` sets it or ``alpha`` is 0."""
    inner: Literal["sgd", "adam"] = "sgd"
    """Update rule of the inner step; adam moves every weight by about α."""
    inner_weight_decay: NonNegative = 0.0
    """Weight decay λ of the inner step (published: 5e-4)."""
    clip: Annotated[float, Field(gt=0)] | None = None
    """Largest norm of the inner gradient, over all parameters; unlimited if not given."""
    normalise: bool = False
    """Divide the inner gradient by its norm over all parameters."""
    shares: Literal["joint", "own"] = "joint"
    """On several processes: whether the inner step follows the acquisition gradient of all processes' shares, which
    takes three messages per student step, or of each process's own share, which takes one and is another objective."""
    order: Literal[1, 2] = 2
    """1 leaves out the curvature: θ' is treated as a constant shift of θ."""
    curvature: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Fraction of the new batch whose Hessian stands for that of the whole batch; 1 is exact."""
    engine: Literal["lean", "higher"] = "lean"
    """What computes the gradient; both give the same result."""
    rules: bool = True
    """Use closed-form second derivatives of convolution and BatchNorm; PyTorch's give the same result more slowly."""
    batchnorm: Literal["acquisition", "both"] = "acquisition"
    """Which batches update the student's running statistics, once each per step."""
    statistics: Literal["joint", "batch", "running"] = "joint"
    """What BatchNorm normalises by. joint: new and replayed images by their common statistics, as in plain replay (at
    θ' by those at θ, through which gradients flow too); batch: each batch by its own, which is cheaper and the paper's
    choice; running: the replayed images, at θ', by the running statistics."""

    @model_validator(mode="before")
    @classmethod
    def _constant(cls, given: Any) -> Any:
        """No rates are learned where α comes from elsewhere or is 0, unless requested."""
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

    order: Literal[1, 2] = 1
    """2 is the paper's gradient, through the curvature of the acquisition loss; 1 leaves that out, treating θ' as a
    constant shift of θ, at a fraction of the extra cost. 2 is the default where ``curvature`` asks for a part of it."""
    weight: NonNegative = 1.0
    """Weight w of the retention loss."""
    mixture: Literal["proportional", "convex", "sum"] = "proportional"
    """How the two losses are weighted: each by its share of the images, as in plain replay's joint batch; by 1/(1+w)
    and w/(1+w); or fully, as the paper writes it (an eighth of the images, replayed, then pulls as hard as all new
    samples together, and the student's effective learning rate doubles)."""
    objective: Literal["paper", "reference", "reference_detached"] = "paper"
    """What is minimised: the paper's objective, what the released code was meant to minimise, or what it does minimise;
    see `lra.strategies.lra`."""
    along: Literal["acquisition", "momentum"] = "acquisition"
    """Direction of the inner step: the weighted ∇L_acq; or, ours and in no paper, the average of recent gradients given
    by the optimiser's momentum m, (1 − μ) m. That is known before the step, so no inner gradient and no Hessian are
    computed; on the other hand it is some steps old and mixes both losses, and α is constant."""
    every: Count = 1
    """Look ahead in one of every this many student steps, ours and in no paper; the others are plain replay."""

    @model_validator(mode="before")
    @classmethod
    def _known_beforehand(cls, given: Any) -> Any:
        """No rates are learned along the momentum, and curvature is of second order, unless requested otherwise."""
        if not isinstance(given, dict):
            return given
        implied: dict[str, Any] = {"alpha_rate": 0.0} if given.get("along") == "momentum" else {}
        if given.get("curvature", 1.0) != 1.0:
            implied["order"] = 2
        return implied | given

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
                f"every={self.every} takes plain replay steps between, which weight both losses by their images: "
                "it needs objective=paper, mixture=proportional and weight=1"
            )
        return self


_ALONG = {"alpha_rate": 0.0}
"""Values that options of the inner gradient must have along the momentum, where these are not the defaults."""
