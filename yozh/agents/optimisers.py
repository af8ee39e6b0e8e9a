"""How a step follows from gradients, as a part: by what it is divided."""

import abc

import equinox as eqx
import optax
from jaxtyping import Array, Float

from yozh.core import check_positive, check_share, leaf, static


class Optimiser(eqx.Module):
    @abc.abstractmethod
    def __call__(self, learning_rate: Float[Array, ""]) -> optax.GradientTransformation: ...


class Adam(Optimiser):
    """`-η m / (√v + ε)`, with m and v the running means of the gradient (0.9) and of its square (0.999), both without their bias
    towards the zeros that they begin with (Kingma and Ba 2015, algorithm 1)."""

    epsilon: Float[Array, ""] = leaf(1e-8)
    """ε"""

    def __check_init__(self) -> None:
        check_positive("descent.epsilon", self.epsilon)

    def __call__(self, learning_rate: Float[Array, ""]) -> optax.GradientTransformation:
        return optax.adam(learning_rate, eps=self.epsilon)


class RMSProp(Optimiser):
    """`-η g / √(v − m² + ε)`, with m and v the running means of the gradient g and of its square, which begin at 0 (Graves 2013,
    eqs. 38 to 40, without momentum). The defaults are those of DQN on Atari: of the loss summed over a batch of 32, ε is 0.01."""

    decay: Float[Array, ""] = leaf(0.95)
    """How much of a running mean stays."""
    epsilon: Float[Array, ""] = leaf(0.01 / 32**2)
    """ε; it stands under the root."""
    centred: bool = static(True)
    """Whether m² is subtracted."""

    def __check_init__(self) -> None:
        check_positive("descent.epsilon", self.epsilon)
        check_share("descent.decay", self.decay, "[0, 1)")

    def __call__(self, learning_rate: Float[Array, ""]) -> optax.GradientTransformation:
        return optax.rmsprop(learning_rate, self.decay, self.epsilon, centered=self.centred)
