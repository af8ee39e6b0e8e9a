"""Runs beside each other: which methods there are, what each reached in each environment, and how sure that is."""

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from yozh.app import aggregates
from yozh.app.folder import RunRecord, as_json, read_run
from yozh.app.group_report import FEW, evaluation_curve, training_curve
from yozh.app.seed_group import DONE, read_group
from yozh.core import YozhError, require
from yozh.environments import atari_scores
from yozh.files import atomic_write

NORMALISE = ("minmax", "human", "none")
"""How scores of several environments are made comparable."""

SHARED = ("steps", "backend", "runner", "eval_every", "eval_episodes")
"""What runs of one method in one environment should have in common beside the agent's settings."""


@dataclasses.dataclass(frozen=True)
class Comparison:
    """What a comparison found."""

    path: Path
    """The HTML file; the figures stand beside it under the same name with `.json`."""
    figures: dict[str, Any]
    """As in the JSON file: `environments` -> name -> `methods` -> name -> figures, and over several environments
    `aggregates`."""
    warnings: list[str]
    """What a reader must know before believing the figures; they stand in the report too."""


def compare(paths: str | Path | Sequence[str | Path], *, out: str | Path = "compare.html", normalise: str = "minmax",
            references: str | Path | Mapping[str, Mapping[str, float]] | None = None) -> Comparison:  # fmt: skip
    """Compares runs, and writes one HTML file and the figures as JSON beside it.

    `paths` are run folders, groups of seeds, or folders that contain them. Runs of one agent with the same settings are
    one method; its score in an environment is the mean over its seeds of the final evaluation's mean return. Runs that
    are not finished are left out, and named.

    Over several environments, rliable aggregates the scores (extra `compare`), made comparable by `normalise`: `minmax`
    puts the worst run of all in an environment at 0 and the best at 1; `human` puts `random` at 0 and `human` at 1,
    which `references` gives for each environment (a JSON file or a mapping: `{"Env-v0": {"random": 1.0, "human": 30.0}}`)
    and which are known for the 57 Atari games; `none` leaves them as they are.
    """
    require(normalise in NORMALISE, f"normalise takes {', '.join(NORMALISE)}, not {normalise!r}")
    require(references is None or normalise == "human", "normalise human and a table of references go together")
    out = Path(out)
    require(out.suffix == ".html", f"{out} is not an HTML file: name one, such as {out.with_suffix('.html')}")
    require(out.parent.is_dir(), f"there is no folder {out.parent} to write {out.name} into")
    runs, warnings = _usable(found([paths] if isinstance(paths, str | Path) else paths))
    methods = _named(runs)
    warnings += _unlike(methods)
    environments = {
        env: {"methods": {name: _figures(group) for (name, e), group in methods.items() if e == env}}
        for env in sorted({env for _, env in methods})
    }
    over, more = _over_environments(environments, normalise, _table(references))
    warnings += more
    figures: dict[str, Any] = {"normalise": normalise, "environments": environments, "aggregates": over, "warnings": warnings}  # fmt: skip
    from yozh.app.compare_report import write_compare_report

    write_compare_report(out, figures, {key: group[0] for key, group in methods.items()})
    atomic_write(out.with_suffix(".json"), as_json(figures, indent=1))
    return Comparison(out, figures, warnings)


def found(paths: Iterable[str | Path]) -> list[RunRecord]:
    """Every run in these folders, each once."""
    folders: dict[Path, Path] = {}
    for path in map(Path, paths):
        require(path.exists(), f"there is no {path}")
        here = [c.parent for c in sorted(path.rglob("config.json")) if _is_run(c.parent)]
        require(here, f"{path} holds no run: no folder in it has a config.json and settings")
        folders |= {run.resolve(): run for run in here if run.resolve() not in folders}
    return [read_run(folder) for folder in folders.values()]


def _is_run(folder: Path) -> bool:
    if read_group(folder):
        return False
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError):
        return False
    return {"agent", "env", "seed", "options"} <= set(config)


