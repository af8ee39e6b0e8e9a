import argparse
from pathlib import Path

from yozh.app.commands.common import AGENT, ENV, Parser, Refused, count, need, number
from yozh.app.commands.train import starting_point
from yozh.app.stops import duration

SETTINGS = True
"""Takes `--agent.FIELD VALUE`."""

ENV_OPTIONS = True
"""Takes `--env.NAME VALUE`."""


def add(parser: Parser) -> None:
    parser.epilog = "The same command goes on with a study that was interrupted, or that is to have more trials."
    add = parser.add_argument
    add("agent", metavar="AGENT", nargs="?", help="an agent's name: see `yozh list agents`; or a preset's FILE.json")
    add("env", metavar="ENV", nargs="?", help="an environment's id, or module:function that makes one")
    add("--trials", type=count, default=40, metavar="N", help="of the whole study, finished or pruned (40)")
    add("--steps", type=count, metavar="N", help="environment steps of one run (preset's)")
    add("--seeds", type=count, default=2, metavar="K", help="runs of one trial, with seeds from 1000 on (2)")
    add("--fix", action="append", default=[], metavar="agent.FIELD=VALUE", help="hold a setting; --agent.FIELD VALUE does so too")  # fmt: skip
    add("--study", metavar="DIR", type=Path, help="folder of the study (runs/ENV-AGENT-tune)")
    add("--jobs", type=count, default=1, metavar="J", help="trials at once, each in a process of its own (1)")
    add("--timeout", type=number(duration, "a duration such as 90s, 30m or 1h30m"), metavar="TIME", help="go on for no longer: 30m")  # fmt: skip
    add("--eval-episodes", type=count, default=100, metavar="N", help="of each final evaluation (100)")
    add("--backend", metavar="B", help="what runs the environment: jax, envpool, gymnasium (the fastest that has it)")
    add(f"{ENV}NAME", dest="_", metavar="VALUE", help="an option of the environment: --env.max-episode-steps 500")
    add("--quiet", action="store_true", help="no line for each trial, only the result")


def run(options: argparse.Namespace) -> int:
    if options.help:
        return show_space(options.agent, options.env)
    need(options, "tune", "agent", "env", example="yozh tune ppo CartPole-v1 --trials 40")
    fix = dict(options.settings)
    for text in options.fix:
        name, given, value = text.removeprefix("--").partition("=")
        if not name.startswith("agent.") or not given:
            raise Refused(f"--fix takes agent.FIELD=VALUE, not {text!r}")
        fix[name.removeprefix("agent.")] = value
    named = not options.agent.endswith(".json")
    if named and options.steps is None and starting_point(options.agent, options.env)[1] is None:
        raise Refused(f"{options.agent} has no preset for {options.env}: say how long a run is, --steps 100_000")
    from yozh.app.tune import tune

    tuned = tune(
        options.agent,
        options.env,
        trials=options.trials,
        steps=options.steps,
        seeds=options.seeds,
        fix=fix,
        study=options.study,
        jobs=options.jobs,
        timeout=options.timeout,
        eval_episodes=options.eval_episodes,
        backend=options.backend,
        env_options=options.env_options,
        tell=None if options.quiet else lambda line: print(line, flush=True),
    )
    print(f"best mean return {tuned.mean_return:.4g} of {tuned.trials} trials, each of {options.seeds} runs")
    for setting, value in tuned.settings.items():
        print(f"  {AGENT}{setting} {value}")
    print(f"train with it: {tuned.commands[0]}")
    print(f"report: {tuned.path / 'report.html'}")
    return 0


def show_space(name: str, env: str | None) -> int:
    """The settings that are looked for, where, and what they are now."""
    from yozh.app.options import options
    from yozh.presets.spaces import space

    now = {o.name: o.value for o in options(starting_point(name, env)[0])}
    rows = space(now)
    width = max(len(AGENT + setting) for setting in rows)
    print(f"yozh tune {name} {env or 'ENV'} looks for")
    for setting, row in rows.items():
        print(f"  {AGENT + setting:<{width}}  {now[setting]:<8}  {row.bounds()}")
    return 0
