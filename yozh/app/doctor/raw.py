"""A Gymnasium environment looked at itself, before an adapter or a vector environment hides what it does."""

import copy
import math
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np

from yozh import spaces
from yozh.app.doctor import speed
from yozh.app.doctor.findings import Findings
from yozh.app.doctor.patience import GivenUp
from yozh.app.doctor.trial import Trial, look, look_at_mask, name_agents, width
from yozh.app.doctor.ward import Ward
from yozh.core import Spec
from yozh.environments.host import without_mask
from yozh.environments.worker import time_limit

REPLAYED = 200
"""Steps of the trial that are taken again, to compare."""

Moment = tuple[tuple[int, ...], float, bool, bool]
"""Checksums of the observation's leaves, reward, terminated, truncated."""


def examine(make: Callable[[], Any], findings: Findings, *, steps: int, envs: int, seed: int) -> str:
    """Tells all that is wrong with what `make` makes; returns what was looked at, in words."""
    try:
        ward = Ward(make, findings)
        spec = _spaces(ward, findings)
    except GivenUp:
        return "nothing could be looked at"
    about = f"observation {spaces.describe(spec.observation)}, action {spaces.describe(spec.action)}"
    trial, actions, record = Trial(findings, ward.fields), [], []
    legal = False
    try:
        legal = _play(ward, trial, actions, record, steps, seed, spec.action)
        trial.judge(time_limit(ward.env), ward.env.unwrapped)
    except GivenUp:
        pass
    finally:
        ward.close()
    name_agents(findings, Spec(spec.observation, spec.action, legal))
    if not findings.any("error"):
        try:
            _replays(make, findings, actions[:REPLAYED], record[:REPLAYED], seed, ward.env.action_space)
        except GivenUp as told:
            findings.add("error", "second", "a second copy", f"did not do what the first one did: {told}")
    if not findings.any("error"):
        speed.gymnasium(make, findings, envs)
    return f"{about}; {trial.steps:,} steps, {len(trial.ends):,} episodes"


def _spaces(ward: Ward, findings: Findings) -> Spec:
    """The declared spaces in Yozh's terms."""
    import gymnasium

    env, found = ward.env, []
    if not isinstance(env, gymnasium.Env):
        findings.add("error", "kind", "the environment", f"is a {type(env).__module__}.{type(env).__name__}, not a gymnasium.Env",
                     "derive it from gymnasium.Env")  # fmt: skip
        raise GivenUp
    for name in ("observation_space", "action_space"):
        space = getattr(env, name, None)
        if not isinstance(space, gymnasium.Space):
            findings.add("error", "kind", name, f"is {space!r:.60}", "declare a space of gymnasium.spaces")
            raise GivenUp
        try:
            found.append(spaces.from_gymnasium(space))
        except TypeError as error:
            findings.add("error", "kind", name, str(error))
            raise GivenUp from None
    ward.admit()
    return Spec(without_mask(found[0])[0], found[1])


def _play(ward: Ward, trial: Trial, actions: list[Any], record: list[Moment], steps: int, seed: int, space: Any) -> bool:  # fmt: skip
    """Random legal actions for a number of steps; `actions` and `record` are filled. Returns whether there are masks."""
    findings, rng, yes = trial.findings, np.random.default_rng(seed), np.ones(1, bool)
    ward.env.action_space.seed(seed)

    def arrived(obs: Any, reward: float, terminated: bool, truncated: bool) -> list[np.ndarray]:
        leaves = ward.leaves(obs)
        for field, x in zip(ward.fields, leaves, strict=True):
            look(findings, field, x, ward.step_number, streams=False)
        first = yes if ward.step_number == 0 else ~yes
        trial.take(leaves, first, np.array([reward]), yes & terminated, yes & truncated)
        return leaves

    obs, info = ward.reset(seed)
    arrived(obs, 0.0, False, False)
    at_reset = ward.mask(obs, info) is not None
    over = False
    while trial.steps < steps:
        if trial.late:
            findings.add(
                "note", "late", "the trial", f"ended after {trial.steps:,} of {steps:,} steps, for steps are slow"
            )
            break
        mask = ward.mask(obs, info)
        if mask is not None:
            look_at_mask(findings, mask, width(space), ward.step_number, yes & over)
            if not at_reset:
                findings.add("error", "late", "action_mask", "is told by step and not by the first reset", "tell it in reset's info too: there it is looked for", step=ward.step_number)  # fmt: skip
        if over:
            obs, info = ward.reset()
            over = False
            arrived(obs, 0.0, False, False)
            continue
        action = _choose(ward.env.action_space, mask, rng)
        before, kept = obs, _copied(obs)
        obs, reward, terminated, truncated, info = ward.step(action)
        if not _same(before, kept):
            findings.add("warning", "alias", "observation", "changes after it was returned: step writes into the same array",
                         "return a copy", step=ward.step_number - 1)  # fmt: skip
        leaves = arrived(obs, reward, terminated, truncated)
        actions.append(action)
        record.append((tuple(zlib.crc32(x.tobytes()) for x in leaves), reward, terminated, truncated))
        over = terminated or truncated
    return at_reset


