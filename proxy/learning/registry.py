"""Where models are kept, each whole or not at all: a folder, or an object store by its URL. Needs fsspec.

``ROOT/NAME/card.json`` says what the others are, with their checksums; it is written last, so a name without one is a
model that is still being written, or never was to the end. Nothing in the registry is ever changed.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fsspec
import msgspec

from proxy.errors import InvalidModel, InvalidSettings
from proxy.learning.card import File, ModelCard, readme_of
from proxy.secrets import shown_url

if TYPE_CHECKING:
    from collections.abc import Iterator

CARD = "card.json"
README = "README.md"
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,79}")
_BLOCK = 1 << 20


class Registry:
    """Models under one root."""

    def __init__(self, url: str | Path) -> None:
        """Take a folder or a URL; nothing is asked or made yet.

        Raises:
            InvalidSettings: no such kind of URL, or the package for it is not installed.

        """
        self.url = str(url)
        try:
            self._fs, root = fsspec.url_to_fs(self.url)
        except (ImportError, ValueError) as exc:
            raise InvalidSettings(f"the registry {shown_url(self.url)} cannot be opened: {exc}") from exc
        self._root = str(root).rstrip("/")

    def cards(self) -> list[ModelCard]:
        """Return all that are whole, the newest first.

        Raises:
            InvalidModel: the registry cannot be read, or a card in it.

        """
        try:
            names = [Path(path).parent.name for path in self._fs.glob(f"{self._root}/*/{CARD}")]
        except Exception as exc:  # each store's client has errors of its own
            raise InvalidModel(f"{shown_url(self.url)}: cannot be listed: {exc}") from exc
        return sorted((self.card(name) for name in names), key=lambda card: -card.made_at)

    def card(self, name: str) -> ModelCard:
        """Return what a model says of itself.

        Raises:
            InvalidModel: there is no such model, or its card cannot be read.

        """
        text = self._read(f"{self._path(name)}/{CARD}", f"{name}: the registry {shown_url(self.url)} has no such model")
        try:
            card = msgspec.json.decode(text, type=ModelCard)
        except msgspec.MsgspecError as exc:
            raise InvalidModel(f"{name}: its {CARD} cannot be read: {exc}") from exc
        if card.name != name:
            raise InvalidModel(f"{name}: its {CARD} is that of {card.name}")
        return card

    def add(self, folder: Path, card: ModelCard) -> ModelCard:
        """Keep a model: every file of *folder*, with its checksum in the card that is returned.

        Raises:
            InvalidModel: there is a model of this name, or the registry cannot be written.

        """
        path = self._path(card.name)
        files = {str(file.relative_to(folder)): _sum_of(file) for file in sorted(folder.rglob("*")) if file.is_file()}
        card = msgspec.structs.replace(card, files=files)
        try:
            is_taken = self._fs.exists(f"{path}/{CARD}")
            for name in () if is_taken else files:
                self._write(f"{path}/{name}", (folder / name).read_bytes())
            if not is_taken:
                self._write(f"{path}/{README}", readme_of(card).encode())
                self._write(f"{path}/{CARD}", msgspec.json.format(msgspec.json.encode(card), indent=2))
        except Exception as exc:  # each store's client has errors of its own
            raise InvalidModel(f"{card.name}: cannot be written to {shown_url(self.url)}: {exc}") from exc
        if is_taken:
            raise InvalidModel(f"{card.name}: the registry has a model of this name, and none is ever changed")
        return card

    def fetch(self, name: str, into: Path) -> Path:
        """Return a folder below *into* with the model, every file checked against its card.

        Raises:
            InvalidModel: there is no such model, or a file is not what the card says.

        """
        card, kept = self.card(name), into / name
        if kept.is_dir():
            _check(kept, card)
            return kept
        into.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{name}.", dir=into) as scratch:
            made = Path(scratch) / name
            for file in card.files:
                target = made / file
                if not target.resolve().is_relative_to(made.resolve()):
                    raise InvalidModel(f"{name}: its card names a file outside: {file}")
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(self._read(f"{self._path(name)}/{file}", f"{name}: lacks {file}"))
            _check(made, card)
            shutil.move(made, kept)
        return kept

    def _path(self, name: str) -> str:
        if not _NAME.fullmatch(name):
            raise InvalidModel(f"{name!r} is no name of a model: small letters, digits, dots, dashes")
        return f"{self._root}/{name}"

    def _read(self, path: str, otherwise: str) -> bytes:
        try:
            found: bytes = self._fs.cat_file(path)
        except FileNotFoundError as exc:
            raise InvalidModel(otherwise) from exc
        except Exception as exc:  # each store's client has errors of its own
            raise InvalidModel(f"{otherwise.partition(':')[0]}: cannot be read: {exc}") from exc
        return found

    def _write(self, path: str, content: bytes) -> None:
        self._fs.makedirs(path.rpartition("/")[0], exist_ok=True)
        with self._fs.open(path, "wb") as file:
            file.write(content)


def _check(folder: Path, card: ModelCard) -> None:
    for name, expected in card.files.items():
        file = folder / name
        if not file.is_file():
            raise InvalidModel(f"{card.name}: lacks {name}")
        if _sum_of(file) != expected:
            raise InvalidModel(f"{card.name}: {name} is not what its card says: its checksum is another")


def _sum_of(file: Path) -> File:
    digest = hashlib.sha256()
    for block in _blocks(file):
        digest.update(block)
    return File(digest.hexdigest(), file.stat().st_size)


def _blocks(file: Path) -> Iterator[bytes]:
    with file.open("rb") as stream:
        while block := stream.read(_BLOCK):
            yield block


def as_rows(cards: list[ModelCard]) -> list[list[Any]]:
    """Return what a list of models shows of each: name, kind, when, parent, and how it did."""
    return [
        [
            card.name,
            card.kind,
            card.made_at,
            card.parent,
            "; ".join(f"{c.name} {c.measure} {c.current:.3f} → {c.candidate:.3f}" for c in card.comparisons),
        ]
        for card in cards
    ]