def _usable(runs: list[RunRecord]) -> tuple[list[RunRecord], list[str]]:
    """The runs that can be compared, and why the others are left out."""
    usable, warnings, seen = [], [], dict[str, Path]()
    for run in runs:
        status = run.summary.get("status", "unfinished")
        score = (run.summary.get("evaluation") or {}).get("mean_return")
        if status not in DONE or score is None:
            warnings.append(f"{run.path} is left out: it is {status if status not in DONE else 'without a final evaluation'}")  # fmt: skip
            continue
        same = json.dumps([*(run.config[k] for k in ("agent", "env", "seed", "steps")), _settings(run)])
        if same in seen:
            warnings.append(f"{run.path} is left out: it asks the same with the same seed as {seen[same]}")
            continue
        seen[same] = run.path
        usable.append(run)
    require(usable, lambda: f"there is no finished run to compare: {'; '.join(warnings)}")
    return usable, warnings


def _named(runs: list[RunRecord]) -> dict[tuple[str, str], list[RunRecord]]:
    """Runs by method and environment. A method is called by its agent and by those settings that tell it from another
    one of the same agent in the same environment."""
    values: dict[tuple[str, str], dict[str, set[str | None]]] = {}
    for run in runs:
        here = values.setdefault((run.config["agent"], run.config["env"]), {})
        for name in _settings(run):
            here.setdefault(name, set())
    for run in runs:
        for name, seen in values[run.config["agent"], run.config["env"]].items():
            seen.add(_settings(run).get(name))
    telling: dict[str, dict[str, None]] = {}
    for (agent, _), here in values.items():
        telling.setdefault(agent, {}).update(dict.fromkeys(name for name, seen in here.items() if len(seen) > 1))
    groups: dict[tuple[str, str], list[RunRecord]] = {}
    for run in runs:
        settings = _settings(run)
        words = [f"{k} {settings[k]}" for k in telling[run.config["agent"]] if k in settings]
        groups.setdefault((", ".join([run.config["agent"], *words]), run.config["env"]), []).append(run)
    return {key: sorted(groups[key], key=lambda r: r.config["seed"]) for key in sorted(groups)}


def _settings(run: RunRecord) -> dict[str, str]:
    """The agent's settings, and the options that the environment was given."""
    given = {f"env.{name}": str(value) for name, value in run.config.get("env_options", {}).items()}
    return {name: value for name, value, _ in run.config["options"]} | given


def _unlike(methods: dict[tuple[str, str], list[RunRecord]]) -> list[str]:
    warnings = []
    for (name, env), runs in methods.items():
        if len(runs) < FEW:
            warnings.append(f"{name} on {env} has {len(runs)} seed{'s' if len(runs) > 1 else ''}: below {FEW} an interval says little")  # fmt: skip
        for what in SHARED:
            values = sorted({str(run.config.get(what)) for run in runs})
            if len(values) > 1:
                warnings.append(f"{name} on {env}: runs differ in {what} ({', '.join(values)})")
        versions = sorted({run.config.get("versions", {}).get("yozh", "unknown") for run in runs})
        if len(versions) > 1:
            warnings.append(f"{name} on {env}: runs are of several versions of Yozh ({', '.join(versions)})")
    for env in sorted({env for _, env in methods}):
        steps = sorted({run.config["steps"] for (_, e), runs in methods.items() if e == env for run in runs})
        if len(steps) > 1:
            warnings.append(f"methods on {env} were trained for different numbers of steps ({', '.join(f'{s:,}' for s in steps)})")  # fmt: skip
    for name in sorted({name for name, _ in methods}):
        kinds = {json.dumps(runs[0].config["options"]) for (n, _), runs in methods.items() if n == name}
        if len(kinds) > 1:
            warnings.append(f"the settings of {name} differ from environment to environment")
    return warnings


