"""Yozh's side: `python -m benchmarks.ours NAME STEPS` trains and prints one JSON line."""

import dataclasses
import json
import sys
import time

import jax

from yozh import environments
from yozh.agents import A2C, DQN, NPG, PPO, TRPO, Linear
from yozh.agents.estimators import GAE
from yozh.agents.sampling import Prioritised
from yozh.agents.schedules import over
from yozh.agents.targets import Hard
from yozh.agents.values import C51, QuantileRegression
from yozh.core import Agent, BatchedEnv
from yozh.networks.torsos import MLP
from yozh.runners.fused import Fused
from yozh.runners.hosted import Hosted


def ppo(**settings) -> PPO:
    common = dict(gamma=0.99, clip=0.2, value_coefficient=0.5, entropy_coefficient=0.01, max_gradient_norm=0.5,
                  clip_value=True, epochs=4, length=128)  # fmt: skip
    return PPO(**common | settings)


def agents() -> dict[str, tuple[Agent, str, str | None]]:
    """Agent, environment and backend (the fastest if `None`) of each side."""
    cartpole = dict(torso=MLP((64, 64), "tanh"), streams=4, minibatches=4)
    decayed = ppo(learning_rate=Linear(2.5e-4, 0.0), **cartpole)
    constant = ppo(learning_rate=2.5e-4, adam_epsilon=1e-8, **cartpole)
    breakout = ppo(learning_rate=Linear(5e-3, 0.0), torso=MLP((64, 64), "relu"), streams=64, minibatches=8)
    zoo = DQN(learning_rate=6.3e-4, torso=MLP((256, 256), "relu", "uniform"), batch=128, capacity=50_000, warm_up=0,
              update_every=1, target=Hard(250), epsilon=Linear(1.0, 0.1, 0.12))  # fmt: skip
    lander = PPO(learning_rate=3e-4, gamma=0.999, estimator=GAE(0.98), entropy_coefficient=0.01, epochs=4, streams=16,
                 length=1024, minibatches=256)  # fmt: skip
    cheetah = PPO(learning_rate=3e-4, epochs=10, streams=8, length=256, minibatches=32)
    trust = dict(learning_rate=1e-3, epochs=20, torso=MLP((64, 64), "tanh"), streams=2)
    zoo_cartpole = dict(damping=1e-3, estimator=GAE(0.98), minibatches=2, length=512, **trust)
    zoo_cheetah = TRPO(delta=0.04, solver_steps=25, minibatches=16, length=1024, normalise_observations=True,
                       scale_rewards=True, **trust)  # fmt: skip
    busy = dict(learning_rate=2.5e-4, streams=10, batch=128, update_every=10, target=Hard(50), capacity=10_000, warm_up=10_000,
                epsilon=Linear(1.0, 0.05, 0.5))  # fmt: skip
    quantiles = DQN(
        streams=16,
        learning_rate=5e-5,
        values=QuantileRegression(200),
        target=Hard(2500),
        epsilon=Linear(1.0, 0.01, 0.005),
    )
    small = dict(learning_rate=1e-3, torso=MLP((64, 64), "relu", "uniform"), streams=8, batch=64, update_every=8, warm_up=1000,
                 capacity=20_000, target=Hard(500), values=C51(0.0, 100.0, 51))  # fmt: skip
    rainbow = DQN(double=True, dueling=True, n_step=3, noisy=True, replay=Prioritised(0.6), **small)
    return {
        "a2c-cartpole": (A2C(), "CartPole-v1", None),
        "dqn-cartpole": (DQN(torso=MLP((120, 84), "relu"), **busy), "CartPole-v1", None),
        "c51-cartpole-101": (
            DQN(torso=MLP((120, 84), "relu"), values=C51(-100.0, 100.0, 101), **busy),
            "CartPole-v1",
            None,
        ),
        "dqn-cartpole-64": (DQN(torso=MLP((64, 64), "relu"), double=True, **busy), "CartPole-v1", None),
        "c51-cartpole": (DQN(epsilon=0.1, **small), "CartPole-v1", None),
        "rainbow-cartpole": (rainbow, "CartPole-v1", None),
        "qrdqn-lander": (quantiles, "LunarLander-v3", None),
        "ppo-cartpole": (decayed, "CartPole-v1", None),
        "ppo-cartpole-constant": (constant, "CartPole-v1", None),
        "ppo-breakout": (breakout, "Breakout-MinAtar", None),
        "dqn-lander": (DQN(streams=16), "LunarLander-v3", None),
        "dqn-lander-zoo": (zoo, "LunarLander-v3", None),
        "dqn-lander-hosted": (DQN(streams=16, length=4), "LunarLander-v3", "gymnasium"),
        "ppo-lander-hosted": (lander, "LunarLander-v3", "gymnasium"),
        "ppo-cheetah-hosted": (cheetah, "HalfCheetah-v5", "gymnasium"),
        "trpo-cartpole": (TRPO(**zoo_cartpole), "CartPole-v1", None),
        "npg-cartpole": (NPG(**zoo_cartpole), "CartPole-v1", None),
        "trpo-cheetah": (zoo_cheetah, "HalfCheetah-v5", None),
        "trpo-cheetah-16": (dataclasses.replace(zoo_cheetah, streams=16, length=128), "HalfCheetah-v5", None),
        "trpo-cheetah-hosted": (zoo_cheetah, "HalfCheetah-v5", "gymnasium"),
    }


def build(name: str, steps: int) -> Fused | Hosted:
    agent, env, backend = agents()[name]
    agent, made = over(agent, steps), environments.make(env, agent.experience.streams, backend=backend)
    return Fused(agent, made) if isinstance(made, BatchedEnv) else Hosted(agent, made, min(1, agent.experience.max_lag))


def main(name: str, steps: int) -> None:
    runner = build(name, steps)
    experience = runner.agent.experience
    began = time.perf_counter()
    run = runner.init(jax.random.key(0))
    runner.compile(run)
    compiled = time.perf_counter() - began
    run, _ = jax.block_until_ready(runner.advance(run, 1))
    before = int(run.state.counts.steps)
    began = time.perf_counter()
    run, metrics = jax.block_until_ready(runner.advance(run, steps // (experience.streams * experience.unroll)))
    seconds = time.perf_counter() - began
    done, episodes = int(run.state.counts.steps) - before, max(int(metrics.tally.episodes), 1)
    print(json.dumps({"steps": done, "seconds": seconds, "compile_seconds": compiled,
                      "updates": int(run.state.counts.updates), "return": float(metrics.tally.returns) / episodes,
                      **({"spent": runner.seconds} if isinstance(runner, Hosted) else {})}))  # fmt: skip
    runner.close()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
