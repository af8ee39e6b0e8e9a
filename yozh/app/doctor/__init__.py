"""The doctor: looks at an environment as a friend would, and says what to change."""

from typing import Any

from yozh.app.doctor import pure, raw, streams
from yozh.app.doctor.findings import Diagnosis, Finding, Findings
from yozh.app.doctor.patience import Broken, Hung, Patience
from yozh.core import BatchedEnv, Env, HostEnv, YozhError, require
from yozh.environments import make, registry
from yozh.environments.atari import is_game
from yozh.environments.batched import Vectorised
from yozh.environments.gymnasium import GymnasiumHost, maker
from yozh.environments.host import AsHost

__all__ = ["Diagnosis", "Finding", "doctor"]


def doctor(env: Any, *, backend: str | None = None, steps: int = 1000, envs: int = 8, seed: int = 0) -> Diagnosis:
    """Looks at an environment under `steps` random actions, and says what is wrong with it and what to change.

    `env` is whatever `yozh.make` takes. `envs` streams run where a vector is looked at, `seed` draws actions and starts.
    A Gymnasium environment is looked at itself, not through an adapter. Whatever it raises is a finding, and so is a call
    that takes longer than 10 s; it runs in this process, so what ends the process is beyond the doctor. Raises a
    `YozhError` only where there is no such environment.
    """
    for name, number in (("steps", steps), ("envs", envs)):
        require(number > 0, f"{name} must be positive, not {number}")
    findings = Findings()
    asked = env if isinstance(env, str) else getattr(env, "__name__", type(env).__name__)
    kind, told = _examine(env, findings, backend, steps, envs, seed)
    return Diagnosis(f"{asked} ({kind}): {told}", findings.listed())


def _examine(env: Any, findings: Findings, backend: str | None, steps: int, envs: int, seed: int) -> tuple[str, str]:
    """What runs it, and what was looked at."""
    from gymnasium.vector import VectorEnv

    env = registry.imported(env) or env
    if isinstance(env, VectorEnv):
        try:
            host: HostEnv = Patience()(GymnasiumHost, env, env.num_envs)
        except (Broken, Hung) as error:
            findings.add("error", "raised", "making it", _words(error), "mend what raises")
            return "gymnasium", "nothing could be run"
        return "gymnasium", streams.examine(host, findings, steps=steps, seed=seed)
    if isinstance(env, str):
        runs = next((b for b in registry.BACKENDS if backend in (None, b) and registry.has(b, env)), None)
        if runs == "gymnasium" and not is_game(env):
            return "gymnasium", raw.examine(_constructor(env), findings, steps=steps, envs=envs, seed=seed)
        env = make(env, envs, backend=backend, hosted=True)
    elif callable(env) and not isinstance(env, BatchedEnv | HostEnv | Env):
        try:
            patience = Patience()
            first = patience(env)
        except (Broken, Hung) as error:
            findings.add("error", "raised", "making it", _words(error), "mend what raises")
            return backend or "gymnasium", "nothing could be looked at"
        if not isinstance(first, Env):
            require(backend in (None, "gymnasium"), f"this runs on gymnasium, not on {backend}")
            return "gymnasium", raw.examine(_constructor(env), findings, steps=steps, envs=envs, seed=seed)
        env = first
    if not isinstance(env, BatchedEnv | HostEnv | Env):
        maker(env, {})  # says what one environment is to be given as
    inside = env._env if isinstance(env, AsHost) else env
    inside = inside.env if isinstance(inside, Vectorised) and not inside.varied else inside
    if isinstance(inside, Env):
        return "jax", pure.examine(inside, findings, steps=steps, envs=envs, seed=seed)
    host = AsHost(inside) if isinstance(inside, BatchedEnv) else inside
    return host.backend, streams.examine(host, findings, steps=steps, seed=seed)


def _constructor(env: Any) -> Any:
    """What makes one copy, without the checker that Gymnasium puts around its own: it would raise before we can tell."""
    return maker(env, {"disable_env_checker": True} if isinstance(env, str) else {})[0]


def _words(error: Broken | Hung) -> str:
    if isinstance(error, Hung):
        return "did not come back"
    return str(error.error) if isinstance(error.error, YozhError) else f"raised {error}"
