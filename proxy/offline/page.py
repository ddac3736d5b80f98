"""A report as one HTML file: no script, nothing fetched, readable in light and dark and on paper."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from alerts.simulation.plot import STYLE as PLOT_STYLE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from proxy.offline.benchmark_tables import Table

_STYLE = (
    ":root{color-scheme:light dark}"
    "body{font:15px/1.5 system-ui,sans-serif;max-width:1000px;margin:2rem auto;padding:0 1rem}"
    "body{background:#fff;color:#222}"
    "h1{font-size:1.5rem}h2{font-size:1.15rem;margin-top:2.2rem}svg{width:100%;height:auto}"
    "div.wide{overflow-x:auto}table{border-collapse:collapse;font-variant-numeric:tabular-nums}"
    "th,td{padding:.25rem .7rem;border-bottom:1px solid #8886;text-align:right;white-space:nowrap}"
    "th:first-child,td:first-child{text-align:left}p.small{font-size:.85rem;opacity:.8;margin:.3rem 0}"
    "p.note{border-left:3px solid #efb118;padding-left:.7rem}"
    "@media(prefers-color-scheme:dark){body{background:#16181d;color:#ddd}}"
)


def page(title: str, notes: Sequence[str], parts: Sequence[str], *, style: str = "") -> str:
    """Return the file: a heading, *notes* that must be read first, and *parts* of HTML, with *style* of their own."""
    return "\n".join(
        [
            '<!doctype html><html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width,initial-scale=1">',
            f"<title>{escape(title)}</title><style>{PLOT_STYLE}{_STYLE}{style}</style></head><body>",
            f"<h1>{escape(title)}</h1>",
            *(f'<p class="note">{escape(note)}</p>' for note in notes),
            *parts,
            "</body></html>\n",
        ]
    )


def section(title: str, *parts: str) -> str:
    """Return a heading and what stands under it."""
    return "\n".join([f"<h2>{escape(title)}</h2>", *parts])


def html_table(table: Table) -> str:
    """Return a table with its title and captions."""
    head = "".join(f'<th scope="col">{escape(column)}</th>' for column in table.columns)
    rows = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in table.rows)
    captions = "".join(f'<p class="small">{escape(words)}</p>' for words in table.captions)
    body = f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>{captions}'
    return section(table.title, body)
