import argparse
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from yozh.app.commands import observing
from yozh.app.commands.common import AGENT, ENV, Parser, Refused, count, need, print_evaluation, say, seed
from yozh.app.text import near

SETTINGS = True
"""Takes `--agent.FIELD VALUE`."""

ENV_OPTIONS = True
"""Takes `--env.NAME VALUE`."""


def add(parser: Parser) -> None:
    parser.epilog = "Steps may be written 300_000 or 3e5. `yozh train dqn LunarLander-v3 --help` lists the agent's settings."  # fmt: skip
    add = parser.add_argument
    add("agent", metavar="AGENT", nargs="?", help="an agent's name: see `yozh list agents`")
    add("env", metavar="ENV", nargs="?", help="an environment's id, or module:function that makes one")
    add("--steps", type=count, metavar="N", help="environment steps (preset's)")
    add("--seed", type=seed, default=0, metavar="S", help="of everything random (0)")
    add(
        "--seeds",
        type=count,
        metavar="N",
        help="train N seeds from --seed on, as one group; again: those that are missing",
    )
    add("--jobs", type=count, metavar="J", help="seeds at a time, a process each (one a core)")
    add("--envs", type=count, metavar="N", help="parallel environments (agent's)")
    add("--backend", metavar="B", help="what runs the environment: jax, envpool, gymnasium (the fastest that has it)")
    add("--out", metavar="DIR", type=Path, help="folder of the run (runs/ENV-AGENT-SEED)")
    add("--eval-episodes", type=count, default=100, metavar="N", help="of each evaluation (100)")
    add("--eval-every", type=count, metavar="N", help="steps between evaluations")
    add("--checkpoint-every", type=count, metavar="N", help="steps between checkpoints (every minute)")
    add("--keep", type=count, default=2, metavar="K", help="checkpoints that stay (2)")
    add("--lag", type=seed, metavar="L", help="turns that acting may be ahead of learning, where hosted (1 if allowed)")
    add(
        "--workers", type=seed, default=0, metavar="K", help="processes that step a Gymnasium environment (0: this one)"
    )
    add(
        "--on-nan",
        choices=("stop", "rollback"),
        default="stop",
        help="what a number that is not finite leads to (stop)",
    )
    add("--preset", metavar="FILE", type=Path, help="an agent's settings and steps, as `yozh tune` writes them; then AGENT is left out")  # fmt: skip
    observing.add(parser)
    add("--quiet", action="store_true", help="no progress, only the result")
    add(f"{AGENT}FIELD", dest="_", metavar="VALUE", help="a hyper-parameter: --agent.learning-rate 6e-4")
    add(f"{ENV}NAME", dest="_", metavar="VALUE", help="an option of the environment: --env.max-episode-steps 500")


def run(options: argparse.Namespace) -> int:
    if options.help:
        from yozh.app.commands.list import show_agent

        return show_agent(options.agent, options.env)
    if options.preset and not options.env:
        options.agent, options.env = None, options.agent
        need(options, "train", "env", example="yozh train --preset preset.json LunarLander-v3")
    if not options.preset:
        need(options, "train", "agent", "env", example="yozh train dqn LunarLander-v3")
    import yozh
    from yozh.app.face import options_asked
    from yozh.app.folder import claim, free
    from yozh.app.options import override
    from yozh.app.progress import Progress

    agent, steps = from_preset(options) if options.preset else starting_point(options.agent, options.env)
    agent, steps = override(agent, options.settings), options.steps or steps
    env_options = dict(options_asked(options.preset or options.agent, options.env, options.env_options))
    if steps is None:
        from yozh import presets

        likely = near(options.env, [env for name, env in presets.names() if name == options.agent])
        raise Refused(
            f"{options.agent} has no preset for {options.env}: say how long to train, --steps 100_000.{likely}"
        )
    if options.seeds or options.jobs:
        observing.refuse(options, "is for one run, not for --seeds")
        return train_seeds(options, agent, steps, env_options)
    name = f"{options.env}-{options.agent}-{options.seed}".replace("/", "-").replace(":", "-")
    out = claim(options.out) if options.out else free(Path("runs") / name)
    progress = None if options.quiet else Progress()
    with ExitStack() as stack:  # loggers take the report along when they are closed
        observers = [*observing.rules(options), *map(stack.enter_context, observing.loggers(options, out))]
        return finish(
            out,
            progress,
            lambda: yozh.train(
                agent,
                options.env,
                steps=steps,
                seed=options.seed,
                envs=options.envs,
                backend=options.backend,
                env_options=env_options,
                out=out,
                eval_every=options.eval_every,
                eval_episodes=options.eval_episodes,
                checkpoint_every=options.checkpoint_every,
                keep=options.keep,
                lag=options.lag,
                workers=options.workers,
                on_nan=options.on_nan,
                observers=[*observers, progress] if progress else observers,
            ),
        )


