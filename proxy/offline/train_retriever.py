"""Trains a bi-encoder, the dense half of the hybrid retriever. Needs the extra `train`."""

from __future__ import annotations

import random
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from datasets import Dataset
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from sentence_transformers.sentence_transformer.evaluation import InformationRetrievalEvaluator
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
from sentence_transformers.sentence_transformer.training_args import BatchSamplers

from proxy.errors import InvalidModel
from proxy.offline.train import Trained
from proxy.offline.trainer import Schedule, arguments_of, callbacks_of, is_first_process, resumable
from proxy.offline.training_data import judged_of, texts_of

if TYPE_CHECKING:
    from proxy.offline.training_data import TrainingSet

METRIC = "held_out_cosine_ndcg@10"


class RetrieverPlan(msgspec.Struct, frozen=True, kw_only=True):
    """From what, and how, a retriever is trained."""

    start: str
    """A folder, or a model that sentence-transformers knows by that name."""
    out: Path
    schedule: Schedule
    max_length: int = 160
    negatives: int = 1
    """Hard ones with each positive; the other passages of a batch are negatives, too."""
    scale: float = 20.0
    """What cosines are multiplied by: one over the temperature."""


def train_retriever(plan: RetrieverPlan, data: TrainingSet) -> Trained:
    """Fine-tune a bi-encoder, going on from a checkpoint in its folder if there is one.

    The loss is the cross entropy of the positive among all passages of the batch and the hard negatives (Henderson et
    al. 2017, section 4.4). Two lists with the same passage never meet in a batch: one's positive is not the other's
    negative. The checkpoint with the best nDCG@10 of held-out queries is kept; they search the passages of all lists.

    Raises:
        InvalidModel: there is nothing to begin from.

    """
    rows = _rows(plan, data)
    model = _load(plan)
    evaluator = _evaluator(data)
    before = float(evaluator(model)[METRIC])
    trainer = SentenceTransformerTrainer(
        model=model,
        args=SentenceTransformerTrainingArguments(
            **arguments_of(plan.schedule, plan.out, len(rows), f"eval_{METRIC}"),
            batch_sampler=BatchSamplers.NO_DUPLICATES,
        ),
        train_dataset=Dataset.from_list(rows),
        loss=MultipleNegativesRankingLoss(model, scale=plan.scale),
        evaluator=evaluator,
        callbacks=callbacks_of(plan.schedule, {"loss": "loss", f"eval_{METRIC}": "nDCG@10"}),
    )
    done = trainer.train(resume_from_checkpoint=resumable(plan.out))
    best = plan.out / "model"
    if is_first_process():
        model.save_pretrained(str(best))
    return Trained(
        folder=str(best),
        metric="nDCG@10",
        before=before,
        after=float(evaluator(model)[METRIC]),
        steps=done.global_step,
        lists=len(rows),
        seconds=done.metrics["train_runtime"],
    )


def _load(plan: RetrieverPlan) -> SentenceTransformer:
    try:
        model = SentenceTransformer(plan.start, local_files_only=True)
    except Exception as exc:  # a broken folder fails in whatever reads it: safetensors, torch, transformers
        raise InvalidModel(
            f"{plan.start}: cannot be loaded: {(str(exc) or type(exc).__name__).splitlines()[0]}"
        ) from exc
    model.max_seq_length = min(plan.max_length, model.max_seq_length or plan.max_length)
    return model


def _rows(plan: RetrieverPlan, data: TrainingSet) -> list[dict[str, str]]:
    """Return a row for each list and epoch: one positive, and as many of its negatives as the plan says."""
    dice = random.Random(plan.schedule.seed)  # noqa: S311 - sampling, no secret
    rows = []
    for _ in range(plan.schedule.epochs):
        for row in dice.sample(data.lists, len(data.lists)):
            hard = [dice.choice(row.negatives) for _ in range(plan.negatives)]
            positive, *negatives = texts_of([dice.choice(row.positives), *hard], data.passages)
            named = {f"negative_{number}": text for number, text in enumerate(negatives)}
            rows.append({"query": row.query, "positive": positive, **named})
    return rows[: plan.schedule.max_examples]


def _evaluator(data: TrainingSet) -> InformationRetrievalEvaluator:
    held_out = judged_of(data.held_out, data.passages, "held_out")
    others = judged_of(data.lists, data.passages, "training")
    return InformationRetrievalEvaluator(
        held_out.queries,
        others.documents | held_out.documents,
        {query: set(grades) for query, grades in held_out.grades.items()},
        name="held_out",
        accuracy_at_k=[10],
        precision_recall_at_k=[10],
        map_at_k=[10],
        write_csv=False,
    )
