"""One HTML file that shows a run and needs nothing else: no network, no other file."""

import base64
import html
import sys
from pathlib import Path

from yozh.app import charts, page, value_report
from yozh.app.folder import RunRecord, read_run
from yozh.app.group_report import write_group_report
from yozh.app.seed_group import read_group
from yozh.app.video import film
from yozh.environments import for_judging

FIRST = ("loss", "policy_loss", "value_loss", "td_error", "q", "value", "entropy", "kl", "clip_fraction", "epsilon")
"""Metrics that lead, where the agent reports them."""
NOT_METRICS = {"steps", "updates", "seconds", "return_mean", "episodes", "total_steps"}


def publish(path: str | Path) -> Path:
    """Films the policy of a finished run, where its environment can be drawn, and writes the report; a group of seeds has its own."""
    if read_group(path):
        return write_group_report(path)
    run = read_run(path)
    if not (run.path / "policy.gif").exists() and (run.path / "policy.safetensors").exists():
        import yozh

        try:
            film(yozh.load(run.path / "policy.safetensors"), run.config["env"], run.path / "policy.gif")
        except Exception as error:  # whatever a simulator's renderer raises, the report is worth more than the film
            print(f"no moving picture: {error}", file=sys.stderr)
    return write_report(path)


def write_report(path: str | Path) -> Path:
    """Writes `report.html` into a run folder from the files that are there."""
    run = read_run(path)
    title = f"{run.config['settings']['class'].rpartition('.')[2]} on {run.config['env']}"
    figures = "".join(page.figure(*f) for f in _headline(run))
    body = [
        page.head(title, _subtitle(run), figures, _film(run.path / "policy.gif")),
        page.warnings([f"at {row['steps']:,} steps: {row['alarm']}" for row in run.others if "alarm" in row]),
        page.section("Learning curve", f'<div class="pair">{_curves(run)}</div>'),
        _evaluation(run),
        value_report.values(run),
        value_report.replay(run),
        _metrics(run),
        _time(run),
        page.section("Settings", page.card(page.settings(run.config))),
        _environment(run),
        page.section("Machine and versions", page.card(page.machine(run.config))),
    ]
    return page.write(run.path / "report.html", title, body)


def _subtitle(run: RunRecord) -> str:
    config, summary = run.config, run.summary
    words = [f"{summary.get('steps', config['steps']):,} environment steps", f"seed {config['seed']}"]
    words += [page.streams(config)] if config.get("envs") else []
    words += [f"{config['backend']} environments", config.get("started", "")[:10], summary.get("status", "unfinished")]
    group = '<a href="../report.html">one of a group of seeds</a>' if read_group(run.path.parent) else ""
    return page.words([html.escape(w) for w in words] + [group])


def _environment(run: RunRecord) -> str:
    """The environment's options, where it was given any; a policy is judged without some of them."""
    options = run.config.get("env_options", {})
    judged = for_judging(run.config["env"], options)
    rows = [(k, f"{v}{'' if k in judged else ', in training only'}") for k, v in options.items()]
    return page.section("Environment", page.card(page.table(rows))) if rows else ""


def _headline(run: RunRecord) -> list[tuple[str, str, str]]:
    found, summary = [], run.summary
    if evaluation := summary.get("evaluation") or (run.evaluations[-1]["evaluation"] if run.evaluations else None):
        low, high = evaluation["ci95"]
        note = f"95 % interval {page.number(low)} to {page.number(high)}, {evaluation['episodes']} episodes"
        found.append((page.number(evaluation["mean_return"]), "mean return", note))
    if summary:
        found.append((page.number(summary["steps_per_second"]), "steps a second", "compilation left out"))
        found.append((page.seconds(summary["train_seconds"]), "training", f"{summary['updates']:,} updates"))
        found.append((page.seconds(summary["compile_seconds"]), "compilation", "before the first step"))
    return found


def _film(path: Path) -> str:
    if not path.exists():
        return ""
    data = base64.b64encode(path.read_bytes()).decode()
    return f'<figure class="film"><img alt="the trained policy at work" src="data:image/gif;base64,{data}"></figure>'


def _curves(run: RunRecord) -> str:
    if not run.progress and not run.evaluations:
        return "<p>Nothing was recorded.</p>"
    pairs = (("steps", "environment steps"), ("seconds", "seconds of training"))
    return "".join(f'<div class="card">{charts.learning_curve(run.progress, run.evaluations, *p)}</div>' for p in pairs)


def _evaluation(run: RunRecord) -> str:
    if not run.evaluations:
        return ""
    last = run.evaluations[-1]["evaluation"]
    low, high = last["ci95"]
    rows = [
        ("episodes", last["episodes"]),
        ("mean return", page.number(last["mean_return"])),
        ("95 % interval", f"{page.number(low)} to {page.number(high)}"),
        ("standard deviation", page.number(last["std_return"])),
        ("mean length", page.number(last["mean_length"])),
    ]
    returns = [r for r in last.get("returns", []) if r is not None]
    drawing = f'<div class="card">{charts.histogram(returns, (low, high))}</div>' if returns else ""
    if returns:
        rows[4:4] = [("worst, best", f"{page.number(min(returns))}, {page.number(max(returns))}")]
    return f'<h2>Last evaluation</h2><div class="pair">{drawing}<div class="card">{page.table(rows)}</div></div>'


def _time(run: RunRecord) -> str:
    """Where the time of the run went; of a hosted one, what acting and learning did meanwhile."""
    summary, saved = run.summary, [row["checkpoint"] for row in run.others if "checkpoint" in row]
    if not summary:
        return ""
    took = [row["took"] for row in run.evaluations if "took" in row]
    rows = [
        ("training", page.seconds(summary["train_seconds"])),
        ("compilation", page.seconds(summary["compile_seconds"])),
        (
            "evaluations",
            f"{page.seconds(sum(took, 0.0))} for {len(took)}, the last of {run.config['eval_episodes']} episodes",
        ),
        (
            "checkpoints",
            f"training stood still {page.seconds(sum((row['seconds'] for row in saved), 0.0))} for {len(saved)}",
        ),
    ]
    spent: dict[str, float] = {}
    before = 0.0
    for row in run.progress:
        for name in (k for k in row if k.startswith("time_")):
            spent[name] = spent.get(name, 0.0) + row[name] * (row["seconds"] - before)
        before = row["seconds"]
    lanes = {
        "acting": ("time_acting", "the policy"),
        "environment": ("time_environment", "stepping it"),
        "learning": ("time_learning", "from what was acted"),
        "waiting": ("time_waiting", "of the learner for the actor"),
    }
    bars = [page.bar(name, spent[key] / max(before, 1e-9), note) for name, (key, note) in lanes.items() if key in spent]
    shares = f'<div class="card">{"".join(bars)}</div>' if bars else ""
    return page.section(
        "Where the time went", f'<div class="pair">{shares}<div class="card">{page.table(rows)}</div></div>'
    )


def _metrics(run: RunRecord) -> str:
    names = dict.fromkeys(k for row in run.progress for k in row if k not in NOT_METRICS and not k.startswith("time_"))
    ordered = [n for n in FIRST if n in names] + sorted(n for n in names if n not in FIRST)
    drawings = [d for name in ordered if (d := charts.small(run.progress, name))]
    cards = "".join(f'<div class="card">{d}</div>' for d in drawings)
    return f'<h2>While learning</h2><div class="grid">{cards}</div>' if cards else ""
