"""Where the event log lies: a folder, or an object store by its URL. Needs fsspec.

``ROOT/exposures/date=2026-11-23/hour=08/part-INSTANCE-7.parquet``: Hive's layout, which DuckDB, Polars and Spark
read as columns. Hours are UTC. A name is used once, so that a part sent twice is there once.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import re
from typing import TYPE_CHECKING, Any

import fsspec
import msgspec

from proxy.errors import InvalidSettings
from proxy.secrets import shown_url

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from proxy.events.records import Kind

HOUR_SECONDS = 3600
_OBJECT_STORES = {"abfs", "abfss", "adl", "az", "gcs", "gs", "memory", "oci", "oss", "r2", "s3", "s3a"}
"""An object is there as a whole or not at all; elsewhere a part is written aside and renamed."""
_DATE = re.compile(r"date=(\d{4}-\d{2}-\d{2})")
_HOUR = re.compile(r"hour=(\d{2})")
_PART = re.compile(r"part-[^/]*\.parquet")


class Partition(msgspec.Struct, frozen=True, order=True):
    """One hour of one kind."""

    hour: int
    """Hours since 1970, UTC."""
    path: str

    @property
    def ends_at(self) -> float:
        """Unix seconds."""
        return (self.hour + 1) * HOUR_SECONDS


def hour_of(at: float) -> int:
    """Return the hour of a moment in Unix seconds, as hours since 1970."""
    return int(at // HOUR_SECONDS)


class Storage:
    """Files under one root. Methods raise OSError, or whatever the object store's client raises."""

    def __init__(self, url: str | Path) -> None:
        """Take a folder or a URL; nothing is asked or made yet.

        Raises:
            InvalidSettings: no such kind of URL, or the package for it is not installed.

        """
        try:
            self._fs, root = fsspec.url_to_fs(str(url))
        except (ImportError, ValueError) as exc:
            raise InvalidSettings(f"$.events.url: {shown_url(str(url))} cannot be opened: {exc}") from exc
        self._root = str(root).rstrip("/")
        protocol = self._fs.protocol
        self._is_atomic = bool(_OBJECT_STORES & set((protocol,) if isinstance(protocol, str) else protocol))

    @property
    def filesystem(self) -> Any:
        """What pyarrow reads through."""
        return self._fs

    def folder(self, kind: Kind, hour: int) -> str:
        """Return the folder of one hour."""
        begin = dt.datetime.fromtimestamp(hour * HOUR_SECONDS, dt.UTC)
        return f"{self._root}/{kind.value}/date={begin:%Y-%m-%d}/hour={begin:%H}"

    def put(self, folder: str, name: str, data: bytes) -> None:
        """Make a file appear as a whole, or not at all."""
        path = f"{folder}/{name}"
        if self._is_atomic:
            self._fs.pipe_file(path, data)
            return
        aside = f"{folder}/.{name}.tmp"  # readers pass over names that begin with a dot
        self._fs.makedirs(folder, exist_ok=True)
        try:
            with self._fs.open(aside, "wb") as file:
                file.write(data)
                _sync(file)
            self._fs.mv(aside, path)
        except BaseException:
            with contextlib.suppress(Exception):
                self._fs.rm_file(aside)
            raise

    def partitions(self, kind: Kind) -> list[Partition]:
        """Return the hours that are there, the oldest first; anything else in the folder is passed over."""
        self._fs.invalidate_cache()
        return sorted(self._hours(kind))

    def _hours(self, kind: Kind) -> Iterator[Partition]:
        for day in self._names(f"{self._root}/{kind.value}"):
            if not (date := _DATE.fullmatch(day)):
                continue
            folder = f"{self._root}/{kind.value}/{day}"
            for name in self._names(folder):
                if (found := _HOUR.fullmatch(name)) and (hour := _read_hour(date[1], found[1])) is not None:
                    yield Partition(hour, f"{folder}/{name}")

    def parts(self, partition: Partition) -> list[str]:
        """Return the paths of the parts of an hour."""
        return [f"{partition.path}/{name}" for name in self._names(partition.path) if _PART.fullmatch(name)]

    def delete(self, partition: Partition) -> None:
        """Delete an hour; the folder of its day goes with the last."""
        self._fs.rm(partition.path, recursive=True)
        day = partition.path.rpartition("/")[0]
        with contextlib.suppress(OSError, NotImplementedError):
            if not self._names(day):
                self._fs.rmdir(day)

    def _names(self, folder: str) -> list[str]:
        try:
            found: list[str] = self._fs.ls(folder, detail=False)
        except FileNotFoundError:
            return []
        return sorted(each.rstrip("/").rpartition("/")[2] for each in found)


def _read_hour(date: str, hour: str) -> int | None:
    try:
        return hour_of(dt.datetime.fromisoformat(f"{date}T{hour}:00:00+00:00").timestamp())
    except ValueError:
        return None  # digits, and no date


def _sync(file: Any) -> None:
    """Wait until a local file is on the disk: after a power cut its name must not be there without its bytes."""
    file.flush()
    with contextlib.suppress(OSError, AttributeError):
        os.fsync(file.fileno())
