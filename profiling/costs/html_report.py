"""Tables and figures in one HTML file that needs no other file and no network."""

from __future__ import annotations

import base64
import io
from html import escape

from matplotlib.figure import Figure
from rich.console import Console

from profiling.figures.plots import Inputs, SkippedError, draw_all
from profiling.figures.style import PNG_DPI, house_style

TABLE_WIDTH = 118  # characters

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
  content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>{title}</title>
<style>
body {{ margin: 0 auto; padding: 32px clamp(14px, 4vw, 48px); max-width: 1180px;
  background: #f7f6f3; color: #1d1b22; font: 16px/1.5 Inter, system-ui, sans-serif; }}
h1 {{ font-size: 30px; letter-spacing: -.02em; line-height: 1.2; }}
h2 {{ margin: 36px 0 10px; font-size: 20px; }}
p {{ color: #5d5966; }}
a {{ color: #4c3bc4; }}
figure, .tables {{ margin: 0 0 22px; padding: 18px; overflow-x: auto; border: 1px solid #e2dfe7;
  border-radius: 12px; background: #fff; }}
figure img {{ display: block; max-width: 100%; height: auto; margin: 0 auto; }}
pre {{ margin: 0; font: 13px/1.4 ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace; }}
</style>
</head>
<body>
<h1>{title}</h1>
<p>{subtitle}</p>
<nav aria-label="Contents"><ul>{contents}</ul></nav>
{figures}
<h2 id="tables">Tables</h2>
<div class="tables" tabindex="0" role="region" aria-label="Tables">{tables}</div>
</body>
</html>
"""


def recording_console() -> Console:
    """A console that prints nowhere; what was printed goes into `html_report`."""
    return Console(record=True, file=io.StringIO(), width=TABLE_WIDTH, markup=False, emoji=False)


def html_report(title: str, tables: Console, inputs: Inputs) -> str:
    """The report as HTML.

    Args:
        title: Of the page.
        tables: Has recorded them.
        inputs: What the figures draw from.
    """
    figures: list[tuple[str, Figure]] = []
    skipped: list[str] = []
    for name, drawn in draw_all(inputs):
        if isinstance(drawn, SkippedError):
            skipped.append(f"{name} ({drawn})")
        else:
            figures.append((name, drawn))
    profiles = inputs.profiles
    subtitle = f"Profile set {profiles.version}: " + ", ".join(
        f"{profile.model} on {profile.accelerator}" for profile in profiles.profiles
    )
    if skipped:
        subtitle += f". Not drawn: {'; '.join(skipped)}"
    return _PAGE.format(
        title=escape(title),
        subtitle=escape(subtitle),
        contents="".join(_link(name, _title(figure)) for name, figure in figures)
        + _link("tables", "Tables"),
        figures="\n".join(_section(name, figure) for name, figure in figures),
        tables=tables.export_html(inline_styles=True, code_format="<pre>{code}</pre>"),
    )


def _link(name: str, title: str) -> str:
    return f'<li><a href="#{name}">{escape(title)}</a></li>'


def _section(name: str, figure: Figure) -> str:
    alt = escape(f"Figure: {_title(figure)}")
    return f'<figure id="{name}"><img src="{_data_uri(figure)}" alt="{alt}"></figure>'


def _title(figure: Figure) -> str:
    return figure.texts[0].get_text()


def _data_uri(figure: Figure) -> str:
    # As an image of its own: the names inside of several SVGs would clash in one document.
    svg = io.BytesIO()
    with house_style():
        figure.savefig(svg, format="svg", dpi=PNG_DPI, metadata={"Date": None})
    return "data:image/svg+xml;base64," + base64.b64encode(svg.getvalue()).decode()
