"""A report as one HTML file: no script, nothing fetched, readable in light and dark and on paper."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from alerts.simulation.plot import STYLE as PLOT_STYLE
from proxy.look import look

if TYPE_CHECKING:
    from collections.abc import Sequence

    from proxy.offline.benchmark_tables import Table

_STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:1000px;margin:2rem auto;padding:0 1rem}"
    "body{background:var(--page);color:var(--text)}a{color:var(--link)}"
    "h1{font-size:1.6rem}h2{font-size:1.1rem;margin-top:2.2rem}svg{width:100%;height:auto;background:none;color:inherit}"
    "div.wide{overflow-x:auto;background:var(--card);border:1px solid var(--edge);border-radius:10px}"
    "table{border-collapse:collapse;font-variant-numeric:tabular-nums}"
    "th,td{padding:.4rem .8rem;border-bottom:1px solid var(--edge);text-align:right;white-space:nowrap}"
    "thead th{color:var(--dim);font-size:.82rem;font-weight:500}tbody tr:last-child>*{border-bottom:0}"
    "th:first-child,td:first-child{text-align:left}p.small{font-size:.85rem;color:var(--dim);margin:.3rem 0}"
    "p.note{border-left:3px solid var(--wait);background:var(--wait-back);padding:.4rem .7rem}"
)


def page(title: str, notes: Sequence[str], parts: Sequence[str], *, style: str = "") -> str:
    """Return the file: a heading, *notes* that must be read first, and *parts* of HTML, with *style* of their own."""
    return "\n".join(
        [
            '<!doctype html><html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width,initial-scale=1">',
            f"<title>{escape(title)}</title><style>{look()}{PLOT_STYLE}{_STYLE}{style}</style></head><body>",
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
