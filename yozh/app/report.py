"""One HTML file that shows a run and needs nothing else: no network, no other file."""

import base64
import html
import sys
from pathlib import Path
from string import Template
from typing import Any

from yozh.app import charts
from yozh.app.folder import RunRecord, read_run
from yozh.app.video import film
from yozh.files import atomic_write

FIRST = ("loss", "policy_loss", "value_loss", "td_error", "q", "value", "entropy", "kl", "clip_fraction", "epsilon")
"""Metrics that lead, where the agent reports them."""
NOT_METRICS = {"steps", "updates", "seconds", "return_mean", "episodes", "total_steps"}


def publish(path: str | Path) -> Path:
    """Films the policy of a finished run, where its environment can be drawn, and writes the report."""
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
    page = Template((Path(__file__).parent / "report.template").read_text(encoding="utf-8")).substitute(
        title=html.escape(f"{run.config['settings']['class'].rpartition('.')[2]} on {run.config['env']}"),
        subtitle=_subtitle(run),
        figures="".join(_figure(*f) for f in _headline(run)),
        film=_film(run.path / "policy.gif"),
        curves=_curves(run),
        evaluation=_evaluation(run),
        metrics=_metrics(run),
        settings=_settings(run.config),
        machine=_machine(run.config),
    )
    atomic_write(run.path / "report.html", page)
    return run.path / "report.html"


def _subtitle(run: RunRecord) -> str:
    config, summary = run.config, run.summary
    words = [f"{summary.get('steps', config['steps']):,} environment steps", f"seed {config['seed']}"]
    words += [f"{config['envs']} streams"] if config.get("envs") else []
    words += [f"{config['backend']} environments", config.get("started", "")[:10], summary.get("status", "unfinished")]
    return " · ".join(f"<span>{html.escape(w)}</span>" for w in words if w)


def _headline(run: RunRecord) -> list[tuple[str, str, str]]:
    found, summary = [], run.summary
    if evaluation := summary.get("evaluation") or (run.evaluations[-1]["evaluation"] if run.evaluations else None):
        low, high = evaluation["ci95"]
        note = f"95 % interval {_number(low)} to {_number(high)}, {evaluation['episodes']} episodes"
        found.append((_number(evaluation["mean_return"]), "mean return", note))
    if summary:
        found.append((_number(summary["steps_per_second"]), "steps a second", "compilation left out"))
        found.append((_seconds(summary["train_seconds"]), "training", f"{summary['updates']:,} updates"))
        found.append((_seconds(summary["compile_seconds"]), "compilation", "before the first step"))
    return found


def _figure(value: str, name: str, note: str) -> str:
    return f'<div class="figure"><b>{value}</b><span>{name}</span><small>{html.escape(note)}</small></div>'


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
        ("mean return", _number(last["mean_return"])),
        ("95 % interval", f"{_number(low)} to {_number(high)}"),
        ("standard deviation", _number(last["std_return"])),
        ("mean length", _number(last["mean_length"])),
    ]
    returns = [r for r in last.get("returns", []) if r is not None]
    drawing = f'<div class="card">{charts.histogram(returns, (low, high))}</div>' if returns else ""
    if returns:
        rows[4:4] = [("worst, best", f"{_number(min(returns))}, {_number(max(returns))}")]
    return f'<h2>Last evaluation</h2><div class="pair">{drawing}<div class="card">{_table(rows)}</div></div>'


def _metrics(run: RunRecord) -> str:
    names = dict.fromkeys(k for row in run.progress for k in row if k not in NOT_METRICS)
    ordered = [n for n in FIRST if n in names] + sorted(n for n in names if n not in FIRST)
    drawings = [d for name in ordered if (d := charts.small(run.progress, name))]
    cards = "".join(f'<div class="card">{d}</div>' for d in drawings)
    return f'<h2>While learning</h2><div class="grid">{cards}</div>' if cards else ""


def _settings(config: dict[str, Any]) -> str:
    rows = "".join(
        f'<tr title="{html.escape(doc)}"><th>{html.escape(name)}</th><td>{html.escape(value)}</td>'
        f"<td class=doc>{html.escape(doc)}</td></tr>"
        for name, value, doc in config["options"]
    )
    return f"<table>{rows}</table>"


def _machine(config: dict[str, Any]) -> str:
    hardware = config["hardware"]
    rows = [
        ("processor", f"{hardware['processor']}, {hardware['cores']} cores, {hardware['memory_gib']:g} GiB"),
        ("devices", f"{hardware['platform']}: {', '.join(hardware['devices'])}"),
        ("system", hardware["system"]),
        *config["versions"].items(),
    ]
    return _table(rows)


def _table(rows: list[tuple[str, Any]]) -> str:
    cells = "".join(f"<tr><th>{html.escape(k)}</th><td>{html.escape(str(v))}</td></tr>" for k, v in rows)
    return f"<table>{cells}</table>"


def _number(x: float | None) -> str:
    if x is None:
        return "–"
    return f"{x:,.0f}" if abs(x) >= 1000 else f"{x:.1f}" if abs(x) >= 10 else f"{x:.3g}"


def _seconds(x: float) -> str:
    return f"{x:.1f} s" if x < 60 else f"{int(x // 60)} min {x % 60:.0f} s"
