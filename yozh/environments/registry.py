"""Environments by name. Packages are imported when a name leads to them, and not before."""

import difflib
import importlib
import re
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import Any

from yozh.core import BatchedEnv, Env, HostEnv, YozhError, require
from yozh.environments import atari, atari_scores, gymnax, probes
from yozh.environments.bank import Bank
from yozh.environments.batched import Vectorised
from yozh.environments.breakout import Breakout
from yozh.environments.catch import Catch
from yozh.environments.classic import CartPole, Pendulum
from yozh.environments.deep_sea import DeepSea
from yozh.environments.delayed_effect import DelayedEffect
from yozh.environments.host import AsHost
from yozh.environments.options import instead, of_function, of_gymnasium
from yozh.environments.seaquest import Seaquest

BACKENDS = ("jax", "envpool", "gymnasium")
"""The fastest first."""

PURE: dict[str, Callable[..., Env]] = {
    "Bank": Bank,
    "Breakout-MinAtar": Breakout,
    "CartPole-v1": CartPole,
    "Catch": Catch,
    "DeepSea": DeepSea,
    "DelayedEffect": DelayedEffect,
    "Endless": probes.Endless,
    "Medley": probes.Medley,
    "Pendulum-v1": Pendulum,
    "Recall": probes.Recall,
    "Seaquest-MinAtar": Seaquest,
}


def make(env: Any, n: int = 1, *, backend: str | None = None, hosted: bool = False, **options: Any) -> BatchedEnv | HostEnv:  # fmt: skip
    """`n` streams of an environment, for the compiled program where it can live there, else hosted.

    `env` is an id, `module:function`, a function that makes a Gymnasium environment (or a pure one), a Gymnasium vector
    environment, a pure environment, or something made before. An id is looked for in the order jax, envpool, gymnasium; `backend` names one.
    `hosted` keeps it out of the program. `options` go to the environment's own constructor; `workers=True` spreads
    the streams of a Gymnasium environment over worker processes, one a core, and `workers=4` over four (see `Workers`).
    Atari games, EnvPool's and ale-py's, have the options of `atari.Options`.
    """
    require(n > 0, f"the number of streams must be positive, not {n}")
    require(backend is None or backend in BACKENDS, f"no backend {backend!r}; there are {', '.join(BACKENDS)}")
    env = imported(env) or env
    backend = "gymnasium" if backend is None and options.get("workers") else backend
    made = _named(env, n, backend, hosted, options) if isinstance(env, str) else _given(env, n, backend, options)
    return AsHost(made) if hosted and isinstance(made, BatchedEnv) else made


