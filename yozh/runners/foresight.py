"""What an agent expected of the states that it went through, beside what came."""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from yozh.core import AnyArray, TimeStep


class Foresight(NamedTuple):
    """Sums over the states that an episode has gone through, but for its last; NumPy or JAX, as its arguments are."""

    predicted: Float[AnyArray, "*b"]
    """Of what was expected."""
    came: Float[AnyArray, "*b"]
    """Of the discounted rewards after each state."""
    states: Float[AnyArray, "*b"]
    """How many."""
    reach: Float[AnyArray, "*b"]
    """Of the states' weights in the newest reward: 1 + γ + γ² ..."""
    largest: Float[AnyArray, "*b"]
    """The largest |value| expected."""

    @classmethod
    def none(cls, shape: tuple[int, ...]) -> "Foresight":
        """Before the first state."""
        return cls(*np.zeros((5, *shape), np.float32))

    def onward(self, value: Float[AnyArray, " B"], reward: Float[AnyArray, " B"], step: TimeStep, gamma: Any) -> "Foresight":  # fmt: skip
        """After one more step, that came of a state worth `value`. A truncated episode is taken to have ended one state earlier, with
        the return that was expected there, since what would have followed its last state is not known."""
        going, cut = 1.0 - step.first.astype(np.float32), step.last.astype(np.float32) * step.discount
        whole = 1.0 - cut
        reach = 1.0 + gamma * self.reach
        came = whole * reach * reward + cut * gamma * self.reach * value
        maximum = jnp.maximum if isinstance(value, Array) else np.maximum
        return Foresight(
            going * (self.predicted + whole * value),
            going * (self.came + came),
            going * (self.states + whole),
            going * reach,
            going * maximum(self.largest, abs(value)),
        )

    def summary(self) -> dict[str, float]:
        """Of whole episodes: means over all states, their difference, and the largest value."""
        total = [float(np.sum(x)) for x in (self.predicted, self.came, self.states)]
        if not total[2]:
            return {}
        value, came = total[0] / total[2], total[1] / total[2]
        largest = float(np.max(self.largest))
        return {"predicted_value": value, "discounted_return": came, "overestimation": value - came, "largest_value": largest}  # fmt: skip
