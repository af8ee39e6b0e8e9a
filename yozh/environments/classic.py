"""Gymnasium's CartPole-v1 and Pendulum-v1 as pure environments, equal to it step for step (in float32)."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key, PyTree

from yozh.core import Env, Spec, TimeStep, leaf, restart, static, transition
from yozh.spaces import Box, Discrete


class Physics(NamedTuple):
    """What moves, and how long it has moved."""

    x: Float[Array, " d"]
    t: Int[Array, ""]


class CartPole(Env):
    """Keeping a pole upright on a cart (Barto, Sutton and Anderson 1983); SI units, explicit Euler steps of 20 ms.

    State and observation: cart position and velocity, pole angle and angular velocity. Reward 1 a step, the last included.
    """

    gravity: Array = leaf(9.8)
    cart_mass: Array = leaf(1.0)
    pole_mass: Array = leaf(0.1)
    half_length: Array = leaf(0.5)
    force: Array = leaf(10.0)
    limit: int = static(500)

    X_MAX = 2.4
    ANGLE_MAX = 12 * math.pi / 180
    DT = 0.02

    @property
    def spec(self) -> Spec:
        high = (2 * self.X_MAX, math.inf, 2 * self.ANGLE_MAX, math.inf)
        return Spec(Box((4,), tuple(-h for h in high), high), Discrete(2), horizon=self.limit)

    def reset(self, key: Key[Array, ""]) -> tuple[PyTree, TimeStep]:
        x = jax.random.uniform(key, (4,), minval=-0.05, maxval=0.05)
        return Physics(x, jnp.zeros((), jnp.int32)), restart(x)

    def step(self, state: PyTree, action: PyTree, key: Key[Array, ""]) -> tuple[PyTree, TimeStep]:
        x, v, angle, spin = state.x
        sin, cos = jnp.sin(angle), jnp.cos(angle)
        mass = self.cart_mass + self.pole_mass
        push = jnp.where(action == 1, self.force, -self.force)
        push = (push + self.pole_mass * self.half_length * spin**2 * sin) / mass
        spin_rate = (self.gravity * sin - cos * push) / (self.half_length * (4 / 3 - self.pole_mass * cos**2 / mass))
        acceleration = push - self.pole_mass * self.half_length * spin_rate * cos / mass
        rate = jnp.stack([v, acceleration, spin, spin_rate])
        x, t = state.x + self.DT * rate, state.t + 1
        terminated = (jnp.abs(x[0]) > self.X_MAX) | (jnp.abs(x[2]) > self.ANGLE_MAX)
        return Physics(x, t), transition(x, 1.0, terminated=terminated, truncated=t >= self.limit)


class Pendulum(Env):
    """Swinging up a pendulum by a torque in [-2, 2] N m too weak to lift it; steps of 50 ms, never terminates.

    State: angle (0 is upright) and angular velocity. Observation: cosine, sine, angular velocity. The reward charges
    the angle, speed and torque before the move.
    """

    gravity: Array = leaf(10.0)
    mass: Array = leaf(1.0)
    length: Array = leaf(1.0)
    limit: int = static(200)

    SPEED_MAX = 8.0
    TORQUE_MAX = 2.0
    DT = 0.05

    @property
    def spec(self) -> Spec:
        high = (1.0, 1.0, self.SPEED_MAX)
        return Spec(
            Box((3,), tuple(-h for h in high), high),
            Box((1,), -self.TORQUE_MAX, self.TORQUE_MAX),
            horizon=self.limit,
        )

    def reset(self, key: Key[Array, ""]) -> tuple[PyTree, TimeStep]:
        x = jax.random.uniform(key, (2,), minval=-1.0, maxval=1.0) * jnp.array([math.pi, 1.0])
        return Physics(x, jnp.zeros((), jnp.int32)), restart(self._observe(x))

    def step(self, state: PyTree, action: PyTree, key: Key[Array, ""]) -> tuple[PyTree, TimeStep]:
        angle, speed = state.x
        torque = jnp.clip(action[0], -self.TORQUE_MAX, self.TORQUE_MAX)
        cost = ((angle + math.pi) % (2 * math.pi) - math.pi) ** 2 + 0.1 * speed**2 + 0.001 * torque**2
        pull = 3 * self.gravity / (2 * self.length) * jnp.sin(angle) + 3 / (self.mass * self.length**2) * torque
        speed = jnp.clip(speed + pull * self.DT, -self.SPEED_MAX, self.SPEED_MAX)
        x, t = jnp.stack([angle + speed * self.DT, speed]), state.t + 1
        return Physics(x, t), transition(self._observe(x), -cost, terminated=False, truncated=t >= self.limit)

    def _observe(self, x: Float[Array, "2"]) -> Float[Array, "3"]:
        return jnp.stack([jnp.cos(x[0]), jnp.sin(x[0]), x[1]])
