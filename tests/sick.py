"""Environments with one illness each, and what the doctor must say of it."""

import time

import gymnasium as gym
import gymnasium.spaces as gs
import jax
import jax.numpy as jnp
import numpy as np

from yozh.core import Env, Spec, TimeStep, restart, transition
from yozh.spaces import Box, Discrete


class Walk(gym.Env):
    """Sound: a walk on a line, seen with some noise; it ends at the edges, and after 40 steps is cut."""

    observation_space = gs.Box(-8.0, 8.0, (2,), np.float32)
    action_space = gs.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place, self.t = float(self.np_random.uniform(-1, 1)), 0
        return self.look(), {}

    def step(self, action):
        self.t += 1
        self.place += 1.0 if action == 1 else -1.0
        terminated = abs(self.place) > 5
        return self.look(), 1.0 - abs(self.place) / 5, terminated, not terminated and self.t >= 40, {}

    def look(self):
        return np.array([self.place, self.np_random.uniform(-1, 1)], np.float32)


class OutOfBounds(Walk):
    observation_space = gs.Box(-1.0, 1.0, (2,), np.float32)


class WrongType(Walk):
    def look(self):
        return super().look().astype(np.float64)


class WrongShape(Walk):
    def look(self):
        return super().look()[None]


class NotANumber(Walk):
    def look(self):
        return super().look() * (np.nan if self.t == 7 else 1)


class RewardArray(Walk):
    def step(self, action):
        obs, reward, *rest = super().step(action)
        return obs, np.array([reward]), *rest


class RewardZero(Walk):
    def step(self, action):
        obs, _, *rest = super().step(action)
        return obs, 0.0, *rest


class RewardHuge(Walk):
    def step(self, action):
        obs, reward, *rest = super().step(action)
        return obs, 1e4 * reward, *rest


class Unseeded(Walk):
    def look(self):
        return np.array([self.place, np.random.default_rng().uniform(-1, 1)], np.float32)


class NoSeed(Walk):
    def reset(self):  # pyright: ignore
        return super().reset()


class TruncationTold(Walk):
    """The time limit is told as an end."""

    def step(self, action):
        self.t += 1
        self.place = float(np.clip(self.place + (1.0 if action == 1 else -1.0), -5, 5))
        return self.look(), 1.0, self.t >= self.max_steps, False, {}

    max_steps = 20


class Endless(Walk):
    def step(self, action):
        return *super().step(action)[:2], False, False, {}

    def look(self):
        return np.clip(super().look(), -8, 8)


class MaskOfNothing(Walk):
    def reset(self, *, seed=None, options=None):
        return super().reset(seed=seed)[0], {"action_mask": np.ones(2, np.int8)}

    def step(self, action):
        *rest, _ = super().step(action)
        return *rest, {"action_mask": np.full(2, self.t != 3, np.int8)}


class MaskTooLong(Walk):
    def reset(self, *, seed=None, options=None):
        return super().reset(seed=seed)[0], {"action_mask": np.ones(3, np.int8)}


class MaskInParts(Walk):
    action_space = gs.MultiDiscrete([2, 3])

    def reset(self, *, seed=None, options=None):
        return super().reset(seed=seed)[0], {"action_mask": (np.ones(2, np.int8), np.ones(3, np.int8))}

    def step(self, action):
        return super().step(action[0])


class MaskLate(Walk):
    def step(self, action):
        *rest, _ = super().step(action)
        return *rest, {"action_mask": np.ones(2, np.int8)}


class Aliased(Walk):
    def look(self):
        self.buffer = getattr(self, "buffer", np.zeros(2, np.float32))
        self.buffer[:] = super().look()
        return self.buffer


class OwnState(Walk):
    """What it returns is what it works with."""

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.state = np.array([self.place, 0.0], np.float32)
        return self.state, {}

    def step(self, action):
        self.t += 1
        self.state = self.state + np.array([1.0 if action else -1.0, 0.1], np.float32)
        return self.state, -0.1, bool(abs(self.state[0]) > 5), self.t >= 40, {}


class OnlyObservation(Walk):
    def reset(self, *, seed=None, options=None):
        return super().reset(seed=seed)[0]


