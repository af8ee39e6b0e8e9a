import argparse
from pathlib import Path
from typing import Any

from yozh.app.commands.common import AGENT, Parser, Refused, count, need, print_evaluation, say, seed
from yozh.app.text import near

SETTINGS = True
"""Takes `--agent.FIELD VALUE`."""


def add(parser: Parser) -> None:
    parser.epilog = "Steps may be written 300_000 or 3e5. `yozh train dqn LunarLander-v3 --help` lists the agent's settings."  # fmt: skip
    add = parser.add_argument
    add("agent", metavar="AGENT", nargs="?", help="an agent's name: see `yozh list agents`")
    add("env", metavar="ENV", nargs="?", help="an environment's id, or module:function that makes one")
    add("--steps", type=count, metavar="N", help="environment steps (preset's)")
    add("--seed", type=seed, default=0, metavar="S", help="of everything random (0)")
    add("--envs", type=count, metavar="N", help="parallel environments (agent's)")
    add("--backend", metavar="B", help="what runs the environment: jax, envpool, gymnasium (the fastest that has it)")
    add("--out", metavar="DIR", type=Path, help="folder of the run (runs/ENV-AGENT-SEED)")
    add("--eval-episodes", type=count, default=100, metavar="N", help="of each evaluation (100)")
    add("--eval-every", type=count, metavar="N", help="steps between evaluations")
    add("--quiet", action="store_true", help="no progress, only the result")
    add(f"{AGENT}FIELD", dest="_", metavar="VALUE", help="a hyper-parameter: --agent.learning-rate 6e-4")


def run(options: argparse.Namespace) -> int:
    if options.help:
        from yozh.app.commands.list import show_agent

        return show_agent(options.agent, options.env)
    need(options, "train", "agent", "env", example="yozh train dqn LunarLander-v3")
    import yozh
    from yozh.app.folder import claim, free
    from yozh.app.options import override
    from yozh.app.progress import Progress

    agent, steps = starting_point(options.agent, options.env)
    agent, steps = override(agent, options.settings), options.steps or steps
    if steps is None:
        from yozh import presets

        likely = near(options.env, [env for name, env in presets.names() if name == options.agent])
        raise Refused(
            f"{options.agent} has no preset for {options.env}: say how long to train, --steps 100_000.{likely}"
        )
    name = f"{options.env}-{options.agent}-{options.seed}".replace("/", "-").replace(":", "-")
    out = claim(options.out) if options.out else free(Path("runs") / name)
    progress = None if options.quiet else Progress()
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
            out=out,
            eval_every=options.eval_every,
            eval_episodes=options.eval_episodes,
            observers=(progress,) if progress else (),
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

    print_evaluation(done.summary["evaluation"])
    print(f"report: {publish(out)}")
    if done.summary["status"] == "interrupted":
        return say(f"interrupted; what was learnt is in {out}", 130)
    return 0


def starting_point(name: str, env: str | None) -> tuple[Any, int | None]:
    """The preset's agent and steps, or the agent's defaults."""
    from yozh import agents, presets

    if name not in agents.names():
        raise Refused(f"there is no agent {name!r}.{near(name, agents.names())}")
    return presets.start(name, env)
