"""The passages of an index, on disk: each is read when it is asked for."""

from __future__ import annotations

import mmap
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from proxy.offline.corpus import Passage

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

_ROWS, _ENDS = "passages.bin", "passages.npy"


class PassageStore:
    """Passages by their places in the corpus, from 0 on."""

    def __init__(self, rows: mmap.mmap, ends: np.ndarray[tuple[int], np.dtype[np.int64]]) -> None:
        self._rows = rows
        self._ends = ends
        self._decoder = msgspec.msgpack.Decoder(Passage)

    @classmethod
    def load(cls, folder: Path) -> PassageStore:
        """Return what `write_passages` wrote.

        Raises:
            OSError, ValueError: it is not that.

        """
        with (folder / _ROWS).open("rb") as file:
            rows = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        return cls(rows, np.load(folder / _ENDS, mmap_mode="r", allow_pickle=False))

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._ends)

    def __getitem__(self, place: int) -> Passage:
        """Return one."""
        begin = int(self._ends[place - 1]) if place else 0
        return self._decoder.decode(self._rows[begin : int(self._ends[place])])


def write_passages(passages: Iterable[Passage], folder: Path) -> int:
    """Write *passages*, at least one, and return how many they are.

    Raises:
        OSError: they cannot be written.

    """
    encoder = msgspec.msgpack.Encoder()
    ends: list[int] = []
    end = 0
    with (folder / _ROWS).open("wb") as file:
        for passage in passages:
            end += file.write(encoder.encode(passage))
            ends.append(end)
    np.save(folder / _ENDS, np.array(ends, np.int64))
    return len(ends)
