"""The page of a comparison."""

import html
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from yozh.app import charts, page
from yozh.app.folder import RunRecord

AGGREGATES = {
    "iqm": ("interquartile mean", "the mean of the middle half of all runs; higher is better"),
    "median": ("median", "of the environments' means; higher is better"),
    "mean": ("mean", "over environments; higher is better"),
    "optimality_gap": ("optimality gap", "how far below 1, on average; lower is better"),
}
SCALES = {
    "minmax": "In every environment the worst run of all counts as 0 and the best as 1: these figures change with the runs compared.",
    "human": "In every environment the reference score of a random policy counts as 0 and that of a human as 1.",
    "none": "Scores are taken as they are: an environment with large returns outweighs the others, and there is no optimality gap.",
}


def write_compare_report(path: Path, figures: dict[str, Any], example: Mapping[tuple[str, str], RunRecord]) -> Path:
    """Writes the page; `example` is one run of every method in every environment, whose settings are shown."""
    environments = figures["environments"]
    names = sorted({name for name, _ in example})
    styles = {name: i for i, name in enumerate(names)}
    title = " and ".join(names) if len(names) < 3 else f"{len(names)} methods"
    title += f" on {next(iter(environments))}" if len(environments) == 1 else f" in {len(environments)} environments"
    runs = sum(len(row["scores"]) for env in environments.values() for row in env["methods"].values())
    body = [
        page.head(title, page.words([f"{runs} runs", "score: mean return of the final evaluation", "one seed, one point"]), ""),
        page.warnings(figures["warnings"]),
        _aggregates(figures, styles),
        *(page.section(env, _environment(env, row["methods"], styles)) for env, row in environments.items()),
        page.section("Settings", _settings(example)),
    ]  # fmt: skip
    return page.write(path, title, body)


def _environment(env: str, methods: dict[str, Any], styles: dict[str, int]) -> str:
    drawings = []
    for kind, title in (("evaluation", "evaluation return"), ("training", "training return, running mean")):
        curves = {n: _curve(m["curves"][kind]) for n, m in methods.items() if kind in m["curves"]}
        drawings += [charts.learning_curves(curves, styles, f"{env}: {title}")] if curves else []
    scores = {n: (m["scores"], m["mean_return"], m["ci95"]) for n, m in methods.items()}
    label = "return of each seed; bar: 95 % interval"
    drawings.append(charts.points(scores, styles, f"{env}: final score", label))
    cards = "".join(map(page.card, drawings))
    return f'<div class="pair">{cards}{page.card(_scores(methods, styles))}</div>'


def _curve(curve: dict[str, Any]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return np.array(curve["steps"]), np.array(curve["mean"]), np.array(curve["ci95"])


def _scores(methods: dict[str, Any], styles: dict[str, int]) -> str:
    rows = []
    for name, m in sorted(methods.items(), key=lambda item: -item[1]["mean_return"]):
        low, high = map(page.number, m["ci95"])
        steps = [f"{s:,}" for s in sorted(set(m["steps"]))]
        seconds = sum(m["train_seconds"]) / len(m["train_seconds"])
        rows.append([
            _name(name, styles), f"<b>{page.number(m['mean_return'])}</b><br>{low} to {high}",
            f'<span class="list">{", ".join(map(page.number, m["scores"]))}</span>', f"{' – '.join([steps[0], *steps[1:][-1:]])}<br>{page.seconds(seconds)}",
        ])  # fmt: skip
    return page.rows(["", "mean, 95 % interval", "each seed", "steps, training"], rows)


def _aggregates(figures: dict[str, Any], styles: dict[str, int]) -> str:
    over = figures["aggregates"]
    if not over:
        return ""
    drawings = []
    for key, (title, label) in AGGREGATES.items():
        rows = {n: ((), m[key]["value"], m[key]["ci95"]) for n, m in over["methods"].items() if key in m}
        drawings += [charts.points(rows, styles, title, label)] if rows else []
    curves = {n: (p["at"], p["share"], p["ci95"]) for n, p in over["profiles"].items()}
    drawings.append(charts.profiles(curves, styles))
    cards = "".join(map(page.card, drawings))
    pairs = [
        [f"{_name(p['better'], styles)} above {_name(p['than'], styles)}", f"<b>{p['value']:.2f}</b>", "{:.2f} to {:.2f}".format(*p["ci95"])]
        for p in over["improvement"]
    ]  # fmt: skip
    better = page.card(
        "<p>How likely a run of the one scores above a run of the other, averaged over environments; 0.5 says nothing.</p>"
        + page.rows(["", "probability", "95 % interval"], pairs)
    )
    note = (
        f"{SCALES[figures['normalise']]} Figures and intervals (stratified bootstrap) by rliable, Agarwal et al. 2021."
    )
    return page.section(
        f"Over {len(over['environments'])} environments",
        f'<p class="note">{html.escape(note)}</p><div class="pair">{cards}{better if pairs else ""}</div>',
    )


def _settings(example: Mapping[tuple[str, str], RunRecord]) -> str:
    return "".join(
        f"<details><summary>{html.escape(name)} on {html.escape(env)}</summary>{page.card(page.settings(run.config))}</details>"
        for (name, env), run in example.items()
    )


def _name(name: str, styles: dict[str, int]) -> str:
    return f'<i style="background: var(--series-{styles[name] % len(charts.SERIES)})"></i>&nbsp;{html.escape(name)}'
