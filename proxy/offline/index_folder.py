"""The folder of a saved index: a manifest, and beside it the data that it names.

``manifest.json`` is replaced as a whole once new data are complete, so that whoever opens the folder finds the old
index or the new one. What a broken run left is deleted by the next.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from uuid import uuid4

import msgspec

from proxy.errors import InvalidFile
from proxy.offline.corpus import Stamp
from proxy.offline.dense_index import Dtype

if TYPE_CHECKING:
    from collections.abc import Iterator

SCHEMA = 1
LEXICAL, VECTORS = "bm25", "vectors.npy"
"""Of the data: the folder of BM25, and the file of the vectors, if there are any."""
_MANIFEST, _LOCK, _DATA = "manifest.json", ".lock", "data-"


class DenseFacts(msgspec.Struct, frozen=True):
    """What made the vectors."""

    model: str
    revision: str
    precision: str
    """What passages were encoded in."""
    dtype: Dtype
    """Of the vectors on disk."""


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What an index says of itself."""

    schema: Literal[1]
    corpus: str
    """The file that was indexed."""
    stamp: Stamp
    passages: int
    data: str
    """The folder that holds the files."""
    sizes: dict[str, int]
    """Bytes of each file."""
    dense: DenseFacts | None = None
    """None: BM25 only."""


def read_manifest(folder: Path, *, checks_corpus: bool = True) -> Manifest:
    """Return the manifest of an index that is complete, and whose corpus, where it is still there, has not changed.

    Args:
        folder: of the index.
        checks_corpus: False: the corpus may have changed.

    Raises:
        InvalidFile: there is none, it is of another version, files are missing or cut, or the corpus is another one.

    """
    manifest = _decode(folder / _MANIFEST)
    for name, size in manifest.sizes.items():
        file = folder / manifest.data / name
        found = _size_of(file)
        if found != size:
            what = "is missing" if found is None else f"has {found} bytes, not {size}"
            raise InvalidFile(file, f"{what}: the index is broken; make it again with `rerank-canary retrieve index`")
    if checks_corpus:
        _check_corpus(folder, manifest)
    return manifest


def _size_of(file: Path) -> int | None:
    try:
        return file.stat().st_size
    except OSError:
        return None


def _check_corpus(folder: Path, manifest: Manifest) -> None:
    corpus = Path(manifest.corpus)
    try:
        fits = manifest.stamp.fits(corpus) if corpus.is_file() else True
    except OSError:
        fits = True  # what cannot be read is not the corpus's business here: the index holds all it needs
    if not fits:
        raise InvalidFile(
            corpus, f"has changed since {folder} was made of it; make it again with `rerank-canary retrieve index`"
        )


def _decode(file: Path) -> Manifest:
    try:
        raw = file.read_bytes()
    except OSError as exc:
        raise InvalidFile(file, f"no index can be read here: {exc.strerror}") from exc
    try:
        found = msgspec.json.decode(raw, type=dict[str, msgspec.Raw]).get("schema")
        if found is not None and bytes(found) != b"%d" % SCHEMA:
            raise InvalidFile(
                file, f"is of version {bytes(found).decode()[:20]} of the index, and {SCHEMA} is read here"
            )
        return msgspec.json.decode(raw, type=Manifest)
    except (msgspec.MsgspecError, UnicodeDecodeError) as exc:
        raise InvalidFile(file, f"is no manifest of an index: {exc}") from exc


@contextlib.contextmanager
def new_data(folder: Path) -> Iterator[Path]:
    """Give an empty folder to write new data into; it is deleted where that fails, and the index left as it was.

    Raises:
        InvalidFile: the folder cannot be written, or another run is writing it.

    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / _LOCK).open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _delete_all_but(folder, data_of(folder))
            data = folder / f"{_DATA}{uuid4().hex[:12]}"
            data.mkdir()
            try:
                yield data
            finally:
                _delete_all_but(folder, data_of(folder))
    except BlockingIOError as exc:
        raise InvalidFile(folder, "another run is writing this index") from exc
    except OSError as exc:
        reason = f"cannot be written ({exc.strerror or exc}); what was there is as it was"
        raise InvalidFile(folder, reason) from exc


def sizes_of(data: Path) -> dict[str, int]:
    """Return the bytes of each file of *data*, all of them on the disk by then.

    Raises:
        OSError: one cannot be brought there.

    """
    files = [file for file in data.rglob("*") if file.is_file()]
    for file in files:
        _sync(file)
    return {str(file.relative_to(data)): file.stat().st_size for file in files}


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Make *manifest* the one that counts, as a whole or not at all.

    Raises:
        OSError: it cannot be written.

    """
    aside = folder / f".{_MANIFEST}.tmp"
    aside.write_bytes(msgspec.json.format(msgspec.json.encode(manifest)) + b"\n")
    _sync(aside)
    aside.replace(folder / _MANIFEST)
    _sync(folder)


def data_of(folder: Path) -> str | None:
    """Return the data that count; None: there are none yet."""
    with contextlib.suppress(OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return msgspec.json.decode((folder / _MANIFEST).read_bytes(), type=_Named).data
    return None


class _Named(msgspec.Struct):
    """Of a manifest of any version, what keeps its data."""

    data: str


def _delete_all_but(folder: Path, kept: str | None) -> None:
    for found in folder.glob(f"{_DATA}*"):
        if found.name != kept:
            shutil.rmtree(found, ignore_errors=True)


def _sync(path: Path) -> None:
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
