"""One Gymnasium environment, held to Gymnasium's contract at every call."""

from collections.abc import Callable
from typing import Any

import numpy as np

from yozh.app.doctor import patience
from yozh.app.doctor.findings import Findings
from yozh.app.doctor.patience import Broken, GivenUp, Hung, Patience
from yozh.environments.declared import Field, fields
from yozh.environments.host import MASK

Step = tuple[Any, float, bool, bool, dict[str, Any]]


class Ward:
    """Calls `reset` and `step`, tells what breaks the contract, and answers as a sound environment would.

    Raises `GivenUp` where there is nothing to answer with.
    """

    def __init__(self, make: Callable[[], Any], findings: Findings):
        self._findings, self._patience = findings, Patience()
        self.step_number = 0
        self.env = self._call("making it", make)
        self.fields: list[Field] = []

    def admit(self) -> None:
        """Takes the observation space as declared; once it is known that there is one."""
        self.fields = fields(self.env.observation_space)

    def reset(self, seed: int | None = None) -> tuple[Any, dict[str, Any]]:
        self.step_number = 0
        try:
            told = self._patience(self.env.reset, seed=seed)
        except Broken as broken:
            if not isinstance(broken.error, TypeError) or "seed" not in str(broken):
                self._break("reset", broken)
            self._add("error", "seed", "reset", f"takes no seed: {broken}", "write def reset(self, *, seed=None, options=None), and call super().reset(seed=seed)")  # fmt: skip
            told = self._call("reset", self.env.reset)
        except Hung:
            self._hang("reset")
        if isinstance(told, tuple) and len(told) == 2:
            return told[0], self._info("reset", told[1])
        self._add("error", "tuple", "reset", f"returned {_kind(told)}", "return observation, info")
        return told[0] if isinstance(told, tuple) and told else told, {}

    def step(self, action: Any) -> Step:
        self.step_number += 1
        told = self._call("step", self.env.step, action)
        if isinstance(told, tuple) and len(told) == 4:
            obs, reward, terminated, info = told
            truncated = False
            self._add("error", "tuple", "step", "returned 4 things, with `done` as the old API has it", "return observation, reward, terminated, truncated, info")  # fmt: skip
        elif isinstance(told, tuple) and len(told) == 5:
            obs, reward, terminated, truncated, info = told
        else:
            self._add("error", "tuple", "step", f"returned {_kind(told)}", "return observation, reward, terminated, truncated, info")  # fmt: skip
            raise GivenUp
        ends = (self._flag(name, x) for name, x in (("terminated", terminated), ("truncated", truncated)))
        return obs, self._reward(reward), *ends, self._info("step", info)  # pyright: ignore[reportReturnType]

    def leaves(self, obs: Any) -> list[np.ndarray]:
        """The observation's leaves `[1, *shape]`, in the order of `fields`; a leaf that does not fit is told, and zero."""
        found = []
        for field in self.fields:
            if why := field.misfit(obs):
                self._add("error", "fit", field.name, why, "return what observation_space declares, or declare what is returned")  # fmt: skip
                found.append(np.zeros((1, *field.shape), field.dtype))
                continue
            x = np.asarray(field.of(obs))
            if x.dtype != field.dtype and not (field.index and x.dtype.kind in "iu"):
                self._add("warning", "dtype", field.name, f"is {x.dtype}, and {field.dtype} is declared", f"return it as {field.dtype}")  # fmt: skip
            if field.shape and not isinstance(field.of(obs), np.ndarray):
                self._add("warning", "list", field.name, f"is {_kind(field.of(obs))}, not an array", "return a NumPy array")  # fmt: skip
            found.append(x.astype(field.dtype, casting="same_kind")[None])
        if isinstance(obs, dict) and (extra := set(obs) - {f.path[0] for f in self.fields if f.path}):
            self._add("warning", "extra", "observation", f"has {', '.join(sorted(map(str, extra)))}, which observation_space does not declare", "it is dropped: declare it, or move it to info")  # fmt: skip
        return found

    def mask(self, obs: Any, info: dict[str, Any]) -> np.ndarray | None:
        """The mask of legal actions `[1, n]`, from the observation or the info."""
        told = obs.get(MASK) if isinstance(obs, dict) else None
        told = info.get(MASK) if told is None else told
        if told is None:
            return None
        try:
            mask = np.asarray(told)
        except ValueError:  # parts of several lengths
            mask = np.asarray(told, object)
        return mask.reshape(1, -1) if mask.ndim < 2 else mask[None]

    def close(self) -> None:
        if self._patience.lost:
            return
        try:
            self._patience(self.env.close)
        except Broken as broken:
            self._add("note", "close", "close", f"raised {broken}")
        except Hung:
            self._add("note", "close", "close", f"did not come back within {patience.LIMIT:g} s")

    def _reward(self, reward: Any) -> float:
        try:
            x = np.asarray(reward)
        except ValueError:
            x = np.asarray(None)
        if x.dtype.kind not in "biuf" or not x.size:
            self._add("error", "kind", "reward", f"is {reward!r:.40}", "return a number")
            return 0.0
        if x.ndim:
            self._add("error", "scalar", "reward", f"is an array of shape {x.shape}, {reward!r:.40}", "return one number: float(reward)")  # fmt: skip
        if not np.isfinite(value := float(x.flat[0])):
            self._add("error", "finite", "reward", f"is {value}", "nothing can be learnt from it: find the division or root that makes it")  # fmt: skip
        return value

    def _flag(self, name: str, x: Any) -> bool:
        if not isinstance(x, bool | np.bool_):
            grave = np.ndim(x) > 0 or x not in (0, 1)
            self._add("error" if grave else "warning", "kind", name, f"is {x!r:.40}", "return True or False")
        return bool(np.any(x))

    def _info(self, where: str, info: Any) -> dict[str, Any]:
        if isinstance(info, dict):
            return info
        self._add("error", "info", where, f"returned {_kind(info)} for info", "return a dict, {} if there is nothing to tell")  # fmt: skip
        return {}

    def _call(self, where: str, f: Callable[..., Any], *args: Any) -> Any:
        try:
            return self._patience(f, *args)
        except Broken as broken:
            self._break(where, broken)
        except Hung:
            self._hang(where)

    def _break(self, where: str, broken: Broken) -> None:
        unpacked = "unpack" in str(broken) or "object is not iterable" in str(broken)
        advice = "step returns five things and reset two: see gymnasium.Env" if unpacked else "mend what raises"
        self._add("error", "raised", where, f"raised {broken}", advice)
        raise GivenUp from None

    def _hang(self, where: str) -> None:
        self._add(
            "error", "hung", where, f"did not come back within {patience.LIMIT:g} s", "look for a loop that never ends"
        )
        raise GivenUp from None

    def _add(self, severity: str, kind: str, field: str, what: str, advice: str = "") -> None:
        step = self.step_number if field not in ("making it", "reset", "close") else None
        self._findings.add(severity, kind, field, what, advice, step=step)


def _kind(x: Any) -> str:
    if isinstance(x, tuple):
        return f"a tuple of {len(x)}"
    return f"one {type(x).__name__}" if x is not None else "None"
