"""Which stored images are replayed: mostly those on which student and teacher differ, with weights to correct for it.

Prioritised experience replay in its proportional form (Schaul et al., ICLR 2016). SSD-KD (Liu et al., CVPR 2024) draws
from its buffer in this manner; neither its code nor its formulas are public, so that this form is ours, after it: the
priority of an image is the distance between student and teacher when it was last drawn.
"""

import torch
from torch import Tensor

from lra.randomness import uniform
from lra.state import State

LEAST = 1e-6
"""Added to every distance, so that every image can be drawn again."""


class Priorities:
    """The priority of each place in a store, p = (δ + 1e-6)^a, and draws with probability P = p / Σp.

    Args:
        exponent: a ≥ 0; 0 draws uniformly, 1 in proportion to the distance (Schaul et al.: 0.6).
        correction: β at the first draw, in [0, 1] (Schaul et al.: 0.4).
        draws: number in the run, over which β grows linearly to 1.

    Raises:
        ValueError: for a negative exponent, or a correction outside [0, 1].
    """

    def __init__(self, exponent: float, correction: float = 0.4, draws: int = 1):
        if not exponent >= 0 or not 0 <= correction <= 1:
            raise ValueError(f"a priority needs an exponent ≥ 0 and a correction in [0, 1]: {exponent}, {correction}")
        self.exponent = exponent
        self.correction = correction
        self.draws = draws
        self.drawn = 0
        self._distances = torch.ones(0, dtype=torch.double)
        self._places: Tensor | None = None
        self._faulty = torch.tensor(-1)

    @property
    def beta(self) -> float:
        """β of the next draw."""
        return self.correction + (1 - self.correction) * min(1.0, self.drawn / max(1, self.draws))

    def admit(self, places: Tensor, device: torch.device) -> None:
        """Give new images at ``places`` (m,) of a store on ``device`` the greatest priority there is."""
        known, size = len(self._distances), int(places.max()) + 1 if len(places) else 0
        self._distances = self._distances.to(device)
        self._faulty = self._faulty.to(device)
        greatest = self._distances.amax() if known else self._distances.new_ones(())
        if size > known:
            self._distances = torch.cat([self._distances, greatest.expand(size - known)])
        self._distances[places.to(device)] = greatest

    def reset(self) -> None:
        """Make all priorities equal, since another teacher labels the images."""
        self._distances = torch.ones_like(self._distances)

    def draw(self, n: int) -> tuple[Tensor, Tensor]:
        """``n`` places with replacement, and the weights of the images there: each (n,).

        w = (N·P)^-β, divided by the largest in the store, so that at β = 1 the mean of w·ℓ is that of a uniform draw,
        times a constant.
        """
        shares = (self._distances + LEAST) ** self.exponent
        shares = shares / shares.sum()
        steps = shares.cumsum(0)
        height = uniform(n, device=steps.device).double() * steps[-1]
        places = torch.searchsorted(steps, height, right=True).clamp_max(len(steps) - 1)
        weights = (shares[places] / shares.amin()) ** -self.beta
        self.drawn += 1
        self._places = places
        return places, weights.float()

    def learn(self, distances: Tensor) -> None:
        """Update priorities with the distances (n,) of student and teacher on the last draw.

        If an image was drawn several times, its largest distance is used. NaN leaves a priority as it is; see `check`.
        """
        if self._places is None or not len(distances):
            return
        # Of images that are shown several times, one set of views comes after another.
        places = self._places.repeat(-(-len(distances) // len(self._places)))[: len(distances)]
        found = distances.detach().double()
        sound = found.isfinite()
        self._faulty = torch.where(sound.all(), self._faulty, places[(~sound).to(torch.uint8).argmax()])
        found = torch.where(sound, found, self._distances[places])
        self._distances.scatter_reduce_(0, places, found, "amax", include_self=False)

    def check(self) -> None:
        """Raise if a distance was NaN; reads from the device, so it should not be called at every step.

        Raises:
            ValueError: naming the image.
        """
        if (place := int(self._faulty)) >= 0:
            raise ValueError(
                f"replayed image {place}: the distance of student and teacher is not a number, so it has no priority: "
                "lower student.lr, or set replay.priority=0"
            )

    def state_dict(self) -> State:
        """The distances, and the number of draws."""
        return {"distances": self._distances.clone(), "drawn": self.drawn}

    def load_state_dict(self, state: State) -> None:
        """Take up a state of `state_dict`."""
        self._distances, self.drawn, self._places = state["distances"].clone(), state["drawn"], None
        self._faulty = self._faulty.to(self._distances.device)
