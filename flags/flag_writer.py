"""The port to whatever keeps the flag, for those who change it."""

from __future__ import annotations

from typing import Protocol

import msgspec


class FlagNotWritten(Exception):
    """The flag could not be read or written now; worth another try. The message says why."""


class FlagForbidden(FlagNotWritten):
    """The flag's keeper does not let us; trying again changes nothing until a person does something."""


class FlagMoved(Exception):
    """Somebody else changed the share meanwhile; nothing was written."""

    def __init__(self, share_percent: int) -> None:
        super().__init__(f"the flag was moved to {share_percent} % meanwhile")
        self.share_percent = share_percent


class FlagShare(msgspec.Struct, frozen=True):
    """What the flag's keeper says, asked directly."""

    share_percent: int
    """The effective one: 0 where the flag is off."""
    group_id: str
    title: str = ""
    event_id: str = ""
    """Of the keeper's own event of the last change; empty where it keeps none, or was not asked."""


class FlagWriter(Protocol):
    """Reads and changes the share. Every change is a compare-and-set and is read back."""

    async def read(self) -> FlagShare:
        """Return what the flag says now.

        Raises:
            FlagNotWritten: it cannot be read.

        """

    async def write(self, share_percent: int, *, expected: int | None, group_id: str, title: str) -> FlagShare:
        """Set share, hash group and title, and return what the flag says afterwards.

        *expected* is the share that the flag must still have; None: whatever it has.

        Raises:
            FlagMoved: it has another.
            FlagForbidden, FlagNotWritten: nothing was written, or it could not be read back.

        """

    async def close(self) -> None:
        """Close connections."""