def _figures(runs: list[RunRecord]) -> dict[str, Any]:
    scores = [run.summary["evaluation"]["mean_return"] for run in runs]
    curves = {"evaluation": _curve(runs, evaluation_curve), "training": _curve(runs, training_curve)}
    return {
        "mean_return": float(np.mean(scores)),
        "ci95": aggregates.mean_interval(scores),
        "scores": scores,
        "seeds": [run.config["seed"] for run in runs],
        "runs": [str(run.path) for run in runs],
        "steps": [run.summary["steps"] for run in runs],
        "train_seconds": [run.summary["train_seconds"] for run in runs],
        "curves": {kind: curve for kind, curve in curves.items() if curve},
    }


def _curve(runs: list[RunRecord], of: Any) -> dict[str, Any] | None:
    curves = [c for run in runs if len((c := of(run))[0])]
    if len(curves) < len(runs):
        return None
    at, values = aggregates.on_one_grid(curves)
    low, high = aggregates.curve_interval(values)
    return {"steps": at.tolist(), "mean": values.mean(0).tolist(), "ci95": [low.tolist(), high.tolist()]}


def _table(references: str | Path | Mapping[str, Mapping[str, float]] | None) -> Mapping[str, Mapping[str, float]]:
    if references is None or isinstance(references, Mapping):
        return references or {}
    path = Path(references)
    require(path.is_file(), f"there is no table of reference scores at {path}")
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
        return {env: {k: float(row[k]) for k in ("random", "human")} for env, row in table.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise YozhError(
            f'{path} does not hold {{"Env-v0": {{"random": 1.0, "human": 30.0}}, ...}}: {error!r}'
        ) from None


def _over_environments(environments: dict[str, Any], normalise: str, references: Mapping[str, Mapping[str, float]]) -> tuple[dict[str, Any] | None, list[str]]:  # fmt: skip
    """Aggregates over the environments of those methods that have the most of them; nothing for a single one."""
    if len(environments) < 2:
        return None, []
    has = {}
    for env, row in environments.items():
        for name in row["methods"]:
            has.setdefault(name, []).append(env)
    most = max(map(len, has.values()))
    names = [name for name in sorted(has) if len(has[name]) == most]
    common = [env for env in environments if all(env in has[name] for name in names)]
    warnings = [f"{name} is left out of the aggregates: it lacks {', '.join(e for e in common if e not in has[name])}" for name in sorted(has) if name not in names and len(common) > 1]  # fmt: skip
    if len(common) < 2:
        return None, ["no aggregates over environments: the methods have fewer than two of them in common"]
    bounds = {env: _bounds(env, environments[env]["methods"], normalise, references) for env in common}
    scores = {}
    for name in names:
        columns = [environments[env]["methods"][name]["scores"] for env in common]
        n = min(map(len, columns))
        if n < max(map(len, columns)):
            warnings.append(f"the aggregates take the first {n} seeds of {name} in every environment: some have no more")  # fmt: skip
        scores[name] = np.stack([aggregates.normalised(np.array(c[:n]), *bounds[env]) for c, env in zip(columns, common, strict=True)], 1)  # fmt: skip
    found = aggregates.aggregate(scores, gap=normalise != "none")
    return {
        "environments": common,
        "bounds": {env: list(b) for env, b in bounds.items()},
        "scores": {name: x.tolist() for name, x in scores.items()},
        "methods": {name: {k: dataclasses.asdict(e) for k, e in row.items()} for name, row in found.items()},
        "improvement": aggregates.improvement(scores),
        "profiles": aggregates.profiles(scores),
    }, warnings


def _bounds(env: str, methods: dict[str, Any], normalise: str, references: Mapping[str, Mapping[str, float]]) -> tuple[float, float]:  # fmt: skip
    """The returns that become 0 and 1."""
    if normalise == "human":
        if env in references:
            return references[env]["random"], references[env]["human"]
        known = atari_scores.references(env)
        if known is None:
            raise YozhError(f"the table of reference scores lacks {env}, which is none of the 57 Atari games either")
        return known
    if normalise == "none":
        return 0.0, 1.0
    everything = [score for row in methods.values() for score in row["scores"]]
    return min(everything), max(everything)
