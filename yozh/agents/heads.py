"""Several answers side by side in one network, as a part: at which discount each learns and from what, and which is acted by."""

import abc
from collections.abc import Callable
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, PyTree

from yozh.agents.backups import Backup, Looking, Target
from yozh.agents.scales import PopArt, Scale
from yozh.agents.values import ImplicitQuantile, Lesson, Outcomes, Values
from yozh.core import Unroll, check_not_negative, check_positive, check_share, concrete, leaf, require, static
from yozh.networks.following import Following
from yozh.networks.network import Network

MASK = "mask"
"""The name under which an unroll's extras hold which heads learn from each step."""


class Heads(eqx.Module):
    """What stands here is that of one answer."""

    explores: ClassVar[bool] = False
    """Whether following a head is exploration enough."""

    @property
    @abc.abstractmethod
    def count(self) -> int:
        """Answers k for each action."""

    def check(self, values: Values, scale: Scale, gamma: Float[Array, ""]) -> None:
        """Refuses what it does not go with."""

    def install(self, net: Network, another: Callable[[], Network]) -> Network:
        """With what belongs to the answers; `another` makes a network of the same torso and head that remembers nothing."""
        return net

    def apart(self, answer: Float[Array, "*b actions m"]) -> Float[Array, "*bk actions n"]:
        """The network's numbers, `[*b, k, actions, n]` if there are several answers."""
        return answer

    def judge(self, prefer: Float[Array, "*bk actions"], gamma: Float[Array, ""]) -> Float[Array, "*b actions"]:
        """What to choose by."""
        return prefer

    def explore(self, prefer: Float[Array, "*bk actions"], gamma: Float[Array, ""], memory: PyTree, key: Key[Array, ""]) -> tuple[Float[Array, "B actions"], dict[str, Array], PyTree]:  # fmt: skip
        """What to choose by while training, what the replay must know of it, and the memory after it."""
        return self.judge(prefer, gamma), {}, memory

    def targets(self, backup: Backup, look: Looking, window: Unroll, gamma: Float[Array, ""]) -> Target:
        """Of each answer, `[B, k, n]`."""
        return backup(look, window, gamma)

    def lesson(self, values: Values, said: Float[Array, "*bk n"], question: PyTree, target: Outcomes, window: Unroll) -> Lesson:  # fmt: skip
        """Of all answers together."""
        return values.lesson(said, question, target)


class Single(Heads):
    """One answer."""

    @property
    def count(self) -> int:
        return 1


class Several(Heads):
    """Each answer is learnt as if it were the only one: its target comes from what it itself says of the next state."""

    def check(self, values: Values, scale: Scale, gamma: Float[Array, ""]) -> None:
        name = type(self).__name__
        require(
            not isinstance(values, ImplicitQuantile),
            f"dqn: ImplicitQuantile has one answer, and {name} several; use values=QuantileRegression()",
        )
        require(
            not isinstance(scale, PopArt),
            f"dqn: PopArt keeps the scale of one answer, and {name} has several; use scale=Squashed()",
        )

    def apart(self, answer: Float[Array, "*b actions m"]) -> Float[Array, "*bk actions n"]:
        return jnp.moveaxis(answer.reshape(*answer.shape[:-1], self.count, -1), -2, -3)

    @abc.abstractmethod
    def mixture(self, gamma: Float[Array, ""]) -> Float[Array, " k"]:
        """How much each answer counts in what is chosen by; 1 together."""

    def gammas(self, gamma: Float[Array, ""]) -> Float[Array, " k"]:
        """The discount of each."""
        return jnp.broadcast_to(gamma, self.count)

    def share(self, window: Unroll) -> Float[Array, "B k"]:
        """How much of each window each answer learns; 1 for each answer that learns all."""
        return jnp.ones((window.weight.shape[0], self.count))

    def judge(self, prefer: Float[Array, "*bk actions"], gamma: Float[Array, ""]) -> Float[Array, "*b actions"]:
        illegal = jnp.finfo(prefer.dtype).min
        mixed = jnp.sum(jnp.swapaxes(prefer, -1, -2) * jnp.expand_dims(self.mixture(gamma), tuple(range(prefer.ndim - 1))), -1)  # fmt: skip
        return jnp.where(prefer.min(-2) > illegal, mixed, illegal)

    def targets(self, backup: Backup, look: Looking, window: Unroll, gamma: Float[Array, ""]) -> Target:
        def one(i: Array, gamma: Array) -> Target:
            return backup(lambda step: jax.tree.map(lambda x: x[:, i], look(step)), window, gamma)

        heads = jnp.arange(self.count, dtype=jnp.int32)
        return jax.vmap(one, out_axes=Target(1, None))(heads, self.gammas(gamma))  # pyright: ignore[reportArgumentType]

    def lesson(self, values: Values, said: Float[Array, "*bk n"], question: PyTree, target: Outcomes, window: Unroll) -> Lesson:  # fmt: skip
        each = jax.vmap(lambda said, target: values.lesson(said, question, target), 1, 1)(said, target)
        share = self.share(window) / self.count
        together: Any = jax.tree.map(lambda x: jnp.mean(x, -1), each)
        return Lesson(jnp.sum(each.loss * share, -1), together.priority, together.metrics)


