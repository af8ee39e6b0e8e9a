"""What combines with what. `python -m tests.support` tries it all out and writes `docs/support.md`."""

import contextlib
import dataclasses
import itertools
import tempfile
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tests.contract import SMALL, STEPS, learnt, roomy, train
from yozh.agents.schedules import over
from yozh.core import Agent, BatchedEnv, HostEnv, Spec, TimeStep
from yozh.environments import make, probes
from yozh.networks import GRU, Auto
from yozh.networks.torsos import flatten
from yozh.runners import evaluation, fused, policy
from yozh.runners.hosted import Hosted

PAGE = Path(__file__).parents[1] / "docs" / "support.md"

Features = frozenset[str]

FEATURES = {
    "discrete": "Discrete actions",
    "several": "MultiDiscrete actions",
    "bits": "MultiBinary actions",
    "continuous": "Box actions",
    "dict": "Dict observations",
    "image": "images",
    "mask": "masks of legal actions",
    "memory": "recurrence",
    "normalised": "normalised observations",
    "hosted": "hosted runner",
    "seeds": "seeds abreast",
    "envpool": "EnvPool in the program",
}

ACTIONS = ("discrete", "several", "bits", "continuous")
EITHER = (ACTIONS, ("hosted", "seeds", "envpool"), ("mask", "continuous"))
"""Of each of these at most one: a run has one kind of actions and one runner, and no mask forbids real numbers."""

SWITCHES = ("dict", "image", "mask", "memory")
"""Of `Medley`, beside the kind of actions."""

POOLS = {
    "CartPole-v1": {"discrete"},
    "Pendulum-v1": {"continuous"},
    "Jumanji/RubiksCube-v0": {"several", "dict"},
    "Jumanji/Snake-v1": {"discrete", "dict", "image", "mask"},
}
"""EnvPool's environments that are tried, and what they have."""

NET = Auto((8,), "tanh", "uniform")
TURNS = 12
"""So many that the replay is warm; more where whole episodes are waited for."""
BATCH = 20
"""Streams that are played and evaluated."""

ENOUGH = 0.9
"""Mean return of `Medley` at which all is learnt."""
ENOUGH_TURNS = 600
"""In which it is."""

INTRODUCTION = """\
# What combines with what

Written by `python -m tests.support` from the agents in `tests/contract.py` and the outcome of the checks;
`tests/test_support.py` makes the same checks for dqn and ppo (`make thorough` for a2c and pqn too), and `make thorough` for the others in a
few groups that hold every feature; pairs of these others have not all been tried yet. *Yes* alone, and for a pair, means that an agent with the feature or the two was
trained for a few turns: its weights changed and stayed finite, 200 steps of exploration held no illegal action, the policy out
of its file acted like the one that went in, and it could be evaluated. Every pair occurs in a group of up to five features.
The environment is `Medley` of `yozh/environments/probes.py`; with EnvPool it is one of EnvPool's that has the other feature.
*No* means that it is refused before anything is compiled. Empty: there is no such pair (one kind of actions and one runner at
a time, no mask for Box actions, no environment of EnvPool with both). A mask of MultiDiscrete actions has an entry for each
option of each choice, one of MultiBinary actions for each bit that may be set.
"""

LEARNT = """\
`Medley` with all of these switched on, where whoever ignores one of them has a mean return of 1/2 at best."""


def claimed(name: str) -> list[str]:
    """The features that the agent says it has."""
    small = SMALL[name]
    lacking = {*small.lacks, *(() if small.continuous else ACTIONS[1:]), *((*ACTIONS[:3], "mask") if small.real else ()),
               *(() if small.recurrent else ("memory",))}  # fmt: skip
    return [f for f in FEATURES if f not in lacking]


def pool(features: Collection[str]) -> str | None:
    """The plainest environment of EnvPool that has these."""
    wanted = set(features) & {*ACTIONS, "dict", "image", "mask"}
    return min((id for id, has in POOLS.items() if wanted <= has), key=lambda id: len(POOLS[id]), default=None)


def possible(features: Collection[str]) -> bool:
    one_of_each = all(len(set(features) & set(group)) <= 1 for group in EITHER)
    return one_of_each and ("envpool" not in features or pool(features) is not None)


def alone(name: str) -> list[Features]:
    return [frozenset({f}) for f in claimed(name)]


def pairs(name: str) -> list[Features]:
    return [frozenset(p) for p in itertools.combinations(claimed(name), 2) if possible(p)]


