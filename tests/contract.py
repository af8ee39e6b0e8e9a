"""What every agent is tested with. A new agent joins the contract by being listed in `SMALL`."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key, PyTree

from yozh.agents import (
    A2C,
    ACER,
    ARS,
    DQN,
    ES,
    HCA,
    MDPO,
    NPG,
    PPG,
    PPO,
    PQN,
    QAC,
    REINFORCE,
    TRPO,
    VPG,
    Constant,
    FiniteDifferences,
    Linear,
    OffPolicyMDPO,
    QProp,
)  # fmt: skip
from yozh.agents.backups import Munchausen
from yozh.agents.directions import Differences, Ranks, Top
from yozh.agents.estimators import GAE, Mean, NStep, TotalReturn
from yozh.agents.heads import Bootstrapped
from yozh.agents.optimisers import RMSProp
from yozh.agents.penalties import Adaptive
from yozh.agents.reinforce import Regression
from yozh.agents.sampling import Prioritised
from yozh.agents.scales import Clipped, PopArt
from yozh.agents.schedules import over
from yozh.agents.targets import Hard, Soft
from yozh.agents.values import C51
from yozh.core import Agent, BatchedEnv, Env, Spec, TimeStep
from yozh.environments.batched import Vectorised
from yozh.environments.classic import CartPole
from yozh.environments.probes import SIGN
from yozh.networks import GRU, LSTM, Auto
from yozh.runners import fused
from yozh.spaces import Discrete

STEPS = 400
NET = Auto((16,), "tanh", "orthogonal")


@dataclasses.dataclass(frozen=True)
class Small:
    """An agent of a size that compiles quickly, and what else the contract must know of it."""

    agent: Agent
    structural: dict[str, Any]
    """Another value for every static field and part; each must change what is learnt."""
    probe: Agent
    """Settings under which the probes are learnt in seconds."""
    continuous: bool = True
    """Whether it takes MultiDiscrete, MultiBinary and Box actions too."""
    real: bool = False
    """Whether it takes Box actions alone."""
    recurrent: bool = True
    lacks: tuple[str, ...] = ()
    """Features of `support.FEATURES` that it refuses besides."""
    medley: dict[str, Any] = dataclasses.field(default_factory=dict)
    """Settings, beside those of `probe`, under which all of `Medley` is learnt at once."""
    beside: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)
    """What else must be set for a static field to mean anything."""
    like: str | None = None
    """Another agent of which this is a subclass: static fields that it inherits as they are, are tried there."""
    room: dict[str, Any] = dataclasses.field(default_factory=dict)
    """Another value for every static field that only makes room: none may change what is learnt."""
    moves: int = 2
    """Turns after which the weights have moved, where an unroll has four steps."""
    refused: dict[str, Any] = dataclasses.field(default_factory=dict)
    """Values of static fields that have but one other, which is refused."""
    stores_policy: bool = True
    """Whether unrolls carry the log-probability of their actions."""
    values: bool = True
    """Whether it learns what observations are worth."""


UNSCALED = {"reward": {"scale_rewards": False}}
"""What is scaled by its own deviation does not notice a factor."""

NATURAL = dict(damping=0.01, torso=NET, streams=4, length=8, epochs=2, minibatches=2, solver_steps=2, max_gradient_norm=0.1,
               normalise_observations=True, scale_rewards=True)  # fmt: skip
NATURAL_STRUCTURE = {
    "estimator": NStep(3), "torso": Auto((8,)), "core": LSTM(8), "squash": True, "reward": Clipped(0.5),
    "normalise_advantage": False, "normalise_observations": False, "scale_rewards": False, "noisy": True, "solver_steps": 5,
    "thin": 2, "epochs": 3, "minibatches": 4, "streams": 8, "length": 16,
}  # fmt: skip

SMALL: dict[str, Small] = {
    "a2c": Small(
        A2C(learning_rate=Linear(1e-2, 0.0), torso=NET, streams=2, length=8, entropy_coefficient=0.01, estimator=GAE(0.9),
            normalise_observations=True, scale_rewards=True),
        {"estimator": NStep(3), "torso": Auto((8,)), "core": GRU(8), "shared": True, "squash": True,
         "normalise_observations": False, "scale_rewards": False, "noisy": True, "streams": 4, "length": 4},
        A2C(learning_rate=1e-2, torso=NET, streams=16, length=5, gamma=0.9),
        medley={"length": 8, "estimator": GAE(0.95), "entropy_coefficient": 0.01},
    ),
    "acer": Small(
        ACER(learning_rate=Linear(1e-2, 0.0), torso=NET, streams=2, length=8, batch=4, capacity=80, delta=0.01, truncation=1.01,
             average=Soft(0.1), max_gradient_norm=0.1, normalise_observations=True),
        {"average": Hard(5), "torso": Auto((8,)), "core": GRU(8), "shared": True, "reward": Clipped(0.5),
         "normalise_observations": False, "batch": 8, "capacity": 40, "updates": 2, "streams": 4, "length": 4},
        ACER(learning_rate=3e-3, torso=NET, streams=8, length=8, batch=8, capacity=640, gamma=0.9),
        continuous=False, stores_policy=False, medley={"entropy_coefficient": 0.05, "updates": 2},
    ),
    "dqn": Small(
        DQN(learning_rate=Linear(1e-2, 0.0), torso=NET, streams=2, batch=8, capacity=200, warm_up=16, update_every=4,
            target=Hard(10), normalise_observations=True, max_gradient_norm=0.1, epsilon=Linear(0.9, 0.3, 1.0)),
        {"target": Soft(0.1), "descent": RMSProp(), "torso": Auto((8,)), "double": True, "dueling": True, "n_step": 2, "values": C51(0.0, 20.0, 11),
         "core": GRU(8), "sequence": 3, "burn_in": 2, "heads": Bootstrapped(3, 0.5),
         "backup": Munchausen(), "replay": Prioritised(), "reward": Clipped(0.5), "scale": PopArt(0.1), "noisy": True,
         "normalise_observations": False, "batch": 16, "capacity": 40, "warm_up": 64, "update_every": 8, "streams": 4, "length": 6},
        DQN(learning_rate=1e-2, torso=NET, streams=8, batch=64, capacity=2000, warm_up=100, update_every=8, gamma=0.9,
            target=Hard(20), epsilon=Constant(0.5)),
        continuous=False, stores_policy=False, moves=6, beside={"burn_in": {"core": GRU(8)}},
    ),
    "mdpo": Small(
        MDPO(t=Linear(1.0, 0.1), learning_rate=Linear(1e-2, 0.0), torso=NET, streams=4, length=8, epochs=2, minibatches=2,
             entropy_coefficient=0.01, max_gradient_norm=0.1, normalise_observations=True, scale_rewards=True),
        {"estimator": NStep(3), "torso": Auto((8,)), "core": LSTM(8), "shared": True, "squash": True, "reward": Clipped(0.5),
         "normalise_advantage": False, "normalise_observations": False, "scale_rewards": False, "noisy": True,
         "epochs": 3, "minibatches": 4, "streams": 8, "length": 16},
        MDPO(t=1.0, learning_rate=1e-2, torso=NET, streams=8, length=16, epochs=4, minibatches=2, gamma=0.9),
        beside=UNSCALED,
    ),
    "npg": Small(
        NPG(learning_rate=Linear(1e-2, 0.0), **NATURAL),
        NATURAL_STRUCTURE,
        NPG(learning_rate=1e-2, torso=NET, streams=8, length=16, epochs=4, minibatches=2, gamma=0.9, solver_steps=5),
        refused={"shared": True},
        beside=UNSCALED,
    ),
    "ppg": Small(
        PPG(learning_rate=Linear(1e-2, 0.0), torso=NET, streams=4, length=8, minibatches=2, clip=0.05, policy_phases=2,
            auxiliary_epochs=2, normalise_observations=True, scale_rewards=True, clip_value=True),
        {"estimator": NStep(3), "target_kl": 1e-6, "torso": Auto((8,)), "core": LSTM(8), "squash": True, "reward": Clipped(0.5),
         "dual_clip": 1.001, "penalty": Adaptive(), "clip_value": False, "normalise_advantage": False,
         "normalise_observations": False, "scale_rewards": False, "noisy": True, "epochs": 2, "minibatches": 4, "streams": 8,
         "length": 16, "policy_phases": 3, "auxiliary_epochs": 1},
        PPG(learning_rate=1e-2, torso=NET, streams=8, length=16, epochs=4, minibatches=2, gamma=0.9, policy_phases=4,
            auxiliary_epochs=2, entropy_coefficient=0.0),
        refused={"shared": True},
        beside=UNSCALED,
        like="ppo",
    ),
    "hca": Small(
        HCA(learning_rate=Linear(1e-2, 0.0), torso=NET, units=8, streams=2, length=8, truncation=1.01, max_gradient_norm=0.1,
            normalise_observations=True),
        {"torso": Auto((8,)), "core": GRU(8), "reward": Clipped(0.5), "by": "returns", "units": 4, "normalise_observations": False,
         "streams": 4, "length": 4},
        HCA(learning_rate=3e-3, torso=NET, units=16, streams=16, length=8, gamma=0.9),
        continuous=False, stores_policy=False,
    ),
    "offpolicymdpo": Small(
        OffPolicyMDPO(learning_rate=Linear(1e-2, 0.0), torso=NET, streams=2, length=8, batch=8, gradient_steps=3, capacity=80,
                      warm_up=4, target=Soft(0.1), temperature=0.1, max_gradient_norm=0.1, normalise_observations=True),
        {"target": Hard(5), "torso": Auto((8,)), "core": GRU(8), "shared": True, "reward": Clipped(0.5),
         "normalise_observations": False, "gradient_steps": 2, "batch": 16, "sequence": 3, "capacity": 40, "warm_up": 64,
         "streams": 4, "length": 4},
        OffPolicyMDPO(learning_rate=3e-3, torso=NET, streams=8, length=8, batch=32, gradient_steps=4, capacity=2000, warm_up=100,
                      gamma=0.9, target=Soft(0.02), sequence=3),
        continuous=False, stores_policy=False,
    ),
    "ppo": Small(
        PPO(learning_rate=Linear(1e-2, 0.0), torso=NET, streams=4, length=8, epochs=2, minibatches=2, clip=0.05,
            entropy_coefficient=0.01, normalise_observations=True, scale_rewards=True, clip_value=True),
        {"estimator": NStep(3), "target_kl": 1e-6, "torso": Auto((8,)), "core": LSTM(8), "shared": True, "squash": True,
         "dual_clip": 1.001, "penalty": Adaptive(), "reward": Clipped(0.5), "clip_value": False, "normalise_advantage": False, "normalise_observations": False, "scale_rewards": False, "noisy": True,
         "epochs": 3, "minibatches": 4, "streams": 8, "length": 16},
        PPO(learning_rate=1e-2, torso=NET, streams=8, length=16, epochs=4, minibatches=2, gamma=0.9),
        beside=UNSCALED,
        medley={"learning_rate": 3e-3, "entropy_coefficient": 0.01},
    ),
    "pqn": Small(
        PQN(learning_rate=Linear(1e-2, 0.0), torso=NET, streams=4, length=8, epochs=2, minibatches=2, max_gradient_norm=0.1,
            epsilon=Linear(0.9, 0.3, 1.0), normalise_observations=True),
        {"torso": Auto((16,), "tanh", norm=True), "core": LSTM(8), "reward": Clipped(0.5), "normalise_observations": False,
         "epochs": 3, "minibatches": 4, "streams": 8, "length": 16},
        PQN(learning_rate=1e-2, torso=NET, streams=8, length=16, epochs=4, minibatches=2, gamma=0.9, epsilon=Constant(0.5)),
        continuous=False, stores_policy=False,
    ),
    "qprop": Small(
        QProp(learning_rate=Linear(1e-2, 0.0), critic_learning_rate=1e-2, critic_widths=(8,), critic_steps=4, batch=16, capacity=160,
              target=Soft(0.1), shrink=0.5, tries=3, **NATURAL),
        {k: v for k, v in NATURAL_STRUCTURE.items() if k not in ("squash", "normalise_advantage")}
        | {"tries": 1, "eta": "full", "critic_widths": (), "critic_steps": 2, "batch": 32, "capacity": 40},
        QProp(learning_rate=1e-2, torso=NET, streams=8, length=16, epochs=4, minibatches=2, gamma=0.9, solver_steps=5,
              critic_widths=(16,), critic_steps=16, batch=32, capacity=2000),
        real=True, refused={"squash": True, "shared": True, "normalise_advantage": True}, beside=UNSCALED,
        like="trpo",
    ),
    "reinforce": Small(
        REINFORCE(learning_rate=Linear(1e-2, 0.0), torso=NET, streams=2, length=8, entropy_coefficient=0.01, max_gradient_norm=0.1,
                  normalise_observations=True, scale_rewards=True, horizon=40),
        {"estimator": TotalReturn(Mean()), "discount_states": True, "normalise_advantage": True, "torso": Auto((8,)), "core": GRU(8),
         "shared": True, "squash": True, "normalise_observations": False, "scale_rewards": False, "noisy": True, "streams": 4,
         "length": 4, "fit": Regression(3)},
        REINFORCE(learning_rate=1e-2, torso=NET, streams=16, length=2, gamma=0.9, estimator=GAE(1.0), horizon=10),
        room={"horizon": 60}, moves=16, medley={"streams": 64, "length": 4, "entropy_coefficient": 0.01},
    ),
    "es": Small(
        ES(learning_rate=Linear(1e-1, 0.0), sigma=Linear(0.3, 0.1), weight_decay=0.1, torso=NET, streams=4, length=4,
           max_gradient_norm=0.1, normalise_observations=True, horizon=12, directions=Differences()),
        {"directions": Ranks(), "torso": Auto((8,)), "core": GRU(8), "squash": True, "normalise_observations": False, "streams": 8,
         "length": 8},
        ES(learning_rate=3e-2, sigma=0.3, torso=Auto((8,), "tanh", "orthogonal"), streams=64, length=2, horizon=10),
        room={"horizon": 20}, moves=6, stores_policy=False, values=False, medley={"streams": 512, "length": 4, "sigma": 0.1},
    ),
    "trpo": Small(
        TRPO(learning_rate=Linear(1e-2, 0.0), shrink=0.5, tries=3, **NATURAL),
        NATURAL_STRUCTURE | {"tries": 1},
        TRPO(learning_rate=1e-2, torso=NET, streams=8, length=16, epochs=4, minibatches=2, gamma=0.9, solver_steps=5),
        refused={"shared": True},
        beside=UNSCALED,
    ),
    "qac": Small(
        QAC(learning_rate=Linear(1e-2, 0.0), torso=NET, streams=2, length=8, normalise_observations=True),
        {"torso": Auto((8,)), "core": GRU(8), "shared": True, "worth": "corrected", "sarsa": True, "normalise_observations": False,
         "streams": 4, "length": 4},
        QAC(learning_rate=3e-3, torso=NET, streams=16, length=5, gamma=0.9),
        continuous=False, stores_policy=False, medley={"length": 16, "learning_rate": 1e-2, "entropy_coefficient": 0.03},
    ),
}  # fmt: skip

SMALL_VARIANTS: dict[str, Agent] = {
    # σ shows in its scores alone, so steps are as long as σ; of two pairs `Top(0.9)` keeps both
    "ars": ARS(learning_rate=Linear(3.0, 0.0), sigma=Linear(0.3, 0.1), weight_decay=0.1, max_gradient_norm=0.1, directions=Top(0.9),
               streams=4, length=4, horizon=12),
    "vpg": VPG(learning_rate=Linear(1e-2, 0.0), torso=NET, streams=2, length=8, horizon=40, fit=Regression(3), max_gradient_norm=0.1,
               entropy_coefficient=0.01),
    "finitedifferences": FiniteDifferences(learning_rate=Linear(1e-1, 0.0), sigma=Linear(0.3, 0.1), weight_decay=0.1, torso=NET,
                                           max_gradient_norm=0.1, streams=4, length=4, horizon=12),
}  # fmt: skip
"""Agents of `SMALL` with other defaults, and perhaps another optimiser: what that could spoil is tried with them too."""
UNUSED = {"vpg": [".value_coefficient"]}
"""Numbers that mean nothing with the defaults: its value is fitted apart."""
TRAINED = {name: small.agent for name, small in SMALL.items()} | SMALL_VARIANTS


def train(agent: Agent, env: Env | BatchedEnv, turns: int, seed: int = 0) -> tuple[fused.Run, fused.Metrics]:
    """A run of some turns; every test that uses the same shapes shares one program."""
    agent, env = over(agent, STEPS), batched(agent, env)
    run = fused.Fused(agent, env).init(jax.random.key(seed))
    return fused._advance(agent, env, run, jnp.int32(turns))


class Signed(Env):
    """An environment of two actions for agents of real ones: a number above 0 is action 1."""

    inner: Env

    @property
    def spec(self) -> Spec:
        return dataclasses.replace(self.inner.spec, action=SIGN)

    def reset(self, key: Key[Array, ""]) -> tuple[PyTree, TimeStep]:
        return self.inner.reset(key)

    def step(self, state: PyTree, action: PyTree, key: Key[Array, ""]) -> tuple[PyTree, TimeStep]:
        return self.inner.step(state, (action[0] > 0).astype(jnp.int32), key)


def real(agent: Agent) -> bool:
    return any(small.real for small in SMALL.values() if type(small.agent) is type(agent))


def playable(agent: Agent, env: Env) -> Env:
    """With actions that the agent takes."""
    return Signed(env) if real(agent) and env.spec.action == Discrete(2) else env


def named(agent: Agent) -> str:
    """The name of an environment with actions that the agent takes."""
    return "Pendulum-v1" if real(agent) else "CartPole-v1"


def cartpole(agent: Agent) -> Env:
    """As long as the agent has room for."""
    return playable(agent, CartPole(limit=limit(agent)))


def limit(agent: Agent) -> int:
    """Steps of the longest episode that it has room for."""
    return getattr(agent, "horizon", 500)


def roomy(agent: Agent, steps: int = 500) -> Agent:
    """With room for whole episodes of so many steps, if it needs any."""
    return dataclasses.replace(agent, horizon=steps) if hasattr(agent, "horizon") else agent


def batched(agent: Agent, env: Env | BatchedEnv) -> BatchedEnv:
    return env if isinstance(env, BatchedEnv) else Vectorised(playable(agent, env), agent.experience.streams)


def learnt(run: fused.Run) -> np.ndarray:
    """All weights in one vector."""
    return np.concatenate([np.ravel(x) for x in jax.tree.leaves(run.state.net)])


def vary(agent: Agent, path: Any, change: Callable[[Any], Any]) -> Agent:
    """The agent with one of its leaves changed."""
    return jax.tree_util.tree_map_with_path(lambda p, x: change(x) if p == path else x, agent)