def finish(out: Path, progress: Any, training: Any) -> int:
    """Carries a training out, says what came of it and publishes the report."""
    from yozh.runners.training import Diverged

    try:
        done = training()
    except Diverged:
        from yozh.app.report import write_report

        print(f"report: {write_report(out)}")
        raise
    finally:
        if progress:
            progress.close()
    from yozh.app.report import publish

    if done.summary.get("stopped"):
        print(f"stopped: {done.summary['stopped']}")
    print_evaluation(done.summary["evaluation"])
    print(f"report: {publish(out)}")
    if done.summary["status"] == "interrupted":
        return say(f"interrupted; what was learnt is in {out}", 130)
    return 0


def train_seeds(options: argparse.Namespace, agent: Any, steps: int, env_options: dict[str, Any]) -> int:
    """Trains a group of seeds and says what came of it."""
    if options.seeds is None:
        raise Refused("--jobs is for several seeds: give --seeds N as well")
    import yozh

    done = yozh.train_seeds(
        agent,
        options.env,
        seeds=options.seeds,
        seed=options.seed,
        jobs=options.jobs,
        out=options.out,
        steps=steps,
        envs=options.envs,
        backend=options.backend,
        env_options=env_options,
        eval_every=options.eval_every,
        eval_episodes=options.eval_episodes,
        checkpoint_every=options.checkpoint_every,
        keep=options.keep,
        lag=options.lag,
        on_nan=options.on_nan,
        progress=not options.quiet,
    )
    if done.summary["finished"]:
        low, high = done.summary["ci95"]
        each = ", ".join(f"{row['mean_return']:.4g}" for row in done.summary["seeds"] if row["mean_return"] is not None)
        print(f"mean return {done.summary['mean_return']:.4g} (95 % interval {low:.4g} to {high:.4g}) over {done.summary['finished']} seeds: {each}")  # fmt: skip
    print(f"report: {done.path / 'report.html'}")
    if done.interrupted:
        return say(f"interrupted; the same command goes on with the seeds that are missing in {done.path}", 130)
    if done.failed:
        return say("; ".join(f"seed {seed} failed: {why}" for seed, why in done.failed.items()), 1)
    return 0


def from_preset(options: argparse.Namespace) -> tuple[Any, int]:
    """The agent and the steps of `--preset`; its name becomes AGENT."""
    from yozh.app.face import asked

    agent, name, steps = asked(options.preset, options.env, steps=None, envs=None)
    if options.agent not in (None, name):
        raise Refused(f"{options.preset} is a preset of {name}, not of {options.agent}")
    options.agent = name
    return agent, steps


def starting_point(name: str, env: str | None) -> tuple[Any, int | None]:
    """The preset's agent and steps, or the agent's defaults."""
    from yozh import presets

    if name not in presets.kinds():
        raise Refused(f"there is no agent {name!r}.{near(name, presets.kinds())}")
    return presets.start(name, env)
