"""Which documents a list to train on gets as negatives.

Those that users rejected come from the log; a retriever adds what it finds for the query and nobody was shown. Where
there is a reranker, what it takes for nearly as relevant as the positive is left out: likely it is relevant, and nobody
came to click it ("denoised" negatives of Qu et al. 2021, "RocketQA", section 3.2). But what users are known to have
rejected stays whatever it scores: those are the reranker's mistakes, the best negatives there are, and stand first.

`sentence_transformers.util.mine_hard_negatives` does not serve here: it encodes one corpus with one model and takes
pairs of query and positive from memory; it knows no ranks, no users and no calibrated margin, keeps no negatives that
are known already, and the hybrid index finds its passages better than vectors alone.
"""

from __future__ import annotations

from collections import Counter
from itertools import islice
from typing import TYPE_CHECKING

from proxy.errors import InvalidModel
from proxy.learning.lists import Candidate
from proxy.learning.words import normalised
from proxy.offline.training_data import TrainingList

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from proxy.learning.lists import Draft
    from proxy.learning.mining_plan import MiningPlan
    from proxy.learning.scores import Scores
    from proxy.offline.retrieve import Retriever

SOURCE = "clicks"
_AT_ONCE = 64
"""Queries that the retriever looks up together."""


class Chooser:
    """Chooses negatives, and counts them."""

    def __init__(self, plan: MiningPlan, scores: Scores | None, retriever: Retriever | None) -> None:
        self._plan = plan
        self._scores = scores
        self._retriever = retriever
        self.kept: Counter[str] = Counter()
        self.dropped: Counter[str] = Counter()

    def lists(self, drafts: Iterable[Draft]) -> Iterator[tuple[Draft, TrainingList]]:
        """Yield the lists that have a negative.

        Raises:
            BackendError, InvalidModel: a model failed.

        """
        waiting = iter(drafts)
        while some := list(islice(waiting, _AT_ONCE)):
            for draft, more in zip(some, self._retrieved(some), strict=True):
                chosen = draft.others if draft.is_held_out else self._chosen(draft, [*draft.others, *more])
                if not chosen:
                    self.dropped["lists without a negative"] += 1
                    continue
                part = "held out: " if draft.is_held_out else ""
                self.kept[f"{part}positives"] += len(draft.positives)
                for each in chosen:
                    self.kept[f"{part}negatives" if draft.is_held_out else f"negatives: {each.role}"] += 1
                texts: list[str | int] = [each.text for each in chosen]
                yield draft, TrainingList(draft.query, [*draft.positives], texts, SOURCE, draft.weight, draft.at)

    def _retrieved(self, drafts: Sequence[Draft]) -> list[list[Candidate]]:
        """Return for each list what the retriever finds and nobody was shown; nothing for held-out ones."""
        found: list[list[Candidate]] = [[] for _ in drafts]
        wanted = [place for place, draft in enumerate(drafts) if not draft.is_held_out]
        if self._retriever is None or not wanted:
            return found
        queries = [drafts[place].query for place in wanted]
        try:
            ordered = self._retriever.orders(queries, self._plan.retrieved)
        except (RuntimeError, ValueError) as exc:
            raise InvalidModel(f"{self._plan.index}: its bi-encoder failed: {exc}") from exc
        for place, orders in zip(wanted, ordered, strict=True):
            draft = drafts[place]
            seen = {normalised(text) for text in (*draft.positives, *(each.text for each in draft.others))}
            for at in orders.fused:
                text = self._retriever.passages[at].whole
                if (normal := normalised(text)) and normal not in seen:
                    seen.add(normal)
                    found[place].append(Candidate(text, "retrieved", is_sure=False))
        return found

    def _chosen(self, draft: Draft, candidates: list[Candidate]) -> list[Candidate]:
        if self._scores is not None and candidates:
            candidates = self._sifted(draft, candidates, self._scores)
        most = self._plan.max_negatives
        self.dropped["negatives above the most of a list"] += max(0, len(candidates) - most)
        return candidates[:most]

    def _sifted(self, draft: Draft, candidates: list[Candidate], scores: Scores) -> list[Candidate]:
        """Return the candidates that are no false negatives, the reranker's mistakes first, then by its score."""
        texts = [*draft.positives, *(each.text for each in candidates)]
        found = scores.probabilities(draft.query, texts)
        best = max(found[: len(draft.positives)])
        most = best - min(self._plan.margin, best / 2)  # a model that knows no positive here can doubt no negative
        sifted = []
        for p, each in zip(found[len(draft.positives) :], candidates, strict=True):
            if p <= most or each.is_sure:
                sifted.append((p, each))
                self.kept["negatives that the reranker takes for relevant, and users rejected"] += p > most
            else:
                self.dropped[f"false negatives by the margin: {each.role}"] += 1
        return [each for _, each in sorted(sifted, key=lambda one: -one[0])]