def _replays(make: Callable[[], Any], findings: Findings, actions: list[Any], record: list[Moment], seed: int, space: Any) -> None:  # fmt: skip
    """Takes the trial's steps again on fresh copies: alone, beside another copy, with returned arrays written over, with
    other actions, from another seed."""
    if not record:
        return
    again, names = _replay(make, actions, seed)
    step = next((i for i, (a, b) in enumerate(zip(again, record, strict=False)) if not _equal(a, b)), None)
    if step is not None:
        field, one, two = _difference(names, again[step], record[step])
        findings.add("warning", "seed", field, f"differs between two copies with the same seed and actions{one and f': {one} and {two}'}",
                     "draw everything random from self.np_random, and call super().reset(seed=seed) in reset", step=step + 1)  # fmt: skip
        return
    beside, _ = _replay(make, actions, seed, beside=True)
    if not all(map(_equal, beside, record)):
        findings.add("error", "shared", "the environment", "behaves otherwise while a second copy runs beside it", "keep what changes in self, not in the class or the module")  # fmt: skip
    written, _ = _replay(make, actions, seed, write=True)
    if not all(map(_equal, written, record)):
        findings.add("warning", "state", "observation", "is the environment's own state: who writes into it changes what comes next", "return a copy")  # fmt: skip
    space.seed(seed + 1)
    other, _ = _replay(make, [space.sample() for _ in actions], seed, masked=False)
    if len(record) >= 10 and other and all(map(_equal, other, record)):
        findings.add("note", "ignored", "action", f"other actions led to the same {len(other)} steps", "see that step uses its argument")  # fmt: skip
    first, second = (_replay(make, actions[:1], s, opening=True)[0] for s in (seed, seed + 1))
    if first == second:
        findings.add("note", "start", "reset", "opens with the same observation whatever the seed", "where that is not meant, draw the start from self.np_random")  # fmt: skip


def _replay(make: Callable[[], Any], actions: list[Any], seed: int, *, beside: bool = False, write: bool = False,
            masked: bool = True, opening: bool = False) -> tuple[list[Moment], list[str]]:  # fmt: skip
    """The moments of a fresh copy under the actions, or of its first observation alone; and the names of its fields."""
    aside = Findings()
    wards = [Ward(make, aside) for _ in range(1 + beside)]
    found: list[Moment] = []
    try:
        for ward in wards:
            ward.admit()
        if beside:
            wards[1].reset(seed + 1)
        ward = wards[0]
        obs, info = ward.reset(seed)
        if opening:
            return [(tuple(zlib.crc32(x.tobytes()) for x in ward.leaves(obs)), 0.0, False, False)], []
        for action in actions:
            if write:
                _overwrite(obs)
            if beside:
                wards[1].reset(seed + 1 + len(found))
            if not masked and ward.mask(obs, info) is not None:
                return [], []  # other actions may be illegal
            obs, reward, terminated, truncated, info = ward.step(action)
            leaves = ward.leaves(obs)
            found.append((tuple(zlib.crc32(x.tobytes()) for x in leaves), reward, terminated, truncated))
            if terminated or truncated:
                obs, info = ward.reset()
        return found, [f.name for f in ward.fields]
    except GivenUp:
        if masked:
            raise GivenUp(f"{aside.listed()[0]}") from None
        return [], []
    finally:
        for ward in wards:
            ward.close()


def _difference(names: list[str], a: Moment, b: Moment) -> tuple[str, str, str]:
    for name, x, y in zip(names, a[0], b[0], strict=True):
        if x != y:
            return name, "", ""
    name, i = next((n, i) for n, i in (("reward", 1), ("terminated", 2), ("truncated", 3)) if a[i] != b[i])
    return name, str(a[i]), str(b[i])


def _equal(a: Moment, b: Moment) -> bool:
    return a == b or (a[0] == b[0] and a[2:] == b[2:] and math.isnan(a[1]) and math.isnan(b[1]))


def _choose(space: Any, mask: np.ndarray | None, rng: np.random.Generator) -> Any:
    """A random action, a legal one where the mask can be read."""
    import gymnasium.spaces as gs

    if mask is None or mask.dtype == object or not (allowed := mask[0] != 0).any():
        return space.sample()
    if isinstance(space, gs.Discrete) and len(allowed) == space.n:
        return space.dtype.type(space.start + rng.choice(np.flatnonzero(allowed)))
    if isinstance(space, gs.MultiDiscrete) and len(allowed) == space.nvec.sum():
        parts = np.split(allowed, np.cumsum(space.nvec)[:-1])
        if all(p.any() for p in parts):
            return np.array([rng.choice(np.flatnonzero(p)) for p in parts], space.dtype) + space.start
    return space.sample()


def _copied(obs: Any) -> Any:
    try:
        return copy.deepcopy(obs)
    except Exception:
        return obs


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, dict):
        return all(_same(a[k], b[k]) for k in a if k in b)
    if isinstance(a, tuple | list):
        return all(map(_same, a, b))
    return not isinstance(a, np.ndarray) or a.tobytes() == b.tobytes()


def _overwrite(obs: Any) -> None:
    for x in obs.values() if isinstance(obs, dict) else obs if isinstance(obs, tuple) else [obs]:
        if isinstance(x, dict | tuple):
            _overwrite(x)
        elif isinstance(x, np.ndarray) and x.flags.writeable:
            x.fill(0)