def for_judging(env: Any, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options of an environment in which a policy is judged: without those that only training shall see."""
    return atari.for_judging(options) if isinstance(env, str) and atari.is_game(env) else dict(options)


def names() -> dict[str, tuple[str, ...]]:
    """Every id that can be made here, and the backends that have it, the fastest first."""
    found: dict[str, list[str]] = {}
    for backend in BACKENDS:
        for id in _ids(backend):
            found.setdefault(id, []).append(backend)
    return {id: tuple(backends) for id, backends in sorted(found.items())}


def imported(env: Any) -> Any:
    """What `module:function` names, or `None` for anything else."""
    if not isinstance(env, str) or not re.fullmatch(r"[\w.]+:[A-Za-z_]\w*", env):
        return None
    module, _, name = env.partition(":")
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not (module + ".").startswith(error.name + "."):
            raise  # the module is there, and lacks something itself
        raise YozhError(f"there is no module {module!r} to take {name} from; it must be installed or lie in this folder") from None  # fmt: skip
    if not callable(getattr(found, name, None)):
        near = difflib.get_close_matches(name, [k for k, x in vars(found).items() if callable(x)], 3, 0.5)
        raise YozhError(f"{module} has no function {name!r}" + (f"; did you mean {', '.join(near)}?" if near else ""))
    return getattr(found, name)


def _given(env: Any, n: int, backend: str | None, options: dict[str, Any]) -> BatchedEnv | HostEnv:
    if isinstance(env, type) and issubclass(env, Env):
        env, options = env(**options), {}
    elif callable(env) and not options.get("workers") and isinstance(one := env(), Env):
        env = one
    if isinstance(env, BatchedEnv | HostEnv | Env):
        require(not options, f"{type(env).__name__} is made already: {', '.join(options)} cannot be applied")
        made = Vectorised(env, n) if isinstance(env, Env) else env
        require(made.batch == n, f"{type(env).__name__} has {made.batch} streams, and {n} were asked for")
    else:
        made = _gymnasium(env, n, **options)
    require(backend in (None, made.backend), f"{type(env).__name__} runs on {made.backend}, not on {backend}")
    return made


def _named(id: str, n: int, backend: str | None, hosted: bool, options: dict[str, Any]) -> BatchedEnv | HostEnv:
    for candidate in BACKENDS if backend is None else (backend,):
        if has(candidate, id, strict=backend is not None):
            return _make(candidate, id, n, hosted, options)
    raise YozhError(_unknown(id, backend))


def _make(backend: str, id: str, n: int, hosted: bool, options: dict[str, Any]) -> BatchedEnv | HostEnv:
    if backend == "jax":
        try:
            return Vectorised(PURE[id](**options) if id in PURE else gymnax.Gymnax(id, **options), n)
        except TypeError as e:
            raise YozhError(f"{id}: {e}{instead(options, of_function(PURE[id]) if id in PURE else [])}") from None
    if backend == "envpool":
        import jax

        from yozh.environments.envpool import EnvPool, EnvPoolHost

        options = atari.arguments(id, backend, options) if atari.is_game(id) else options
        inside = not hosted and jax.default_backend() == "cpu"
        return (EnvPool if inside else EnvPoolHost)(id, n, tuple(sorted(options.items())))
    return _gymnasium(id, n, **options)


def _gymnasium(env: Any, n: int, *, workers: bool | int = False, **options: Any) -> HostEnv:
    if isinstance(env, str) and atari.is_game(env):
        require(not workers, f"{env} has threads of its own: leave workers out")
        from yozh.environments.ale import ALE

        return ALE(env, n, **options)
    if workers:
        from yozh.environments.workers import Workers

        return Workers(env, n, None if workers is True else workers, **options)
    from yozh.environments.gymnasium import GymnasiumHost

    try:
        return GymnasiumHost(env, n, **options)
    except TypeError as e:
        if not (options and isinstance(env, str)):
            raise
        said = str(e).partition(" was raised from the environment creator")[0]
        raise YozhError(f"{env}: {said}{instead(options, of_gymnasium(env))}") from None


def has(backend: str, id: str, strict: bool = False) -> bool:
    """Whether the backend has the id. A backend that is not installed has none; `strict` makes that an error."""
    if backend == "jax":
        return id in PURE or (id in gymnax.IDS and (strict or bool(find_spec("gymnax"))))
    if backend == "envpool":
        if not find_spec("envpool"):
            require(not strict, f"EnvPool is not installed: {_install('envpool')}")
            return False
        from envpool.registration import registry

        return id in registry.specs
    from yozh.environments import gymnasium

    return gymnasium.registered(id)


def _ids(backend: str) -> list[str]:
    if backend == "jax":
        return [*PURE, *(gymnax.IDS if find_spec("gymnax") else ())]
    if backend == "envpool":
        if not find_spec("envpool"):
            return []
        import envpool

        return list(envpool.list_all_envs())
    from yozh.environments import gymnasium

    return gymnasium.known()


_INSTALL = {"envpool": "envpool", "gymnax": "gymnax", "ale_py": "atari"}
"""Packages that bring environments, and the extra of each."""


def _install(*packages: str) -> str:
    return f"pip install 'yozh[{','.join(_INSTALL[p] for p in packages)}]'"


def _unknown(id: str, backend: str | None) -> str:
    have = [b for b in BACKENDS if b != backend and has(b, id)] if backend else []
    if have:
        return f"the backend {backend} has no {id}; {' and '.join(have)} {'has' if len(have) == 1 else 'have'}"
    lacking = [p for p in _INSTALL if not find_spec(p)]
    if package := next((p for p in _having(id) if p in lacking), None):
        return f"{id} comes with a package that is not installed: {_install(package)}"
    near = difflib.get_close_matches(id, list(names()), 4, 0.5)
    message = f"no environment {id!r}" + (f"; did you mean {', '.join(near)}?" if near else "")
    return message + (f" (more of them come with {', '.join(lacking)}: {_install(*lacking)})" if lacking else "")


def _having(id: str) -> tuple[str, ...]:
    """The packages that are known to have it, installed or not."""
    if id.startswith("ALE/"):
        return ("ale_py",)
    game = id.endswith("-v5") and atari_scores.references(id) is not None
    return (("gymnax",) if id in gymnax.IDS else ()) + (("envpool",) if game else ())
