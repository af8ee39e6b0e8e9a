"""What a person calls from Python; the command line calls the same."""

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import jax

from yozh import agents, environments, presets
from yozh.app.alarms import Alarms, warn
from yozh.app.folder import RunFolder, claim
from yozh.core import Agent, BatchedEnv, HostEnv, YozhError, require
from yozh.runners import evaluation, policy, training
from yozh.runners.observers import Observer
from yozh.runners.plan import Plan, plain_options
from yozh.runners.policy import Policy
from yozh.runners.training import Trained


def train(agent: str | Path | Agent, env: str | Callable[[], Any] | Any, *, steps: int | None = None, seed: int = 0,
          envs: int | None = None, backend: str | None = None, env_options: Mapping[str, Any] | None = None, out: str | Path | None = None,
          eval_every: int | None = None, eval_episodes: int = 100, checkpoint_every: int | None = None, keep: int = 2,
          lag: int | None = None, workers: int = 0, on_nan: Literal["stop", "rollback"] = "stop", observers: Sequence[Observer] = ()) -> Trained:  # fmt: skip
    """Trains an agent in an environment and evaluates it.

    `agent` is an agent, its name or a preset's `.json` file; a name takes the preset for the environment, if there is
    one. `env` is an id, `module:function`, a function that makes a Gymnasium environment, or a pure environment. `steps`
    are environment steps (the preset's if left out), `envs` parallel streams, `out` a folder for the run. `env_options` go
    to the environment's own constructor, as in `make` (the preset's, changed by those given). The final
    evaluation is of `eval_episodes` episodes; one of a tenth as many comes every `eval_every` steps (a fifth of the run
    if left out). A run with a folder writes a checkpoint every `checkpoint_every` steps (every minute if left out) and
    at its end, and keeps the newest `keep`; `resume` goes on from there. `lag` is how many turns acting may be ahead of
    learning on hosted environments (one if left out, where the agent allows it), `workers` how many processes step a
    Gymnasium environment (none if left out: this one does). `on_nan="rollback"` goes back to the
    last checkpoint when a number is not finite, instead of raising `Diverged`.
    """
    cache_programs()
    own = options_asked(agent, env, env_options)
    agent, name, steps = asked(agent, env, steps=steps, envs=envs)
    plan = Plan(steps=steps, seed=seed, eval_every=eval_every, eval_episodes=eval_episodes, keep=keep, lag=lag,
                checkpoint_every=checkpoint_every, workers=workers, env_options=own, on_nan=on_nan)  # fmt: skip
    out = None if out is None else claim(out)
    watching = (*observers, RunFolder(out)) if out is not None else observers
    return training.train(agent, env, plan, name=name, backend=backend, out=out, observers=alarmed(watching))


def alarmed(observers: Sequence[Observer], who: str = "") -> tuple[Observer, ...]:
    """The observers, and a watch on the run's metrics that tells them when training goes astray. It warns besides, with `who` in
    front, where nobody listens but the run's folder, which is read later."""
    deaf = (Observer.on_alarm, RunFolder.on_alarm)
    heard = any(getattr(type(observer), "on_alarm", None) not in deaf for observer in observers)

    def tell(row: dict[str, Any]) -> None:
        for observer in observers:
            observer.on_alarm(row)
        if not heard:
            warn(row, who)

    return Alarms(tell), *observers


def asked(agent: str | Path | Agent, env: Any, *, steps: int | None, envs: int | None) -> tuple[Agent, str, int]:
    """The agent, its name and the steps that `train` was asked for, whatever was left to a preset filled in."""
    if _is_file(agent):
        preset = presets.read(agent)
        agent, steps = preset.agent, preset.steps if steps is None else steps
    if isinstance(agent, Agent):
        chosen, name = agent, next((n for n, cls in agents.names().items() if type(agent) is cls), type(agent).__name__)
    else:
        name, (chosen, usual) = str(agent), presets.start(str(agent), env)
        steps = usual if steps is None else steps
    if steps is None:
        raise YozhError("say how long to train: steps=100_000")
    require(steps > 0, f"steps must be positive, not {steps}")
    if envs is not None:
        require(envs > 0, f"envs must be positive, not {envs}")
        chosen = dataclasses.replace(chosen, streams=envs)
    return chosen, name, steps


def options_asked(agent: str | Path | Agent, env: Any, given: Mapping[str, Any] | None) -> tuple[tuple[str, Any], ...]:
    """The environment's options that `train` was asked for: those of the preset, and those given."""
    if _is_file(agent):
        usual = presets.read(agent).env_options
    else:
        usual = presets.env_options(agent, env) if isinstance(agent, str) else {}
    return plain_options(dict(usual) | dict(given or {}))


def _is_file(agent: str | Path | Agent) -> bool:
    """Whether the agent is a preset's file."""
    return isinstance(agent, Path) or (isinstance(agent, str) and agent.endswith(".json"))


def options_played(policy: Policy, env: Any, given: Mapping[str, Any] | None) -> dict[str, Any]:
    """The options of the environment in which a policy shows what it can: in its own those that it was trained with, less
    those that only training shall see, changed by those given."""
    env, own = (policy.env, policy.env_options) if env in (None, policy.env) else (env, {})
    found = dict(plain_options(own | dict(given or {})))
    only = sorted(set(found) - set(environments.for_judging(env, found)))
    require(not only, f"{env}: {' and '.join(only)} {'is' if len(only) == 1 else 'are'} for training only")
    return found


def evaluate(policy: Policy | str | Path, env: Any = None, *, episodes: int = 100, seed: int = 1, backend: str | None = None,
             env_options: Mapping[str, Any] | None = None, explore: bool = False) -> dict[str, Any]:  # fmt: skip
    """Returns of `episodes` whole episodes and their mean with its 95 % interval; `env` is the policy's own if left out, with
    the options that it was trained with, changed by `env_options`. With `explore` actions are drawn as in training, where they
    are the best ones otherwise: in a game without chance these play the same few episodes again and again."""
    cache_programs()
    policy = policy if isinstance(policy, Policy) else load(policy)
    options = options_played(policy, env, env_options)
    env = policy.env if env is None else env
    made = environments.make(env, evaluation.streams(episodes), backend=backend, **options)
    fits = (made.spec.observation, made.spec.action) == (policy.spec.observation, policy.spec.action)
    require(fits, f"the policy was trained for {policy.spec}, and the environment has {made.spec}")
    try:
        return evaluation.evaluate(policy.agent, policy.params, made, episodes=episodes, seed=seed, explore=explore)
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