class Horizons(Several):
    """The same learnt at several discounts, which makes features that tell near from far; chosen by is the first, whose discount
    is `gamma` (the auxiliary task of Fedus et al. 2019)."""

    others: tuple[Float[Array, ""], ...] = eqx.field(
        default=(0.5, 0.9), converter=lambda xs: tuple(jnp.asarray(x, jnp.float32) for x in xs)
    )
    """The other discounts."""

    def __check_init__(self) -> None:
        require(len(self.others) > 0, "heads.others must name a discount or more")
        for x in self.others:
            check_share("each of heads.others", x)

    @property
    def count(self) -> int:
        return 1 + len(self.others)

    def gammas(self, gamma: Float[Array, ""]) -> Float[Array, " k"]:
        return jnp.stack([gamma, *self.others])

    def mixture(self, gamma: Float[Array, ""]) -> Float[Array, " k"]:
        return jnp.zeros(self.count).at[0].set(1.0)


class Hyperbolic(Several):
    """What comes in t steps counts 1/(1 + k t) = ∫ g^{k t} dg over [0, 1] (Fedus et al. 2019): a sum over answers that are learnt
    at discounts g^k, the largest of them `gamma`, which should be nearer to 1 than 1 - k is.

    The g lie as in the paper, denser towards 1. Each stands for the cell of [0, 1] around it, so that what is earned at once
    counts fully; the paper takes left ends, and leaves out what lies beyond the largest.
    """

    k: Float[Array, ""] = leaf(0.1)
    """How impatient: half of the worth is lost after 1/k steps."""
    count: int = static(10)
    """Discounts."""

    def __check_init__(self) -> None:
        check_positive("heads.k", self.k)
        require(self.count > 1, f"heads.count must be 2 or more, not {self.count}")

    def check(self, values: Values, scale: Scale, gamma: Float[Array, ""]) -> None:
        super().check(values, scale, gamma)
        require(
            not concrete(gamma) or float(gamma) < 1,
            "dqn: Hyperbolic's discounts would all be 1: gamma must be less than 1",
        )

    def nodes(self, gamma: Float[Array, ""]) -> Float[Array, " k"]:
        """g, ascending."""
        share = jnp.arange(1, self.count + 1, dtype=jnp.float32) / self.count
        return 1.0 - (1.0 - gamma ** (1.0 / self.k)) ** share

    def gammas(self, gamma: Float[Array, ""]) -> Float[Array, " k"]:
        return self.nodes(gamma) ** self.k

    def mixture(self, gamma: Float[Array, ""]) -> Float[Array, " k"]:
        nodes = self.nodes(gamma)
        middles = (nodes[1:] + nodes[:-1]) / 2
        return jnp.diff(jnp.concatenate([jnp.zeros(1), middles, jnp.ones(1)]))


class Bootstrapped(Several):
    """An ensemble that explores by commitment (Osband et al. 2016): each episode follows one of the heads, and each head learns
    from a random part of the steps. Evaluation chooses by the mean of all."""

    explores: ClassVar[bool] = True
    count: int = static(10)
    """Heads."""
    chance: Float[Array, ""] = leaf(1.0)
    """With which a head learns from a step; at 1 heads differ by how they began alone."""
    prior: Float[Array, ""] = leaf(1.0)
    """How large the fixed random answer is that is added to what each head says (Osband et al. 2018): heads go on to differ where
    nothing was seen. 0: none."""

    def __check_init__(self) -> None:
        require(self.count > 1, f"heads.count must be 2 or more, not {self.count}")
        check_share("heads.chance", self.chance, "(0, 1]")
        check_not_negative("heads.prior", self.prior)

    def install(self, net: Network, another: Callable[[], Network]) -> Network:
        fixed: Any = another()
        return Following(net, eqx.tree_at(lambda n: n.head, fixed, jax.tree.map(lambda x: self.prior * x, fixed.head)))

    def mixture(self, gamma: Float[Array, ""]) -> Float[Array, " k"]:
        return jnp.full(self.count, 1.0 / self.count)

    def explore(self, prefer: Float[Array, "*bk actions"], gamma: Float[Array, ""], memory: PyTree, key: Key[Array, ""]) -> tuple[Float[Array, "B actions"], dict[str, Array], PyTree]:  # fmt: skip
        draw, keep = jax.random.split(key)
        inner, head = memory
        head = jnp.where(head < 0, jax.random.randint(draw, head.shape, 0, self.count), head)
        followed = jnp.take_along_axis(prefer, head[:, None, None], 1)[:, 0]
        return followed, {MASK: jax.random.bernoulli(keep, self.chance, prefer.shape[:2])}, (inner, head)

    def share(self, window: Unroll) -> Float[Array, "B k"]:
        return window.extras[MASK][0].astype(jnp.float32)
