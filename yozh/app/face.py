"""What a person calls from Python; the command line calls the same."""

import dataclasses
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax

from yozh import agents, environments, presets
from yozh.app.folder import RunFolder, claim
from yozh.core import Agent, BatchedEnv, HostEnv, YozhError, require
from yozh.runners import evaluation, policy, training
from yozh.runners.observers import Observer
from yozh.runners.policy import Policy
from yozh.runners.training import Trained


def train(agent: str | Agent, env: str | Callable[[], Any] | Any, *, steps: int | None = None, seed: int = 0,
          envs: int | None = None, backend: str | None = None, out: str | Path | None = None,
          eval_every: int | None = None, eval_episodes: int = 100, observers: Sequence[Observer] = ()) -> Trained:  # fmt: skip
    """Trains an agent in an environment and evaluates it.

    `agent` is an agent or its name; a name takes the preset for the environment, if there is one. `env` is an id, a
    function that makes a Gymnasium environment, or a pure environment. `steps` are environment steps (the preset's if
    left out), `envs` parallel streams, `out` a folder for the run. The final evaluation is of `eval_episodes`
    episodes; one of a tenth as many comes every `eval_every` steps (a fifth of the run if left out).
    """
    cache_programs()
    if isinstance(agent, str):
        name, (agent, usual) = agent, presets.start(agent, env)
        steps = usual if steps is None else steps
    else:
        name = next((n for n, cls in agents.names().items() if type(agent) is cls), type(agent).__name__)
    if steps is None:
        raise YozhError("say how long to train: steps=100_000")
    require(steps > 0, f"steps must be positive, not {steps}")
    if envs is not None:
        require(envs > 0, f"envs must be positive, not {envs}")
        agent = dataclasses.replace(agent, streams=envs)
    out = None if out is None else claim(out)
    watching = (*observers, RunFolder(out)) if out is not None else observers
    return training.train(agent, env, steps=steps, name=name, seed=seed, backend=backend, out=out,
                          eval_every=eval_every, eval_episodes=eval_episodes, observers=watching)  # fmt: skip


def evaluate(policy: Policy | str | Path, env: Any = None, *, episodes: int = 100, seed: int = 1, backend: str | None = None) -> dict[str, Any]:  # fmt: skip
    """Returns of `episodes` whole episodes and their mean with its 95 % interval; `env` is the policy's own if left out."""
    cache_programs()
    policy = policy if isinstance(policy, Policy) else load(policy)
    made = environments.make(policy.env if env is None else env, evaluation.streams(episodes), backend=backend)
    fits = (made.spec.observation, made.spec.action) == (policy.spec.observation, policy.spec.action)
    require(fits, f"the policy was trained for {policy.spec}, and the environment has {made.spec}")
    try:
        return evaluation.evaluate(policy.agent, policy.params, made, episodes=episodes, seed=seed)
    finally:
        made.close()


def load(path: str | Path, *, agent: Agent | None = None) -> Policy:
    return policy.load(path, agent=agent)


load.__doc__ = policy.load.__doc__


def make(env: Any, n: int = 1, *, backend: str | None = None, **options: Any) -> BatchedEnv | HostEnv:
    return environments.make(env, n, backend=backend, **options)


make.__doc__ = environments.make.__doc__


def cache_programs() -> None:
    """Keeps compiled programs on disk, so that the second start of a run is quick. JAX's own setting comes first."""
    if jax.config.jax_compilation_cache_dir is None:  # pyright: ignore[reportAttributeAccessIssue]
        home = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
        jax.config.update("jax_compilation_cache_dir", str(home / "yozh" / "programs"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
