"""What many steps together tell of an environment, whatever runs it."""

import functools
import math
import time
from typing import Any

import jax
import numpy as np

from yozh import agents, spaces
from yozh.app.doctor.findings import Findings
from yozh.core import Spec, YozhError
from yozh.environments.declared import Field
from yozh.environments.host import MASK

LIMITS = ("limit", "max", "horizon", "length", "duration", "timeout")
"""What is in the names of attributes that hold a time limit."""


def look(findings: Findings, field: Field, x: np.ndarray, step: int, streams: bool) -> None:
    """One leaf of an observation, `[B, *shape]`: is it finite and within its bounds?"""
    stream = (lambda at: int(at[0])) if streams else (lambda at: None)
    if np.issubdtype(x.dtype, np.floating) and not (finite := np.isfinite(x)).all():
        at = tuple(int(i) for i in np.argwhere(~finite)[0])
        findings.add("error", "finite", field.name, f"element {_element(at)} is {x[at]}",
                     "nothing can be learnt from it: find the division or root that makes it", step=step, stream=stream(at))  # fmt: skip
    if field.bounded and (at := field.outside(x)) is not None:
        advice = "it is fed one-hot and would arrive as nothing" if field.index else "declare the bounds that hold, or clip it"  # fmt: skip
        what = f"element {_element(at)} is {x[at]:.6g}, outside its declared {field.bounds(at)}"
        findings.add("error" if field.index else "warning", "bounds", field.name, what, advice, step=step, stream=stream(at))  # fmt: skip


def look_at_mask(findings: Findings, mask: np.ndarray, width: int | None, step: int, last: np.ndarray) -> None:
    """A mask of legal actions, `[B, n]`; `last` are the streams whose next action is ignored."""
    if width is None:
        findings.add("error", "kind", "action_mask", "masks are for Discrete, MultiDiscrete and MultiBinary actions", "leave it out", step=step)  # fmt: skip
        return
    if mask.shape[1:] != (width,):
        findings.add("error", "shape", "action_mask", f"has shape {mask.shape[1:]}, and the actions need {(width,)}",
                     "give one entry a choice, those of all parts in one vector", step=step)  # fmt: skip
        return
    if mask.dtype.kind not in "biu":
        findings.add("warning", "dtype", "action_mask", f"is {mask.dtype}", "make it bool or int8", step=step)
    elif mask.dtype.kind != "b" and not np.isin(mask, (0, 1)).all():
        findings.add("warning", "values", "action_mask", f"holds {mask[~np.isin(mask, (0, 1))][0]}", "use 0 and 1", step=step)  # fmt: skip
    if (empty := ~(mask != 0).any(1) & ~last).any():
        findings.add("error", "empty", "action_mask", "forbids every action",
                     "allow one that does nothing, or end the episode", step=step, stream=int(np.argmax(empty)) if len(mask) > 1 else None)  # fmt: skip


def width(action: spaces.Space) -> int | None:
    """The length of a mask of legal actions, where there can be one."""
    match action:
        case spaces.Discrete(n) | spaces.MultiBinary(n):
            return n
        case spaces.MultiDiscrete(ns):
            return sum(ns)
    return None


