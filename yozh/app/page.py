"""What all reports are made of: one HTML file each, in one look, that needs no network and no other file."""

import html
import re
from pathlib import Path
from string import Template
from typing import Any

from yozh.files import atomic_write


def write(path: Path, title: str, body: list[str]) -> Path:
    """Writes one HTML file of these parts, in the look that all reports share."""
    template = Template((Path(__file__).parent / "report.template").read_text(encoding="utf-8"))
    atomic_write(path, template.substitute(title=html.escape(title), body="\n".join(filter(None, body))))
    return path


def head(title: str, subtitle: str, figures: str, film: str = "") -> str:
    figures = f'<div class="figures">{figures}</div>' if figures else ""
    return f'<div class="top">\n<div><h1>{html.escape(title)}</h1><p>{subtitle}</p>{figures}</div>\n{film}\n</div>'


def words(parts: list[str]) -> str:
    """Those that are not empty, as HTML already, in one line that breaks between them."""
    return " · ".join(f"<span>{w}</span>" for w in parts if w)


def warnings(lines: list[str]) -> str:
    return f'<ul class="warnings">{"".join(f"<li>{html.escape(line)}</li>" for line in lines)}</ul>' if lines else ""


def section(title: str, content: str) -> str:
    return f"<h2>{html.escape(title)}</h2>\n{content}"


def card(content: str) -> str:
    return f'<div class="card">{content}</div>'


def figure(value: str, name: str, note: str) -> str:
    return f'<div class="figure"><b>{value}</b><span>{name}</span><small>{html.escape(note)}</small></div>'


def bar(name: str, share: float, note: str) -> str:
    """A share of a whole as a bar, `0 <= share <= 1`."""
    width = f"{100 * min(max(share, 0.0), 1.0):.1f}%"
    return f'<div class="bar"><span>{html.escape(name)} <small>{html.escape(note)}</small></span><b>{share:.0%}</b><i style="width:{width}"></i></div>'


def rows(titles: list[str], rows: list[list[str]]) -> str:
    """A table of HTML cells that scrolls sideways where it must; the first one of a row is its name."""
    top = "".join(f"<th>{h}</th>" for h in titles)
    body = "".join(f"<tr><th>{row[0]}</th>{''.join(f'<td>{c}</td>' for c in row[1:])}</tr>" for row in rows)
    return f'<div class="wide"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


def settings(config: dict[str, Any]) -> str:
    rows = "".join(
        f'<tr title="{html.escape(doc)}"><th>{html.escape(name)}</th><td>{html.escape(value)}</td>'
        f"<td class=doc>{_marked(doc)}</td></tr>"
        for name, value, doc in config["options"]
    )
    return f"<table>{rows}</table>"


def _marked(text: str) -> str:
    """What stands between backticks as code."""
    return re.sub(r"`([^`]*)`", r"<code>\1</code>", html.escape(text))


def streams(config: dict[str, Any]) -> str:
    return f"{config['envs']} stream{'s' if config['envs'] != 1 else ''}"


def machine(config: dict[str, Any]) -> str:
    hardware = config["hardware"]
    rows = [
        ("processor", f"{hardware['processor']}, {hardware['cores']} cores, {hardware['memory_gib']:g} GiB"),
        ("devices", f"{hardware['platform']}: {', '.join(hardware['devices'])}"),
        ("system", hardware["system"]),
        *config["versions"].items(),
    ]
    return table(rows)


def table(rows: list[tuple[str, Any]]) -> str:
    cells = "".join(f"<tr><th>{html.escape(k)}</th><td>{html.escape(str(v))}</td></tr>" for k, v in rows)
    return f"<table>{cells}</table>"


def number(x: float | None) -> str:
    if x is None:
        return "–"
    return f"{x:,.0f}" if abs(x) >= 1000 else f"{x:.1f}" if abs(x) >= 10 else f"{x:.3g}"


def seconds(x: float) -> str:
    return f"{x:.1f} s" if x < 60 else f"{int(x // 60)} min {x % 60:.0f} s"