def groups(name: str, size: int = 5) -> list[Features]:
    """A few groups of features in which every pair of them meets, as found by always taking what covers most."""
    left, found = set(pairs(name)), []
    while left:
        group: set[str] = set(min(left, key=sorted))
        while len(group) < size:
            fits = [f for f in claimed(name) if f not in group and possible({*group, f})]
            new = {f: sum({f, g} in left for g in group) for f in fits}
            if not any(new.values()):
                break
            group.add(max(new, key=new.__getitem__))
        left -= {frozenset(p) for p in itertools.combinations(group, 2)}
        found.append(frozenset(group))
    return found


def cover(name: str) -> list[Features]:
    """As few of the groups as hold every feature."""
    left, found = set(claimed(name)), []
    while left:
        best = max(groups(name), key=lambda group: len(group & left))
        left -= best
        found.append(best)
    return found


def everything(name: str) -> Features:
    """All that can be had at once in `Medley`, with the kind of actions that is hardest."""
    has = claimed(name)
    kind = next(a for a in ("several", "discrete", "bits", "continuous") if a in has)
    return frozenset({kind, *(f for f in (*SWITCHES, "normalised") if f in has and possible({kind, f}))})


def label(features: Features) -> str:
    return "+".join(f for f in FEATURES if f in features)


def build(name: str, features: Features, agent: Agent, **parts: Any) -> tuple[Agent, dict[str, Any]]:
    """The agent with the features, and what `make` needs for an environment with them."""
    if "normalised" in claimed(name):
        parts["normalise_observations"] = "normalised" in features
    agent = over(dataclasses.replace(agent, **parts), STEPS)
    kind = next(iter(features & set(ACTIONS)), claimed(name)[0])
    if "envpool" in features:
        return agent, {"env": pool({*features, kind}), "backend": "envpool"}
    return agent, {"env": probes.Medley(action=kind, **{s: s in features for s in SWITCHES})}


def check(name: str, features: Features) -> None:
    """A few turns of training with the features, and what follows: acting, the policy file, evaluation."""
    core = {"core": GRU(8)} if "memory" in features else {}
    agent, env = build(name, features, roomy(SMALL[name].agent), torso=NET, **core)
    hosted = "hosted" in features
    with unoptimised():
        before, after, params = trained(agent, make(**env, n=agent.experience.streams, hosted=hosted), features)
        assert np.isfinite(after).all(), "weights are not finite"
        assert (np.abs(after - before).max(1) > 1e-6).all(), "nothing was learnt"
        assert len(after) == 1 or np.abs(after[0] - after[1]).max() > 1e-3, "two seeds learnt the same"
        steps = play(agent, params, make(**env, n=BATCH, hosted=True))
        keep(agent, params, steps, make(**env, n=BATCH, hosted=True).spec)
        shared = hosted or len(features) > 1  # evaluation then takes the program that acted, and compiles none
        judged = evaluation.evaluate(agent, params, make(**env, n=BATCH, hosted=shared), episodes=BATCH, seed=2)
        assert len(judged["returns"]) == BATCH and np.isfinite(judged["returns"]).all()


def trained(agent: Agent, env: BatchedEnv | HostEnv, features: Features) -> tuple[np.ndarray, np.ndarray, Any]:
    """All weights before and after some turns, a row for each seed, and what the first one acts with."""
    whole = 2 * (env.spec.horizon or 0) // agent.experience.unroll if hasattr(agent, "horizon") else 0
    turns = max(TURNS, whole)
    runner = fused.Fused(agent, env) if isinstance(env, BatchedEnv) else Hosted(agent, env)
    runs = [runner.init(jax.random.key(seed)) for seed in range(2 if "seeds" in features else 1)]
    before = np.stack([learnt(run) for run in runs])
    if "seeds" in features:
        abreast = jax.jit(jax.vmap(fused.advance, in_axes=(None, None, 0, None)))
        together, _ = abreast(agent, env, jax.tree.map(lambda *x: jnp.stack(x), *runs), jnp.int32(turns))
        runs = [jax.tree.map(lambda x, i=i: x[i], together) for i in range(len(runs))]
    else:
        runs = [runner.advance(runs[0], turns)[0]]
    env.close()
    return before, np.stack([learnt(run) for run in runs]), agent.policy(runs[0].state)


