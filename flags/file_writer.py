"""Writes the share to a flag file in Unleash's format, leaving everything else in it as it is."""

from __future__ import annotations

import asyncio
import fcntl
import os
import tempfile
from pathlib import Path
from typing import Any

import msgspec

from flags.file_gate import flag_document
from flags.flag_writer import FlagMoved, FlagNotWritten, FlagShare
from flags.rollout import ROLLOUT_STRATEGY, InvalidFlags, read_rollout


class FileFlagWriter:
    """Changes one flag's rollout strategy in a file, under a lock and in one step."""

    def __init__(self, path: Path, flag: str) -> None:
        self._path = path
        self._flag = flag

    async def close(self) -> None:
        """Nothing is open."""

    async def read(self) -> FlagShare:
        """Return what the file says now.

        Raises:
            FlagNotWritten: it cannot be read.

        """
        return await asyncio.to_thread(self._read)

    async def write(self, share_percent: int, *, expected: int | None, group_id: str, title: str) -> FlagShare:
        """Set share, hash group and title, and return what the file says afterwards.

        Raises:
            FlagMoved: the file has another share than *expected*.
            FlagNotWritten: the file cannot be read or written.

        """
        return await asyncio.to_thread(self._write, share_percent, expected, group_id, title)

    def _read(self) -> FlagShare:
        return self._share(self._text())

    def _text(self) -> str:
        try:
            return self._path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return msgspec.json.encode(flag_document(self._flag, 0)).decode()
        except (OSError, UnicodeError) as exc:
            raise FlagNotWritten(f"{self._path}: {exc}") from exc

    def _share(self, text: str) -> FlagShare:
        try:
            rollout = read_rollout(text, self._flag)
        except InvalidFlags as exc:
            raise FlagNotWritten(f"{self._path}: {exc}") from exc
        if rollout is None:
            return FlagShare(0, self._flag)
        share = rollout.given_percent
        strategy = _strategy(_feature(msgspec.json.decode(text), self._flag))
        return FlagShare(share, rollout.group_id, str(strategy.get("title") or ""))

    def _write(self, share_percent: int, expected: int | None, group_id: str, title: str) -> FlagShare:
        try:
            with self._path.with_name(f".{self._path.name}.lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                text = self._text()
                now = self._share(text)
                if expected is not None and now.share_percent not in {expected, share_percent}:
                    raise FlagMoved(now.share_percent)
                document = msgspec.json.decode(text)
                feature = _feature(document, self._flag)
                feature["enabled"] = share_percent > 0
                strategy = _strategy(feature)
                strategy["title"] = title
                strategy.setdefault("parameters", {}).update(rollout=str(share_percent), groupId=group_id)
                self._replace(document)
        except OSError as exc:
            raise FlagNotWritten(f"{self._path}: {exc}") from exc
        return self._read()

    def _replace(self, document: dict[str, Any]) -> None:
        path = self._path.resolve()  # what a link names is replaced, not the link
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, "wb") as file:
            file.write(msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n")
        Path(name).replace(path)


def _feature(document: dict[str, Any], flag: str) -> dict[str, Any]:
    """Return the flag of a document, put there if it is missing."""
    found: dict[str, Any] | None = next((f for f in document["features"] if f["name"] == flag), None)
    if found is None:
        found = flag_document(flag, 0)["features"][0]
        document["features"].append(found)
    return found


def _strategy(feature: dict[str, Any]) -> dict[str, Any]:
    """Return the first active rollout strategy of a flag, put there if it is missing."""
    active = (s for s in feature.setdefault("strategies", []) if not s.get("disabled"))
    found: dict[str, Any] | None = next((s for s in active if s["name"] == ROLLOUT_STRATEGY), None)
    if found is None:
        found = flag_document(feature["name"], 0)["features"][0]["strategies"][0]
        feature["strategies"].append(found)
    return found
