"""What the figures were taken on, and how they are shown and kept."""

from __future__ import annotations

import datetime as dt
import json
import os
import platform
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """Where and when. The load is of the minute before: above one, something else ran as well."""

    cpu: str
    cores: int
    memory_gb: float
    python: str
    date: str
    load: float

    def __str__(self) -> str:
        """Return it as one line."""
        return (
            f"{self.cpu}, {self.cores} cores, {self.memory_gb:.0f} GB, Python {self.python}, "
            f"{self.date}, load before {self.load:.1f}"
        )


def this_machine() -> Machine:
    """Return the machine that this runs on."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return Machine(
        cpu=next(models, platform.machine()),
        cores=len(os.sched_getaffinity(0)),
        memory_gb=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9,
        python=platform.python_version(),
        date=dt.datetime.now(dt.UTC).date().isoformat(),
        load=os.getloadavg()[0],
    )


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]], caption: str = "") -> Table:
    """Return a table whose first column is words and the rest figures."""
    made = Table(title=title, caption=caption or None, title_justify="left", caption_justify="left")
    for number, column in enumerate(columns):
        made.add_column(column, justify="right" if number else "left", no_wrap=not number)
    for row in rows:
        made.add_row(*row)
    return made


def console() -> Console:
    """Return where tables go: as wide as they are when it is no terminal."""
    return Console(highlight=False, width=None if Console().is_terminal else 132)


def keep(file: Path | None, machine: Machine, **figures: Any) -> None:
    """Write the figures as JSON where a file was named."""
    if file is not None:
        kept = msgspec.to_builtins({"machine": machine, **figures})
        file.write_text(json.dumps(kept, indent=2) + "\n", encoding="utf-8")