def play(agent: Agent, params: Any, env: HostEnv) -> list[TimeStep]:
    """200 steps of the exploring policy, and that it obeys the masks."""
    acting, steps = policy.Policy(agent, params, env.spec, explore=True), [env.reset(1)]
    for _ in range(200 // BATCH):
        step = steps[-1]
        action = acting(step.obs, step.extras.get("legal"), first=step.first)
        if env.spec.legal:
            made = np.asarray(jax.vmap(lambda a: flatten(env.spec.action, a))(action)) > 0
            assert not (made & ~step.extras["legal"]).any(), "an illegal action"
        env.send(action)
        steps.append(env.recv())
    env.close()
    return steps


def keep(agent: Agent, params: Any, steps: list[TimeStep], spec: Spec) -> None:
    """The policy out of its file acts like the one that went in."""
    with tempfile.TemporaryDirectory() as folder:
        before = policy.Policy(agent, params, spec)
        before.save(Path(folder) / "policy.safetensors")
        after = policy.load(folder)
    for step in steps:
        told = step.obs, step.extras.get("legal")
        jax.tree.map(np.testing.assert_array_equal, before(*told, first=step.first), after(*told, first=step.first))


@contextlib.contextmanager
def unoptimised() -> Iterator[None]:
    """Programs that run for a moment are compiled in half the time, and go: all of them have more memory maps than Linux
    allows a process."""
    jax.config.update("jax_disable_most_optimizations", True)
    try:
        yield
    finally:
        jax.config.update("jax_disable_most_optimizations", False)
        jax.clear_caches()


def learnt_all(name: str) -> None:
    """Training on `Medley` with all features, under settings for probes, gets there."""
    small, features = SMALL[name], everything(name)
    core = {"core": GRU(16)} if "memory" in features else {}
    agent, env = build(name, features, small.probe, **core, **small.medley)
    run, _ = train(agent, env["env"], ENOUGH_TURNS)
    judged = evaluation.evaluate(agent, agent.policy(run.state), make(**env, n=BATCH), episodes=200, seed=1)
    assert judged["mean_return"] >= ENOUGH, f"mean return {judged['mean_return']:.2f}"


def page(failed: Collection[tuple[str, Features]] = (), unlearnt: Collection[str] = ()) -> str:
    """`docs/support.md`: what the table claims, but for the checks that failed and the agents that did not learn."""
    names = list(SMALL)
    wrong = {(name, frozenset(p)) for name, group in failed for p in itertools.combinations(group, 2)}
    wrong |= {(name, group) for name, group in failed if len(group) == 1}

    def alone(name: str, feature: str) -> str:
        return "no" if feature not in claimed(name) else "fails" if (name, frozenset({feature})) in wrong else "yes"

    def together(name: str, one: str, other: str) -> str:
        pair = frozenset({one, other})
        return "" if pair not in pairs(name) else "fails" if (name, pair) in wrong else "yes"

    rows = [[what, *(alone(n, f) for n in names)] for f, what in FEATURES.items()]
    lines = [INTRODUCTION, *table(["", *names], rows), "", "## All at once", "", LEARNT, ""]
    rows = [[n, label(everything(n)), "fails" if n in unlearnt else "yes"] for n in names]
    lines += table(["agent", "with", f"mean return ≥ {ENOUGH}"], rows)
    for name in names:
        has = claimed(name)
        rows = [[f, *(together(name, f, g) for g in has[:i])] for i, f in enumerate(has)]
        rows = [[*row, *[""] * (len(has) - len(row))] for row in rows if any(row[1:])]
        lines += ["", f"## Pairs: {name}", "", *table(["", *has[:-1]], rows)]
    return "\n".join([*lines, ""])


def table(head: list[str], rows: list[list[str]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)]


def main() -> None:
    checks = [(n, f) for n in SMALL for f in (*alone(n), *groups(n))]
    failed = [(n, f) for n, f in checks if not succeeds(f"{n} {label(f)}", lambda n=n, f=f: check(n, f))]
    unlearnt = [n for n in SMALL if not succeeds(f"{n} {label(everything(n))}, learnt", lambda n=n: learnt_all(n))]
    PAGE.write_text(page(failed, unlearnt))


def succeeds(what: str, f: Callable[[], None]) -> bool:
    began = time.perf_counter()
    try:
        f()
    except Exception as error:
        said = f"{type(error).__name__}: {error}".splitlines()[0]
    else:
        said = "yes"
    print(f"{what}: {said} ({time.perf_counter() - began:.1f} s)", flush=True)
    return said == "yes"


if __name__ == "__main__":
    main()
