"""Fills a table of methods and environments, seed by seed, and draws it: `python -m benchmarks.table value_based`.

Every run that ends is written to `benchmarks/results/tables/NAME.json` at once, so that the command may be stopped and given
again; runs that are there are not repeated. Seeds chose no setting. With `--draw` nothing is run.
"""

import argparse
import importlib
import json
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import machine
from yozh.app.aggregates import aggregate, mean_interval
from yozh.files import atomic_write
from yozh.studies.study import drawn as drawing
from yozh.studies.study import panels

FIRST = 400
"""The first seed."""


def main() -> None:
    parser = argparse.ArgumentParser("python -m benchmarks.table", description=__doc__)
    parser.add_argument("name", help="a module of benchmarks/tables")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--envs", nargs="*", help="only these")
    parser.add_argument("--methods", nargs="*", help="only these")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin no run after this long")
    parser.add_argument(
        "--draw", type=Path, help="write the table to this Markdown file, and a picture beside it, instead of running"
    )
    asked = parser.parse_args()
    table = importlib.import_module(f"benchmarks.tables.{asked.name}")
    path = machine.RESULTS / "tables" / f"{asked.name}.json"
    found = kept(path)
    if asked.draw:
        found["runs"] = found["runs"] | borrowed(table)
        picture = asked.draw.with_suffix(".svg")
        picture.write_text(pictured(table, found))
        asked.draw.write_text(f"{drawn(table, found)}\n![means and intervals of the table]({picture.name})\n")
        return
    until = time.monotonic() + 60 * asked.minutes
    for env in asked.envs or table.STEPS:
        for method in asked.methods or table.METHODS:
            for seed in range(FIRST, FIRST + asked.seeds):  # innermost, since they share a program
                name, agent = f"{env}/{method}/{seed}", table.METHODS[method](env)
                if name in found["runs"] or agent is None:
                    continue
                if time.monotonic() > until:
                    return
                result = run(agent, env, table.STEPS[env], seed)
                print(name, result, flush=True)
                found = kept(path)  # another command may have added to it
                found["runs"][name] = result
                path.parent.mkdir(parents=True, exist_ok=True)
                atomic_write(path, json.dumps(found, indent=1, sort_keys=True) + "\n")


def kept(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text()) if path.exists() else {"hardware": machine.hardware(), "runs": {}}


def run(agent: Any, env: str, steps: int, seed: int) -> dict[str, Any]:
    import yozh

    before = time.process_time()
    try:
        done = yozh.train(agent, env, steps=steps, seed=seed, eval_every=steps)
    except yozh.YozhError as error:
        return {"error": str(error)}
    summary = done.summary
    figures = {k: round(summary[k], 2) for k in ("train_seconds", "compile_seconds")}
    figures["cpu_seconds"] = round(
        time.process_time() - before, 2
    )  # with compilation and evaluation; other load moves it little
    figures["cpu"] = machine.hardware()["cpu"]
    return figures | {"steps": summary["steps"], "mean_return": round(summary["evaluation"]["mean_return"], 3)}


def drawn(table: Any, found: dict[str, Any]) -> str:
    """Means over the seeds with 95 % bootstrap intervals; beside them the seconds of one run."""
    envs = shown(table, found)
    lines = [f"| method | {' | '.join(f'{e}, {table.STEPS[e]:,}' for e in envs)} |", "| --- " * (len(envs) + 1) + "|"]
    for method in table.METHODS:
        lines.append(f"| {method} | {' | '.join(cell(found['runs'], f'{env}/{method}/') for env in envs)} |")
    for label, figures in getattr(table, "PUBLISHED", {}).items():
        lines.append(f"| *{label}* | {' | '.join(figures.get(env, '') for env in envs)} |")
    over = summed(table, found, envs) if hasattr(table, "between") else ""
    return f"{table.__doc__.strip()}\n\n" + "\n".join(lines) + f"\n\n{over}{machines(found)}\n"


def machines(found: dict[str, Any]) -> str:
    """Seconds of one are not those of another."""
    runs = Counter(run.get("cpu", found["hardware"]["cpu"]) for run in found["runs"].values())
    cpus = ", ".join(f"{cpu} ({n} runs)" for cpu, n in runs.most_common())
    return (
        f"Measured on {found['hardware']['cores']} cores without a GPU, other work beside it: {cpus}. Seconds are those of a core, compilation "
        "and evaluation included."
    )