class OldStep(Walk):
    def step(self, action):
        obs, reward, terminated, truncated, info = super().step(action)
        return obs, reward, terminated or truncated, info


class Deaf(Walk):
    def step(self, action):
        return super().step(self.t % 2)


class Constant(Walk):
    def look(self):
        return np.zeros(2, np.float32)


class Scales(Walk):
    observation_space = gs.Box(-np.inf, np.inf, (2,), np.float32)

    def look(self):
        return super().look() * np.array([1000, 0.001], np.float32)


class Shared(Walk):
    """All copies stand at one place."""

    where = np.zeros(1)

    def reset(self, *, seed=None, options=None):
        told = super().reset(seed=seed)
        self.where[0] = self.place
        return told

    def step(self, action):
        self.place = float(self.where[0])
        told = super().step(action)
        self.where[0] = self.place
        return told


class Raises(Walk):
    def step(self, action):
        if self.t == 4:
            raise KeyError("the fifth step")
        return super().step(action)


class Hangs(Walk):
    def step(self, action):
        while self.t == 2:
            time.sleep(0.01)
        return super().step(action)


class OutOfRange(Walk):
    observation_space = gs.Dict(place=gs.Discrete(3), seen=gs.Box(-8, 8, (2,), np.float32))

    def look(self):
        return {"place": min(self.t, 3), "seen": super().look()}


class KeyMissing(OutOfRange):
    def look(self):
        return {"seen": Walk.look(self)}


class Rich(gym.Env):
    """Sound: a Dict observed, a mask, and two choices at once."""

    observation_space = gs.Dict(
        hand=gs.MultiDiscrete([3, 4]), board=gs.Box(0, 1, (6,), np.float32), action_mask=gs.MultiBinary(5)
    )
    action_space = gs.MultiDiscrete([2, 3])

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t, self.sum = 0, 0
        return self.look(), {}

    def step(self, action):
        assert self.mask[action[0]] and self.mask[2 + action[1]], "an illegal action"
        self.t, self.sum = self.t + 1, self.sum + int(action[0]) + int(action[1])
        over = self.sum > 12
        return self.look(), float(action[1]), over, not over and self.t >= 12, {}

    def look(self):
        self.mask = np.array([1, self.t % 2, 1, self.sum % 2, 1], np.int8)
        hand = self.np_random.integers(0, [3, 4])
        return {"hand": hand, "board": self.np_random.random(6, np.float32), "action_mask": self.mask.copy()}


class Pure(Env):
    """Sound: counts to a random number."""

    @property
    def spec(self):
        return Spec(Box((2,), 0.0, 10.0), Discrete(2))

    def reset(self, key):
        state = {"goal": jax.random.randint(key, (), 3, 9), "t": jnp.zeros((), jnp.int32)}
        return state, restart(self.look(state))

    def step(self, state, action, key) -> tuple[dict, TimeStep]:
        state = {"goal": state["goal"], "t": state["t"] + 1}
        reward = jnp.where(action == 1, 1.0, 0.0)
        return state, transition(self.look(state), reward, terminated=state["t"] >= state["goal"])

    def look(self, state):
        return jnp.stack([state["goal"], state["t"]]).astype(jnp.float32)


class Branches(Pure):
    def step(self, state, action, key):
        if action == 1:
            return super().step(state, action, key)
        return state, transition(self.look(state), 0.0, terminated=False)


class StateChanges(Pure):
    def step(self, state, action, key):
        state, step = super().step(state, action, key)
        return state | {"t": state["t"].astype(jnp.float32)}, step


class Frozen(Pure):
    def step(self, state, action, key):
        state, step = super().step(state, action, key)
        return state, TimeStep(
            step.obs + np.float32(np.random.random()), step.reward, step.discount, step.first, step.last
        )


class WrongKind(Pure):
    def look(self, state):
        return jnp.stack([state["goal"], state["t"]])


class Weak(Pure):
    def reset(self, key):
        state, step = super().reset(key)
        return state | {"t": jnp.asarray(0)}, step


class PureNaN(Pure):
    def look(self, state):
        return super().look(state) / jnp.where(state["t"] == 2, 0.0, 1.0) * jnp.where(state["t"] == 2, 0.0, 1.0)


