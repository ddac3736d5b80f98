"""The loss of the shipped reranker: rank the list, keep the scores calibrated, listen to a teacher."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

if TYPE_CHECKING:
    from sentence_transformers import CrossEncoder


class ListwiseLoss(nn.Module):  # type: ignore[misc]  # torch is not there where this is checked
    """Softmax cross entropy over each list, plus pointwise and teacher terms.

    ``L = CE(softmax(z), y) + pointwise * BCE(sigmoid(z), y) + teacher * KL(softmax(t / T) || softmax(z))``

    The first term is ListNet's top-one loss with one relevant passage (Cao et al. 2007, eq. 6). The
    second keeps ``sigmoid(z)`` usable as a probability. The third is distillation (Hinton et al. 2015)
    from similarities *t* of a bi-encoder: it holds on to what the backbone knew of other domains.

    Labels are a tensor of shape (passages, 3) a list: relevance 0 or 1, *t* (NaN without a teacher), and what the list
    counts for, the same in each row.
    """

    def __init__(
        self,
        model: CrossEncoder,
        *,
        pointwise: float = 0.3,
        teacher: float = 0.2,
        temperature: float = 0.05,
        rows: int = 16,
    ) -> None:
        super().__init__()
        self.model = model
        self.pointwise = pointwise
        self.teacher = teacher
        self.temperature = temperature
        self.rows = rows

    def forward(
        self,
        inputs: tuple[list[str], list[list[str]]],
        labels: list[Tensor],
        prompt: str | None = None,
        task: str | None = None,
    ) -> Tensor:
        """Return the mean loss over the lists of one batch."""
        queries, documents = inputs
        pairs = [(query, document) for query, group in zip(queries, documents, strict=True) for document in group]
        logits = self._logits(pairs, prompt, task)
        losses = []
        for scores, label in zip(logits.split([len(group) for group in documents]), labels, strict=True):
            losses.append(self._one(scores, label.to(scores)))
        return torch.stack(losses).mean()

    def _one(self, scores: Tensor, label: Tensor) -> Tensor:
        relevance, similarity, weight = label[:, 0], label[:, 1], label[0, 2]
        loss = functional.cross_entropy(scores, relevance / relevance.sum())
        loss = loss + self.pointwise * functional.binary_cross_entropy_with_logits(scores, relevance)
        if not torch.isnan(similarity).any():
            target = functional.softmax(similarity / self.temperature, dim=0)
            loss = loss + self.teacher * functional.kl_div(scores.log_softmax(0), target, reduction="sum")
        return weight * loss

    def _logits(self, pairs: list[tuple[str, str]], prompt: str | None, task: str | None) -> Tensor:
        """Score *pairs* in groups of similar length, so that padding costs little; shape (pairs,)."""
        order = sorted(range(len(pairs)), key=lambda i: len(pairs[i][0]) + len(pairs[i][1]))
        parts = []
        for start in range(0, len(order), self.rows):
            tokens = self.model.preprocess(
                [pairs[i] for i in order[start : start + self.rows]], prompt=prompt, task=task
            )
            tokens = {k: v.to(self.model.device) if isinstance(v, Tensor) else v for k, v in tokens.items()}
            parts.append(self.model(tokens)["scores"].view(-1).float())
        back = torch.empty(len(order), dtype=torch.long)
        back[torch.tensor(order)] = torch.arange(len(order))
        return torch.cat(parts)[back.to(parts[0].device)]

    def get_config_dict(self) -> dict[str, float]:
        """Return what the model card lists of this loss."""
        return {"pointwise": self.pointwise, "teacher": self.teacher, "temperature": self.temperature}
