"""Moments as they are typed at a command."""

from __future__ import annotations

import datetime as dt
import re
import time

import click

_AGO = re.compile(r"(\d+(?:\.\d+)?)([mhd])")
_UNITS = {"m": 60.0, "h": 3600.0, "d": 86400.0}


class Moment(click.ParamType[float]):
    """A moment in Unix seconds: ISO 8601 (UTC where it says nothing), ``now``, or a time before now: 90m, 24h, 7d."""

    name = "moment"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return Unix seconds."""
        if isinstance(value, float):
            return value
        text = str(value)
        if text == "now":
            return time.time()
        if ago := _AGO.fullmatch(text):
            return time.time() - float(ago[1]) * _UNITS[ago[2]]
        try:
            found = dt.datetime.fromisoformat(text)
        except ValueError:
            self.fail(f"{text}: is neither a time such as 2026-11-23T08:00 nor one ago such as 24h", param, ctx)
        return (found if found.tzinfo else found.replace(tzinfo=dt.UTC)).timestamp()
