"""The report of a group of seeds: one HTML file that leads to the report of each."""

import html
import json
from pathlib import Path
from typing import Any

import numpy as np

from yozh.app import charts, page
from yozh.app.aggregates import curve_interval, on_one_grid
from yozh.app.folder import RunRecord, read_run
from yozh.app.seed_group import DONE, read_group

FEW = 5
"""Seeds below which an interval says little."""


def write_group_report(path: str | Path) -> Path:
    """Writes `report.html` into the folder of a group of seeds from the files that are there."""
    path = Path(path)
    config = read_group(path) or {}
    summary = json.loads((path / "summary.json").read_text(encoding="utf-8"))
    rows = summary["seeds"]
    runs = [read_run(path / r["path"]) for r in rows if r["status"] in DONE]
    title = f"{config['settings']['class'].rpartition('.')[2]} on {config['env']}"
    body = [
        page.head(title, _subtitle(config, rows), "".join(page.figure(*f) for f in _headline(summary))),
        page.warnings(_warnings(rows)),
        page.section("Learning curve", f'<div class="pair">{_drawings(runs, rows)}</div>') if runs else "",
        page.section("Seeds", page.card(_seeds(rows))),
        page.section("Settings", page.card(page.settings(config))),
        page.section("Machine and versions", page.card(page.machine(config))),
    ]
    return page.write(path / "report.html", title, body)


def training_curve(run: RunRecord) -> tuple[np.ndarray, np.ndarray]:
    """Steps and the running mean of the training returns."""
    at, value = charts.series(run.progress, "steps", "return_mean")
    return charts.thin(at, charts.smooth(value, max(1, len(value) // 20)), 200)


def evaluation_curve(run: RunRecord) -> tuple[np.ndarray, np.ndarray]:
    """Steps and the mean returns of the evaluations."""
    rows = [{"steps": r["steps"], "return": r["evaluation"]["mean_return"]} for r in run.evaluations]
    return charts.series(rows, "steps", "return")


def _subtitle(config: dict[str, Any], rows: list[dict[str, Any]]) -> str:
    words = [
        f"{config['steps']:,} environment steps",
        f"{sum(r['status'] in DONE for r in rows)} of {len(rows)} seeds done",
        page.streams(config),
        f"{config['backend']} environments",
        {"vectorised": "all seeds in one program", "in turn": "one after the other"}.get(
            config["way"], "a process each"
        ),
        config["started"][:10],
    ]
    return page.words([html.escape(w) for w in words])


def _headline(summary: dict[str, Any]) -> list[tuple[str, str, str]]:
    done = [r for r in summary["seeds"] if r["mean_return"] is not None]
    if not done:
        return []
    points, seconds = [r["mean_return"] for r in done], [r["train_seconds"] for r in done]
    low, high = summary["ci95"]
    return [
        (page.number(summary["mean_return"]), "mean return", f"95 % interval {page.number(low)} to {page.number(high)}, {len(done)} seeds"),
        (page.number(float(np.median(points))), "median seed", "half of the seeds are better"),
        (page.number(min(points)), "worst seed", f"the best {page.number(max(points))}"),
        (page.seconds(float(np.mean(seconds))), "training", "mean of a seed"),
    ]  # fmt: skip


def _warnings(rows: list[dict[str, Any]]) -> list[str]:
    done = sum(r["mean_return"] is not None for r in rows)
    found = (
        [f"only {done} seed{'s' if done != 1 else ''} done: the interval says little below {FEW}"] if done < FEW else []
    )
    for row in rows:
        if row["mean_return"] is None:
            found.append(
                f"seed {row['seed']} is left out: {row['status']}{', ' + row['error'] if 'error' in row else ''}"
            )
    return found


def _drawings(runs: list[RunRecord], rows: list[dict[str, Any]]) -> str:
    cards = [
        _curves([c for run in runs if len((c := evaluation_curve(run))[0])], "evaluation return"),
        _curves([c for run in runs if len((c := training_curve(run))[0])], "training return, running mean"),
    ]
    return "".join(page.card(c) for c in cards if c)


def _curves(curves: list[tuple[np.ndarray, np.ndarray]], title: str) -> str:
    if not curves:
        return ""
    at, values = on_one_grid(curves)
    return charts.seeds(at, values, curve_interval(values), title)


def _seeds(rows: list[dict[str, Any]]) -> str:
    return page.rows(["seed", "status", "mean return", "95 % interval", "steps", "training"], list(map(_cells, rows)))


def _cells(row: dict[str, Any]) -> list[str]:
    seed, status = str(row["seed"]), html.escape(row["status"])
    if row["mean_return"] is None:
        return [seed, status, "–", "–", "–", "–"]
    low, high = map(page.number, row["ci95"])
    link = f'<a href="{row["path"]}/report.html">{seed}</a>'
    return [link, status, page.number(row["mean_return"]), f"{low} to {high}", f"{row['steps']:,}", page.seconds(row["train_seconds"])]  # fmt: skip
