"""What a report says of values, and of the replay that they are learnt from."""

from typing import Any

from yozh.app import charts, page
from yozh.app.folder import RunRecord

REPLAY = {
    "age": ("age of what is replayed", "environment steps since"),
    "priority": ("priorities in the replay", "priority"),
    "weight": ("weights in the loss", "weight"),
}
"""Of each figure of a row's `replay`: its title, and what is counted."""


def values(run: RunRecord) -> str:
    """What the agent expected of the states that it went through in evaluations, beside what came and what rewards allow."""
    rows = [r for r in run.evaluations if r["evaluation"].get("overestimation") is not None]
    if not rows:
        return ""
    last, bound = rows[-1]["evaluation"], _allowed(run)
    largest = page.number(last["largest_value"])
    lines = [
        ("overestimation", page.number(last["overestimation"])),
        ("predicted value", f"{page.number(last['predicted_value'])}, of the chosen action, over all visited states"),
        ("discounted return", f"{page.number(last['discounted_return'])}, that followed them"),
        ("largest |value|", largest if bound is None else f"{largest}; rewards allow {page.number(bound)}"),
    ]
    drawings = [charts.foreseen(rows)] if len(rows) > 1 else []
    drawings += [charts.divergence(rows, bound)] if len(rows) > 1 and bound is not None else []
    cards = "".join(page.card(drawing) for drawing in (*drawings, page.table(lines)))
    return page.section("Values", f'<div class="pair">{cards}</div>')


def _allowed(run: RunRecord) -> float | None:
    """The largest return of the largest reward there was, as the alarm has it; larger values are soft divergence."""
    reward = max((row.get("reward_max") or 0.0 for row in run.progress), default=0.0)
    gamma = run.config["settings"].get("gamma", 1.0)
    return reward / (1.0 - gamma) if reward and gamma < 1 else None


def replay(run: RunRecord) -> str:
    """How old, how surprising and how heavy what is learnt from is, at the last evaluation."""
    rows = [row for row in run.evaluations if "replay" in row]
    if not rows:
        return ""
    last: dict[str, Any] = rows[-1]["replay"]
    titles = ["", "mean", "5 %", "50 %", "95 %"]
    table = page.rows(titles, [[title, *(page.number(last[name][q]) for q in ("mean", "p5", "p50", "p95"))]
                               for name, (title, _) in REPLAY.items() if name in last])  # fmt: skip
    drawings = [charts.bars(last[name], *REPLAY[name]) for name in REPLAY if name in last]
    if len(rows) > 1:
        mean = [{"steps": row["steps"], "mean_age": row["replay"]["age"]["mean"]} for row in rows]
        drawings.append(charts.small(mean, "mean_age"))
    cards = "".join(page.card(drawing) for drawing in drawings)
    return page.section("Replay", f'{page.card(table)}<div class="grid">{cards}</div>')