def borrowed(table: Any) -> dict[str, Any]:
    """Runs of other tables that belong into this one too: `table.BORROWED`, environments by the name of the table."""
    runs: dict[str, Any] = {}
    for name, envs in getattr(table, "BORROWED", {}).items():
        theirs = kept(machine.RESULTS / "tables" / f"{name}.json")["runs"]
        runs |= {
            k: r for k, r in theirs.items() if k.startswith(tuple(f"{e}/{m}/" for e in envs for m in table.METHODS))
        }
    return runs


def summed(table: Any, found: dict[str, Any], envs: list[str]) -> str:
    """Interquartile means over all environments of scores between 0 and 1, as `table.between` has them, of the methods that were
    run in all."""
    between = {env: table.between(env, lambda method, e=env: of(found["runs"], f"{e}/{method}/")) for env in envs}
    scores = {m: [of(found["runs"], f"{e}/{m}/") for e in envs] for m in table.METHODS}
    seeds = max(len(x) for s in scores.values() for x in s)
    low, high = (np.array([between[e][i] for e in envs]) for i in (0, 1))
    whole = {m: (np.array(x).T - low) / (high - low) for m, x in scores.items() if all(len(y) == seeds for y in x)}
    lines = [f"| over all, {table.SCALE} | interquartile mean, 95 % |", "| --- | --- |"]
    for method, figures in aggregate(whole, gap=False).items():
        least, most = figures["iqm"].ci95
        lines.append(f"| {method} | {figures['iqm'].value:.2f} ({least:.2f} to {most:.2f}) |")
    return "\n".join(lines) + "\n\n"


def shown(table: Any, found: dict[str, Any]) -> list[str]:
    """Environments of which something has been run."""
    return [e for e in table.STEPS if any(name.startswith(f"{e}/") for name in found["runs"])]


def pictured(table: Any, found: dict[str, Any]) -> str:
    """As SVG: for each environment, what every method reached."""
    envs = shown(table, found)
    figure, axes = panels(len(envs))
    figure.set_size_inches(3.2 * len(envs) + 2.5, 0.28 * len(table.METHODS) + 1.2)
    for env, axis in zip(envs, axes, strict=True):
        for place, method in enumerate(reversed(table.METHODS)):
            scores = of(found["runs"], f"{env}/{method}/")
            if scores:
                low, high = mean_interval(scores)
                axis.plot([low, high], [place, place], color="C0", linewidth=3, alpha=0.4)
                axis.plot(scores, [place] * len(scores), ".", color="C0", markersize=3)
                axis.plot(np.mean(scores), place, "|", color="black", markersize=9)
        axis.set(
            title=f"{env}, {table.STEPS[env]:,}",
            yticks=range(len(table.METHODS)),
            ylim=(-0.6, len(table.METHODS) - 0.4),
        )
        axis.set_yticklabels([*reversed(table.METHODS)] if env == envs[0] else [], fontsize=8)
        axis.grid(axis="x", alpha=0.3)
    return drawing(figure)


def of(runs: dict[str, Any], prefix: str) -> list[float]:
    return [r["mean_return"] for name, r in runs.items() if name.startswith(prefix) and "mean_return" in r]


def cell(runs: dict[str, Any], prefix: str) -> str:
    mine = [r for name, r in runs.items() if name.startswith(prefix)]
    scores = of(runs, prefix)
    if not scores:
        return mine[0]["error"] if mine else ""
    low, high = mean_interval(scores)
    seconds = np.median([r["cpu_seconds"] for r in mine if "mean_return" in r])
    failed = f", {len(mine) - len(scores)} failed" if len(mine) > len(scores) else ""
    if len(scores) == 1:
        return f"{scores[0]:.4g}; 1 seed, {seconds:.0f} s{failed}"
    return f"{np.mean(scores):.4g} ({low:.4g} to {high:.4g}); {len(scores)} seeds, {seconds:.0f} s{failed}"


if __name__ == "__main__":
    main()
