"""An environment looked at through `HostEnv`: pure ones in their compiled form, EnvPool's, and vector environments."""

from typing import Any

import jax
import numpy as np

from yozh import spaces
from yozh.app.doctor import patience as waiting
from yozh.app.doctor import speed
from yozh.app.doctor.findings import Findings
from yozh.app.doctor.patience import Broken, GivenUp, Hung, Patience
from yozh.app.doctor.trial import Trial, choose, look, look_at_mask, name_agents, width
from yozh.core import HostEnv, TimeStep
from yozh.environments.declared import fields

COMPILING = 120.0
"""Seconds that the first `reset` and `step` may take."""


def examine(env: HostEnv, findings: Findings, *, steps: int, seed: int, about: Any = None, limit: int | None = None) -> str:  # fmt: skip
    """Tells what is wrong with the steps that an environment makes; `about` is the environment inside, if there is one."""
    trial, patience = Trial(findings, fields(env.spec.observation)), Patience()
    try:
        played = _play(patience, env, trial, steps, seed)
        trial.judge(limit, env if about is None else about)
        if not findings.any("error"):
            again = _play(patience, env, Trial(Findings(), trial.fields), min(steps, 50 * env.batch), seed)
            _compare(findings, played, again, trial)
            other = _play(patience, env, Trial(Findings(), trial.fields), min(steps, 50 * env.batch), seed, actions=seed + 1)  # fmt: skip
            if not env.spec.legal and len(other) > 10 and all(map(_equal, other, played)):
                findings.add("note", "ignored", "action", f"other actions led to the same {len(other) * env.batch:,} steps", "see that step uses its argument")  # fmt: skip
            opened = _play(patience, env, Trial(Findings(), trial.fields), 0, seed + 1)[0]
            if _equal(opened, played[0]):
                findings.add("note", "start", "reset", "opens with the same observations whatever the seed", "where that is not meant, draw the start from the key or seed")  # fmt: skip
    except GivenUp:
        pass
    name_agents(findings, env.spec)
    observation, action = map(spaces.describe, (env.spec.observation, env.spec.action))
    if not findings.any("error") and about is None:
        speed.host(env, findings)
    return f"observation {observation}, action {action}; {trial.steps:,} steps, {len(trial.ends):,} episodes"


def _play(patience: Patience, env: HostEnv, trial: Trial, steps: int, seed: int, actions: int | None = None) -> list[TimeStep]:  # fmt: skip
    """The steps under random legal actions, drawn from a seed of their own."""
    rng, findings = np.random.default_rng(seed if actions is None else actions), trial.findings
    played: list[TimeStep] = []
    last = np.ones(env.batch, bool)
    try:
        step = patience(env.reset, seed, limit=COMPILING)
        while True:
            _look(trial, env, step, last, len(played))
            played.append(jax.tree.map(np.copy, step))
            last = step.last
            if trial.steps >= steps or trial.late:
                return played
            patience(env.send, choose(env.spec.action, step.extras.get("legal"), env.batch, rng), limit=COMPILING)
            step = patience(env.recv, limit=COMPILING if len(played) == 1 else None)
    except Broken as broken:
        findings.add("error", "raised", "step" if played else "reset", f"raised {broken}", "mend what raises", step=len(played) or None)  # fmt: skip
    except Hung:
        findings.add("error", "hung", "step" if played else "reset", f"did not come back within {waiting.LIMIT:g} s", "look for a loop that never ends")  # fmt: skip
    raise GivenUp


def _look(trial: Trial, env: HostEnv, step: TimeStep, before: np.ndarray, t: int) -> None:
    """Holds one step of all streams to `TimeStep`'s contract."""
    findings, batch = trial.findings, env.batch
    obs = jax.tree.leaves(step.obs)
    for field, x in zip(trial.fields, obs, strict=True):
        look(findings, field, x, t, streams=True)
    reward, discount = np.asarray(step.reward), np.asarray(step.discount)
    for name, wrong, what, advice in (
        ("first", step.first != before, "is not set on the step after `last`, or is set elsewhere", "make the step of reset with restart, that of step with transition"),
        ("reward", ~np.isfinite(reward), "is not finite", "nothing can be learnt from it: find the division or root that makes it"),
        ("reward", step.first & (reward != 0), "is not 0 on the step that opens an episode", "make it with restart"),
        ("discount", (discount != 0) & (discount != 1), "is neither 0 nor 1", "gamma belongs to the agent: make the step with transition"),
        ("discount", (discount == 0) & ~step.last, "is 0 where the episode goes on", "make the step with transition"),
    ):  # fmt: skip
        if wrong.any():
            stream = int(np.argmax(wrong))
            value = getattr(step, name)[stream]
            findings.add("error", what, name, f"{what}: {value}", advice, step=t, stream=stream)
    if (legal := step.extras.get("legal")) is not None:
        look_at_mask(findings, np.asarray(legal), width(env.spec.action), t, step.last)
    terminated = discount == 0
    trial.take(obs, np.broadcast_to(step.first, batch), reward, terminated, step.last & ~terminated)


def _compare(findings: Findings, one: list[TimeStep], two: list[TimeStep], trial: Trial) -> None:
    t = next((t for t, (a, b) in enumerate(zip(one, two, strict=False)) if not _equal(a, b)), None)
    if t is None:
        return
    pairs = zip(trial.fields, jax.tree.leaves(one[t].obs), jax.tree.leaves(two[t].obs), strict=True)
    name = next((f.name for f, a, b in pairs if not np.array_equal(a, b, equal_nan=True)), "reward")
    findings.add("warning", "seed", name, "differs between two runs with the same seed and actions", "draw everything random from the seed or key", step=t)  # fmt: skip


def _equal(a: TimeStep, b: TimeStep) -> bool:
    return all(map(np.array_equal, jax.tree.leaves(a), jax.tree.leaves(b)))