class PureOut(Pure):
    def look(self, state):
        return super().look(state) * 2.0


class PureEndless(Pure):
    def step(self, state, action, key):
        state, step = super().step(state | {"t": state["t"] % 2}, action, key)
        return state, transition(step.obs, step.reward, terminated=False)


class PureMask(Pure):
    @property
    def spec(self):
        return Spec(Box((2,), 0.0, 10.0), Discrete(2), legal=True)

    def reset(self, key):
        state, step = super().reset(key)
        return state, restart(step.obs, {"legal": jnp.ones(2, bool)})

    def step(self, state, action, key):
        state, step = super().step(state, action, key)
        legal = jnp.full(2, state["t"] != 2)
        return state, transition(step.obs, step.reward, terminated=step.last, extras={"legal": legal})


class ToNumPy(Pure):
    def look(self, state):
        return jnp.asarray(np.stack([state["goal"], state["t"]]), jnp.float32)


SICK: dict[type, tuple[str, str, str]] = {
    OutOfBounds: ("warning", "observation", "outside its declared [-1, 1]"),
    WrongType: ("warning", "observation, step 0", "is float64, and float32 is declared"),
    WrongShape: ("error", "observation, step 0", "has shape (1, 2), and (2,) is declared"),
    NotANumber: ("error", "observation, step 7", "element [0] is nan"),
    RewardArray: ("error", "reward, step 1", "is an array of shape (1,)"),
    RewardZero: ("warning", "reward", "was 0 in all 300 steps"),
    RewardHuge: ("warning", "reward", "is as large as 9"),
    Unseeded: ("warning", "observation, step 1", "differs between two copies with the same seed"),
    NoSeed: ("error", "reset", "takes no seed"),
    TruncationTold: ("warning", "terminated", "terminated after exactly 20 steps, its max_steps"),
    Endless: ("warning", "terminated, truncated", "no episode ended in 300 steps"),
    MaskOfNothing: ("error", "action_mask, step 3", "forbids every action"),
    MaskTooLong: ("error", "action_mask, step 0", "has shape (3,), and the actions need (2,)"),
    MaskInParts: ("error", "action_mask, step 0", "and the actions need (5,)"),
    MaskLate: ("error", "action_mask, step 1", "is told by step and not by the first reset"),
    Aliased: ("warning", "observation, step 0", "step writes into the same array"),
    OwnState: ("warning", "observation", "is the environment's own state"),
    OnlyObservation: ("error", "reset", "returned one ndarray"),
    OldStep: ("error", "step, step 1", "`done` as the old API has it"),
    Deaf: ("note", "action", "other actions led to the same"),
    Constant: ("warning", "observation", "never changed in 300 steps"),
    Scales: ("warning", "observation", "largest values run from 0.00"),
    Shared: ("error", "the environment", "while a second copy runs beside it"),
    Raises: ("error", "step, step 5", "raised KeyError: 'the fifth step' (sick.py, line"),
    Hangs: ("error", "step, step 3", "did not come back within 0.5 s"),
    OutOfRange: ("error", "observation.place, step 3", "element 0 is 3, outside its declared [0, 2]"),
    KeyMissing: ("error", "observation.place, step 0", "is missing from the keys seen"),
    Branches: ("error", "step", "branches in Python on a value that is known only when the program runs (sick.py"),
    StateChanges: ("error", "state['t']", "is int32[] after reset and float32[] after step"),
    Frozen: ("error", "step", "makes another program each time"),
    WrongKind: ("error", "observation of reset", "is int32, and float32 is declared"),
    Weak: ("warning", "state['t']", "is weakly typed"),
    PureNaN: ("error", "observation, step 2 of stream", "is nan"),
    PureOut: ("warning", "observation", "outside its declared [0, 10]"),
    PureEndless: ("warning", "terminated, truncated", "no episode ended"),
    PureMask: ("error", "action_mask, step 2 of stream 0", "forbids every action"),
    ToNumPy: ("error", "reset", "hands a traced value to NumPy"),
}
"""For each: severity, the beginning of where, and a part of what is said."""
