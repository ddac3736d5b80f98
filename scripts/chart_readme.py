"""Writes the table of values into the chart's README: ``python scripts/chart_readme.py``. Takes it from values.yaml.

Each value has its comment, on its own line; a table without one is made of its values.
"""

from __future__ import annotations

import re
from pathlib import Path

CHART = Path(__file__).parents[1] / "helm/rerank-canary"
_BEGIN, _END = "<!-- values: scripts/chart_readme.py -->\n", "<!-- end of values -->\n"
_LINE = re.compile(r"^(?P<indent> *)(?P<name>[A-Za-z]+):(?: +(?P<value>[^#\s].*?))?(?: +# (?P<comment>.+))?$")


def rows(values: str) -> list[tuple[str, str, str]]:
    """Return name, default and comment of each value.

    Raises:
        ValueError: a line is none that can be read, or a value has no comment.

    """
    found, parents = [], [""] * 9
    for number, line in enumerate(values.splitlines(), 1):
        if not line or line.startswith("# "):
            continue
        match = _LINE.match(line)
        if match is None:
            raise ValueError(f"values.yaml:{number}: cannot be read: {line}")
        depth = len(match["indent"]) // 2
        parents[depth] = match["name"]
        if match["value"] is None and match["comment"] is None:
            continue
        if match["comment"] is None:
            raise ValueError(f"values.yaml:{number}: has no comment: {line}")
        found.append((".".join(parents[: depth + 1]), match["value"] or "", match["comment"]))
    return found


def table(values: str) -> str:
    """Return the values as Markdown."""
    lines = ["| value | default | meaning |", "|---|---|---|"]
    for name, default, comment in rows(values):
        shown = f"`{default}`" if default else ""
        lines.append(f"| `{name}` | {shown} | {comment.replace('|', chr(92) + '|')} |")
    return "\n".join(lines) + "\n"


def with_table(readme: str, values: str) -> str:
    """Return the README with its table made anew."""
    before, _, rest = readme.partition(_BEGIN)
    _, _, after = rest.partition(_END)
    return f"{before}{_BEGIN}\n{table(values)}\n{_END}{after}"


def main() -> None:
    """Write it."""
    readme = CHART / "README.md"
    readme.write_text(with_table(readme.read_text(), (CHART / "values.yaml").read_text()))


if __name__ == "__main__":
    main()
