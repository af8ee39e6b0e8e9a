"""The report of a study: one HTML file, in the look of all reports."""

import html
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib
import numpy as np
from matplotlib.ticker import MaxNLocator

from yozh.app import page
from yozh.app.charts import FAINT, INK, MAIN, STYLE, _figure, _svg
from yozh.app.tune_study import Problem, load_optuna
from yozh.presets.spaces import Choice, Range

if TYPE_CHECKING:
    from yozh.app.tune import Tuned

SHOWN = 10
"""Best trials in the table."""


def write_report(tuned: "Tuned", problem: Problem, trials: list[Any], study: Any) -> Path:
    """Writes `report.html` into the study's folder; `trials` are those that finished or were pruned."""
    complete = sorted((t for t in trials if t.state.name == "COMPLETE"), key=lambda t: -t.value)
    title = f"Tuning {type(problem.agent).__name__} on {problem.label}"
    commands = html.escape("\n\n".join(c.replace(" --agent.", " \\\n  --agent.") for c in tuned.commands))
    drawings = [page.card(d) for d in (_history(trials), _importance(study, complete)) if d]
    slices = [page.card(_slice(k, row, complete)) for k, row in problem.space().items()]
    body = [
        page.head(title, _subtitle(problem, tuned), "".join(page.figure(*f) for f in _figures(trials, complete))),
        page.section("Best settings", _settings(problem, tuned)),
        page.section("Train with them", page.card(f'<pre style="margin: 0; white-space: pre-wrap">{commands}</pre>')),
        _note("The best of many trials flatters: what these settings reach, runs with other seeds must say."),
        page.section("Trials", f'<div class="pair">{"".join(drawings)}</div>'),
        _note(
            "The return of a trial is the mean of its seeds' final evaluations. Importance, by PED-ANOVA (Watanabe et al. "
            "2023), is how much a setting tells the best trials from the rest."
        ),
        page.section("Each setting", f'<div class="grid">{"".join(slices)}</div>'),
        page.section("The best trials", _best(complete)),
    ]
    return page.write(tuned.path / "report.html", title, body)


def _note(text: str) -> str:
    return f'<p style="margin-top: 10px">{html.escape(text)}</p>'


def _subtitle(problem: Problem, tuned: "Tuned") -> str:
    runs = f"{problem.seeds} runs each" if problem.seeds > 1 else "one run each"
    words = [f"{tuned.trials} trials", runs, f"{problem.steps:,} environment steps a run"]
    return page.words([*words, f"evaluated over {problem.eval_episodes} episodes"])


def _figures(trials: list[Any], complete: list[Any]) -> list[tuple[str, str, str]]:
    best, seconds = complete[0], sum(t.duration.total_seconds() for t in trials)
    found = [(page.number(best.value), "best mean return", f"trial {best.number}")]
    found += [(page.number(t.value), "before", "trial 0, the settings as they were") for t in complete if t.number == 0]
    found.append((str(len(complete)), "trials finished", f"{len(trials) - len(complete)} more were pruned"))
    return [*found, (page.seconds(seconds), "of trials", "compilation included")]


def _settings(problem: Problem, tuned: "Tuned") -> str:
    now = problem.now()
    rows = [(k, tuned.settings[k], now[k], row.bounds()) for k, row in problem.space().items()]
    held = problem.fixed | {f"env.{name}": str(value) for name, value in problem.env_options.items()}
    rows += [(setting, value, value, "held") for setting, value in held.items()]
    return _table(("setting", "best", "before", "looked for in"), rows)


def _best(complete: list[Any]) -> str:
    names = list(complete[0].user_attrs["settings"])
    rows = [(t.number, page.number(t.value), *(t.user_attrs["settings"][n] for n in names)) for t in complete[:SHOWN]]
    return _table(("trial", "return", *names), rows)


def _table(head: tuple[str, ...], rows: list[tuple[Any, ...]]) -> str:
    top = "".join(f"<th>{html.escape(h)}</th>" for h in head)
    cells = "".join("<tr>" + "".join(f"<td>{html.escape(str(c))}</td>" for c in row) + "</tr>" for row in rows)
    return f'<div class="card wide"><table><thead><tr>{top}</tr></thead><tbody>{cells}</tbody></table></div>'


def _history(trials: list[Any]) -> str:
    """Every trial's return in the order of the trials, and the best so far; pruned ones with their last evaluation."""
    with matplotlib.rc_context(STYLE):
        figure, axes = _figure(5.6, 3.2)
        pruned = [(t.number, t.intermediate_values[t.last_step]) for t in trials if t.state.name == "PRUNED" and t.intermediate_values]  # fmt: skip
        if pruned:
            axes.scatter(*zip(*pruned, strict=True), color=FAINT, marker="x", s=18, linewidth=1.2, label="pruned, last evaluation")  # fmt: skip
        at, value = np.array([(t.number, t.value) for t in trials if t.state.name == "COMPLETE"], float).T
        axes.scatter(at, value, color=MAIN, s=18, linewidth=0, label="finished")
        axes.step(at, np.maximum.accumulate(value), where="post", color=INK, linewidth=1.2, label="best so far")
        axes.set_xlabel("trial")
        axes.set_title("return of each trial")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend(frameon=False, fontsize=8.5, loc="best", labelcolor=INK)
        return _svg(figure, "return of each trial")


def _importance(study: Any, complete: list[Any]) -> str:
    """How much each setting had to do with the return; empty where the finished trials cannot say."""
    if len({t.value for t in complete}) < 2:
        return ""
    importance = load_optuna().importance
    found = importance.get_param_importances(study, evaluator=importance.PedAnovaImportanceEvaluator())
    with matplotlib.rc_context(STYLE | {"axes.grid.axis": "x"}):
        figure, axes = _figure(5.6, 3.2)
        axes.barh(list(found)[::-1], list(found.values())[::-1], color=MAIN, height=0.6)
        axes.set_title("importance of each setting")
        axes.margins(y=0.03)
        return _svg(figure, "importance of each setting")


def _slice(setting: str, row: Range | Choice, complete: list[Any]) -> str:
    """The return of each finished trial against one setting; the best one stands out."""
    with matplotlib.rc_context(STYLE):
        figure, axes = _figure(3.2, 1.9)
        at = [t.params[row.name(setting)] for t in complete]
        if isinstance(row, Choice):
            at = [row.options.index(x) for x in at]
            axes.set_xticks(range(len(row.options)), [o.replace(",", "-") for o in row.options])
        elif row.log:
            axes.set_xscale("log")
            axes.minorticks_off()
        value = [t.value for t in complete]
        axes.scatter(at[1:], value[1:], color=INK, alpha=0.55, s=14, linewidth=0)
        axes.scatter(at[0], value[0], color=MAIN, s=34, linewidth=0)
        axes.set_title(row.name(setting))
        axes.margins(x=0.06)
        axes.yaxis.set_major_locator(MaxNLocator(4))
        return _svg(figure, f"return against {setting}")
