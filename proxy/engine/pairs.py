"""Query and document as token ids: the query kept whole within its budget, the document cut by tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from tokenizers import Tokenizer

from proxy.errors import InvalidModel

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_CHARACTERS_PER_TOKEN = 12
"""How much text is tokenised at first for each token that fits; twice as much while that was too little."""


class PairLimits(msgspec.Struct, frozen=True):
    """What a pair may take, in tokens."""

    pair: int
    """Query, document and special tokens together."""
    query: int
    windows: bool = False
    """Long documents as overlapping windows instead of cut."""


class TokenPair(msgspec.Struct):
    """One row for a model."""

    ids: list[int]
    document_start: int
    """Where the second segment begins, special tokens before it excluded."""

    def __len__(self) -> int:
        """Return the number of tokens."""
        return len(self.ids)


class EncodedPairs(msgspec.Struct):
    """A query against documents, as rows; with windows a document has several."""

    rows: list[TokenPair]
    document_of_row: list[int]
    was_cut: list[bool]
    """For each document: whether some of it is in no row."""
    query_was_cut: bool


class PairEncoder:
    """Builds rows as the tokenizer's own pair template does. Not for several threads at once."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self._tokenizer = tokenizer
        self._before, self._between, self._after, self.second_type = _template(tokenizer)
        self.special_tokens = len(self._before) + len(self._between) + len(self._after)
        self.pad_id = _pad_id(tokenizer)

    @classmethod
    def from_file(cls, path: Path) -> PairEncoder:
        """Read a ``tokenizer.json``.

        Raises:
            InvalidModel: there is none, or it is not one.

        """
        try:
            return cls(Tokenizer.from_file(str(path)))
        except Exception as exc:  # tokenizers raises plain Exception, for a missing file too
            raise InvalidModel(f"{path}: no usable tokenizer: {exc}") from exc

    def count(self, text: str) -> int:
        """Return the tokens of *text*, special ones excluded."""
        return len(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def encode(
        self, query: str, documents: Sequence[str], limits: PairLimits, max_document: int | None = None
    ) -> EncodedPairs:
        """Return the rows of *query* against each document.

        Args:
            query: kept up to `limits.query` tokens.
            documents: each gets what the query leaves of `limits.pair`.
            limits: of the model.
            max_document: a caller's own lower limit of tokens a document.

        """
        query_budget = min(limits.query, limits.pair - self.special_tokens - 1)
        [query_ids], [query_was_cut] = self._first_tokens([query], query_budget)
        room = limits.pair - self.special_tokens - len(query_ids)
        budget = room if max_document is None else min(room, max_document)
        if limits.windows and max_document is None:
            return self._windows(query_ids, documents, room, query_was_cut=query_was_cut)
        ids, was_cut = self._first_tokens(documents, budget)
        rows = [self._row(query_ids, document_ids) for document_ids in ids]
        return EncodedPairs(rows, list(range(len(rows))), was_cut, query_was_cut)

    def cut_texts(self, texts: Sequence[str], limit: int) -> tuple[list[str], int]:
        """Return each text up to its *limit*-th token, and how many lost some."""
        kept = []
        cut = 0
        for text, encoding in zip(
            texts, self._tokenizer.encode_batch(list(texts), add_special_tokens=False), strict=True
        ):
            is_cut = len(encoding.ids) > limit
            kept.append(text[: encoding.offsets[limit - 1][1]] if is_cut else text)
            cut += is_cut
        return kept, cut

    def first_too_long(self, query: str, documents: Sequence[str], limits: PairLimits) -> int | None:
        """Return the index of the first document that `encode` would cut, -1 for the query, None if all fit."""
        [query_ids], [query_is_long] = self._first_tokens([query], limits.query)
        if query_is_long:
            return -1
        room = limits.pair - self.special_tokens - len(query_ids)
        return None if limits.windows else self.first_longer(documents, room)

    def first_longer(self, documents: Sequence[str], limit: int) -> int | None:
        """Return the index of the first document of more than *limit* tokens."""
        return next((i for i, document in enumerate(documents) if self._first_tokens([document], limit)[1][0]), None)

    def _windows(
        self, query_ids: list[int], documents: Sequence[str], room: int, *, query_was_cut: bool
    ) -> EncodedPairs:
        """Cover each document with windows of *room* tokens, neighbours sharing a quarter."""
        rows, owners = [], []
        stride = max(1, room - room // 4)
        for i, encoding in enumerate(self._tokenizer.encode_batch_fast(list(documents), add_special_tokens=False)):
            ids = encoding.ids
            last = max(0, len(ids) - room)
            starts = [*range(0, last, stride), last]
            rows += [self._row(query_ids, ids[start : start + room]) for start in starts]
            owners += [i] * len(starts)
        return EncodedPairs(rows, owners, [False] * len(documents), query_was_cut)

    def _row(self, query_ids: list[int], document_ids: list[int]) -> TokenPair:
        head = [*self._before, *query_ids, *self._between]
        return TokenPair([*head, *document_ids, *self._after], len(head))

    def _first_tokens(self, texts: Sequence[str], budget: int) -> tuple[list[list[int]], list[bool]]:
        """Return the first *budget* token ids of each text, and whether there were more.

        Only as much of a text is tokenised as that takes, so a megabyte costs no more than a page. The end
        of a part may fall inside a word and be tokenised differently there, so its last word is never used.
        """
        ids: list[list[int]] = [[] for _ in texts]
        was_cut = [False] * len(texts)
        size = budget * _CHARACTERS_PER_TOKEN
        todo = list(range(len(texts)))
        while todo:
            parts = [texts[i][:size] for i in todo]
            again = []
            for i, encoding in zip(todo, self._tokenizer.encode_batch(parts, add_special_tokens=False), strict=True):
                is_whole = len(texts[i]) <= size
                if is_whole or _tokens_before_last_word(encoding.word_ids) >= budget:
                    ids[i] = encoding.ids[:budget]
                    was_cut[i] = len(encoding.ids) > budget or not is_whole
                else:
                    again.append(i)
            todo = again
            size *= 2
        return ids, was_cut


def _tokens_before_last_word(words: list[int | None]) -> int:
    if not words:
        return 0
    last = words[-1]
    count = len(words)
    while count and words[count - 1] == last:
        count -= 1
    return count


def _template(tokenizer: Tokenizer) -> tuple[list[int], list[int], list[int], int]:
    """Return the special tokens before, between and after a pair, and the type id of the second segment."""
    encoding = tokenizer.encode("a", "a")
    first = [i for i, (sequence, special) in enumerate(_marks(encoding)) if sequence == 0 and not special]
    second = [i for i, (sequence, special) in enumerate(_marks(encoding)) if sequence == 1 and not special]
    if not first or not second:
        raise InvalidModel("the tokenizer has no template for a pair")
    ids = encoding.ids
    parts = ids[: first[0]], ids[first[-1] + 1 : second[0]], ids[second[-1] + 1 :]
    return *parts, encoding.type_ids[second[0]]


def _marks(encoding: object) -> list[tuple[int | None, int]]:
    return list(zip(encoding.sequence_ids, encoding.special_tokens_mask, strict=True))  # type: ignore[attr-defined]


def _pad_id(tokenizer: Tokenizer) -> int:
    for token in ("[PAD]", "<pad>", "<|padding|>"):
        found = tokenizer.token_to_id(token)
        if found is not None:
            return int(found)
    return 0
