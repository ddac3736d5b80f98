"""Writes calibrations into the configuration, and leaves what people wrote there as it is."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import tomlkit
from tomlkit.exceptions import TOMLKitError

from proxy.errors import InvalidFile

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tomlkit.items import Table

    from proxy.engine.calibration import Calibration, Statistic

_TABLE = "calibrations"


def with_calibrations(text: str, calibrations: Mapping[str, Calibration], statistic: Statistic, comment: str) -> str:
    """Return a configuration with *calibrations* by model, each in place of one it had, comments and order kept.

    Raises:
        ValueError: the text is no TOML, or a name that is needed is no table in it.

    """
    try:
        document = tomlkit.parse(text)
        tables = document.setdefault(_TABLE, tomlkit.table(is_super_table=True))
        for model, calibration in calibrations.items():
            tables[model] = _table(calibration, comment)
        fallback = document.setdefault("fallback", tomlkit.table())
        if fallback.get("statistic", "top1") != statistic:
            fallback["statistic"] = statistic
        if not fallback:
            del document["fallback"]
    except (TOMLKitError, TypeError, AttributeError) as exc:
        raise ValueError(f"cannot be changed: {exc}") from exc
    return tomlkit.dumps(document)


def _table(calibration: Calibration, comment: str) -> Table:
    table = tomlkit.table()
    table.add(tomlkit.comment(comment))
    table["slope"] = calibration.slope
    table["intercept"] = calibration.intercept
    statistics = tomlkit.table(is_super_table=True)
    for name, found in calibration.statistics.items():
        row = tomlkit.table()
        row["low"], row["high"] = found.low, found.high
        if found.threshold is not None:
            row["threshold"] = found.threshold
        statistics[name] = row
    if calibration.statistics:
        table["statistics"] = statistics
    return table


def write_calibrations(file: Path, calibrations: Mapping[str, Calibration], statistic: Statistic, comment: str) -> None:
    """Change a configuration file, made where there is none; it is whole at every moment.

    Raises:
        InvalidFile: it cannot be read, changed or written.

    """
    try:
        text = file.read_text(encoding="utf-8") if file.exists() else ""
        changed = with_calibrations(text, calibrations, statistic, comment)
        _replace(file.resolve(), changed)
    except (OSError, UnicodeError, ValueError) as exc:
        raise InvalidFile(file, str(exc)) from exc


def _replace(file: Path, text: str) -> None:
    mode = file.stat().st_mode & 0o777 if file.exists() else 0o644
    descriptor, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as out:
            out.write(text)
            os.fchmod(out.fileno(), mode)
        Path(name).replace(file)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(name).unlink()
        raise