class Trial:
    """Takes note of the steps of B streams, and judges them all in the end."""

    def __init__(self, findings: Findings, fields: list[Field], budget: float = 20.0):
        self.findings, self.fields = findings, fields
        self.ends: list[tuple[int, bool, bool]] = []
        """Length, terminated and truncated of each episode that ended."""
        self.steps = 0
        self._until = time.perf_counter() + budget
        self._rewards: list[np.ndarray] = []
        self._length = np.zeros(0, int)
        self._first: list[np.ndarray] = []
        self._varied = [False] * len(fields)
        self._largest = [np.zeros(f.shape) for f in fields]
        self._openings: list[bytes] = []

    @property
    def late(self) -> bool:
        """Whether the trial has taken as long as it may."""
        return time.perf_counter() > self._until

    def take(self, obs: list[np.ndarray], first: np.ndarray, reward: np.ndarray, terminated: np.ndarray, truncated: np.ndarray) -> None:  # fmt: skip
        """One step: the observation's leaves `[B, ...]`, the others `[B]`; `first` opens an episode and has no reward."""
        if not self._first:
            self._first = [np.copy(x[:1]) for x in obs]
            self._length = np.zeros(len(first), int)
        for i, x in enumerate(obs):
            self._varied[i] |= not np.array_equal(x, np.broadcast_to(self._first[i], x.shape))
            with np.errstate(invalid="ignore"):
                size = np.abs(np.where(np.isfinite(x), x, 0).astype(float)).max(0)
            self._largest[i] = np.maximum(self._largest[i], size)
        self._openings += [
            b"".join(np.ascontiguousarray(x[i]).tobytes() for x in obs) for i in np.flatnonzero(first)[:2]
        ]
        self._length = np.where(first, 0, self._length + 1)
        self._rewards.append(reward[~first])
        self.steps += int((~first).sum())
        for i in np.flatnonzero(terminated | truncated):
            self.ends.append((int(self._length[i]), bool(terminated[i]), bool(truncated[i])))

    def judge(self, limit: int | None, about: Any) -> None:
        """`limit`: the known time limit; `about`: the environment, whose attributes may tell one."""
        self._judge_observations()
        self._judge_rewards(np.concatenate(self._rewards) if self._rewards else np.zeros(0))
        self._judge_ends(limit, about)

    def _judge_observations(self) -> None:
        many = self.steps >= 10
        for field, varied, largest in zip(self.fields, self._varied, self._largest, strict=True):
            if MASK in field.path or self.findings.any("error", field.name):
                continue
            if many and not varied:
                self.findings.add("warning", "constant", field.name, f"never changed in {self.steps:,} steps",
                                  "return what changes, or leave it out")  # fmt: skip
            if field.index or len(field.shape) > 1 or not largest.size:
                continue
            shown = largest[largest > 0]
            if shown.size and (shown.max() > 100 or shown.max() > 100 * shown.min()):
                what = f"its largest values run from {shown.min():.3g} to {shown.max():.3g}"
                self.findings.add("warning", "scale", field.name, what, "train with --agent.normalise-observations true, or scale it")  # fmt: skip
        if len(self._openings) > 2 and len(set(self._openings)) == 1 and any(self._varied):
            self.findings.add("note", "openings", "reset", f"all {len(self._openings)} episodes opened with the same observation",
                              "where that is not meant, draw the start from self.np_random")  # fmt: skip

    def _judge_rewards(self, reward: np.ndarray) -> None:
        reward = np.abs(reward[np.isfinite(reward)])
        if not reward.size:
            return
        largest, usual = reward.max(), math.sqrt((reward**2).mean())
        if largest == 0 and reward.size >= 10:
            self.findings.add("warning", "zero", "reward", f"was 0 in all {reward.size:,} steps of random actions",
                              "reward progress on the way, or look longer: --steps")  # fmt: skip
        elif largest > 1000 or usual > 100:
            self.findings.add("warning", "scale", "reward", f"is as large as {largest:.4g}", "divide it, or train with --agent.scale-rewards true")  # fmt: skip
        elif 0 < largest < 1e-3:
            self.findings.add("warning", "scale", "reward", f"is never larger than {largest:.2g}", "multiply it, or train with --agent.scale-rewards true")  # fmt: skip

    def _judge_ends(self, limit: int | None, about: Any) -> None:
        if not self.ends and limit is None:
            self.findings.add("warning", "endless", "terminated, truncated", f"no episode ended in {self.steps:,} steps, and no time limit is known",
                              "wrap it in gymnasium.wrappers.TimeLimit, or return truncated=True after a number of steps")  # fmt: skip
        if any(terminated and truncated for _, terminated, truncated in self.ends):
            self.findings.add("note", "both", "terminated, truncated", "were both true in one step", "it counts as terminated")  # fmt: skip
        lengths = {length for length, _, _ in self.ends}
        if len(self.ends) < 2 or len(lengths) > 1 or not all(terminated for _, terminated, _ in self.ends):
            return
        (length,) = lengths
        held = {**vars(type(about)), **getattr(about, "__dict__", {})}
        named = [k for k, x in held.items() if type(x) is int and x == length and any(w in k.lower() for w in LIMITS)]
        what = f"all {len(self.ends)} episodes terminated after exactly {length} steps"
        advice = "if that is a time limit, return truncated=True there and terminated=False"
        known = length == limit or bool(named) or length >= 50
        if length > 1:
            self.findings.add("warning" if known else "note", "limit", "terminated", what + (f", its {named[0]}" if named else ""), advice)  # fmt: skip


