"""Trains a cross-encoder: the one that the proxy ships, and each that traffic makes of it. Needs the extra `train`."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import torch
from datasets import Dataset
from sentence_transformers import CrossEncoder
from sentence_transformers.cross_encoder import CrossEncoderTrainer, CrossEncoderTrainingArguments
from sentence_transformers.cross_encoder.evaluation import CrossEncoderRerankingEvaluator

from proxy.engine.model_folder import IR_FILE, find_folder
from proxy.errors import InvalidModel
from proxy.offline.float_weights import restore
from proxy.offline.losses import ListwiseLoss
from proxy.offline.teacher import Teacher
from proxy.offline.trainer import Schedule, arguments_of, callbacks_of, is_first_process, resumable
from proxy.offline.training_data import draw_epoch, texts_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from proxy.offline.training_data import Example, TrainingSet

METRIC = "held_out_ndcg@10"


class RerankerPlan(msgspec.Struct, frozen=True, kw_only=True):
    """From what, and how, a reranker is trained."""

    start: str
    """A folder that transformers loads, an OpenVINO IR, or ``shipped``."""
    out: Path
    schedule: Schedule
    teacher: Path | None = None
    layers: int | None = None
    """Keep this many of the layers, evenly spaced, the last among them."""
    list_size: int = 8
    source_cap: int = 5000
    """No more lists of one source in an epoch than this."""
    max_length: int = 176
    train_embeddings: bool = False


class Trained(msgspec.Struct, frozen=True, kw_only=True):
    """What training came to."""

    folder: str
    """Of the weights that did best on held-out queries."""
    metric: str
    before: float
    """On held-out queries, before the first step."""
    after: float
    steps: int
    lists: int
    seconds: float


def train_reranker(plan: RerankerPlan, data: TrainingSet) -> Trained:
    """Fine-tune a cross-encoder as *plan* says, going on from a checkpoint in its folder if there is one.

    Raises:
        InvalidModel: there is nothing to begin from.

    """
    examples = _examples(plan, data)
    teacher = Teacher(plan.teacher, _texts(examples), plan.out) if plan.teacher else None
    model = load_start(plan)
    evaluator = _evaluator(data)
    before = float(evaluator(model)[METRIC])
    trainer = CrossEncoderTrainer(
        model=model,
        args=CrossEncoderTrainingArguments(**arguments_of(plan.schedule, plan.out, len(examples), f"eval_{METRIC}")),
        train_dataset=_dataset(examples, teacher),
        loss=ListwiseLoss(model),
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
        lists=len(examples),
        seconds=done.metrics["train_runtime"],
    )


def load_start(plan: RerankerPlan) -> CrossEncoder:
    """Return a cross-encoder to go on from, its embeddings frozen unless the plan trains them.

    Raises:
        InvalidModel: the folder holds nothing to train.

    """
    folder = find_folder(plan.start)
    if folder is None:
        raise InvalidModel(f"{plan.start}: no folder; a model of a hub has to be downloaded first")
    with tempfile.TemporaryDirectory() as name:
        has_only_ir = (folder / IR_FILE).is_file() and not any(folder.glob("*.safetensors"))
        model = _load(restore(folder, Path(name)) if has_only_ir else folder, plan.max_length)
    base = model.model.base_model
    if plan.layers:
        layers = base.encoder.layer
        kept = [round((i + 1) * len(layers) / plan.layers) - 1 for i in range(plan.layers)]
        base.encoder.layer = torch.nn.ModuleList([layers[i] for i in kept])
        model.model.config.num_hidden_layers = plan.layers
    if not plan.train_embeddings:
        base.embeddings.requires_grad_(False)  # noqa: FBT003 - torch's own signature
    return model


def _load(folder: Path, max_length: int) -> CrossEncoder:
    try:
        return CrossEncoder(
            str(folder),
            num_labels=1,
            max_length=max_length,
            activation_fn=torch.nn.Identity(),
            local_files_only=True,
            model_kwargs={"attn_implementation": "eager", "dtype": "float32"},
            config_kwargs={"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0},
        )
    except Exception as exc:  # a broken folder fails in whatever reads it: safetensors, torch, transformers
        raise InvalidModel(f"{folder}: cannot be loaded: {(str(exc) or type(exc).__name__).splitlines()[0]}") from exc


def _examples(plan: RerankerPlan, data: TrainingSet) -> list[Example]:
    schedule = plan.schedule
    drawn = [
        example
        for epoch in range(schedule.epochs)
        for example in draw_epoch(
            data.lists, data.passages, list_size=plan.list_size, source_cap=plan.source_cap, seed=schedule.seed + epoch
        )
    ]
    return drawn[: schedule.max_examples]


def _texts(examples: Iterable[Example]) -> Iterable[str]:
    for example in examples:
        yield example.query
        yield from example.passages


def _dataset(examples: Sequence[Example], teacher: Teacher | None) -> Dataset:
    def rows() -> Iterable[dict[str, Any]]:
        for example in examples:
            similar = (
                teacher.similarities(example.query, example.passages)
                if teacher
                else [float("nan")] * len(example.passages)
            )
            labels = [[float(i == 0), s, example.weight] for i, s in enumerate(similar)]
            yield {"query": example.query, "passages": example.passages, "labels": labels}

    return Dataset.from_list(list(rows()))


def _evaluator(data: TrainingSet) -> CrossEncoderRerankingEvaluator:
    samples = [
        {
            "query": row.query,
            "positive": texts_of(row.positives, data.passages),
            "negative": texts_of(row.negatives, data.passages),
        }
        for row in data.held_out
    ]
    return CrossEncoderRerankingEvaluator(samples=samples, at_k=10, name="held_out", batch_size=64, write_csv=False)