@functools.cache
def _takers(spec: Spec) -> tuple[list[str], list[str]]:
    """The agents that take an environment's spaces, and what the others say."""
    takes, refusals = [], []
    for name, cls in agents.names().items():
        try:
            jax.eval_shape(lambda c=cls: c().init(jax.random.key(0), spec))
            takes.append(name)
        except YozhError as error:
            refusals.append(str(error))
    return takes, refusals


def name_agents(findings: Findings, spec: Spec) -> None:
    """Says which agents, with their defaults, take an environment's spaces."""
    takes, refusals = _takers(spec)
    if takes:
        findings.add("note", "agents", "action", f"{spaces.describe(spec.action)} is taken by {', '.join(takes)}")
    else:
        findings.add("error", "agents", "action", "no agent takes these spaces", refusals[-1] if refusals else "")
    if not isinstance(spec.action, spaces.Box):
        return
    low, high = spec.action.bounds()
    if not spec.action.bounded:
        findings.add("note", "unbounded", "action", "has no finite bounds", "actions are handed over as drawn; a squashed policy cannot be used")  # fmt: skip
    elif takes and (np.abs(np.stack([low, high])).max() > 10 or (high - low).min() < 0.2):
        what = f"spans {low.min():.4g} to {high.max():.4g}"
        findings.add("warning", "span", "action", what, "a policy begins with deviation 1: rescale it to [-1, 1] with gymnasium.wrappers.RescaleAction")  # fmt: skip


def _element(at: tuple[int, ...]) -> str:
    """The index of an element without its stream."""
    return str(list(at[1:])) if len(at) > 1 else "0"


def choose(space: spaces.Space, legal: Any, batch: int, rng: np.random.Generator) -> Any:
    """Random actions of Yozh's space `[B, ...]`, legal ones where a mask can be read."""
    match space:
        case spaces.Dict(items):
            return {name: choose(s, None, batch, rng) for name, s in items}
        case spaces.Tuple(items):
            return tuple(choose(s, None, batch, rng) for s in items)
        case spaces.Discrete(n):
            return _pick(rng, legal, batch, n)
        case spaces.MultiDiscrete(ns):
            cuts = np.cumsum(ns)[:-1]
            masks = [None] * len(ns) if legal is None or legal.shape[1] != sum(ns) else np.split(legal, cuts, 1)
            return np.stack([_pick(rng, m, batch, n) for m, n in zip(masks, ns, strict=True)], 1)
        case spaces.MultiBinary(n):
            drawn = rng.integers(0, 2, (batch, n))
            return (drawn * (legal if legal is not None and legal.shape == drawn.shape else 1)).astype(space.dtype)
        case _:
            low, high = space.bounds()
            shape = (batch, *space.shape)
            drawn = rng.uniform(low, high, shape) if space.bounded else np.clip(rng.normal(size=shape), low, high)
            return drawn.astype(space.dtype)


def _pick(rng: np.random.Generator, legal: Any, batch: int, n: int) -> np.ndarray:
    weight = rng.random((batch, n))
    return np.argmax(weight if legal is None or legal.shape[1] != n else np.where(legal, weight, -1), 1).astype(
        np.int32
    )
