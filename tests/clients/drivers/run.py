"""Runs the driver that it is told: one question a line from stdin, one answer a line to stdout."""

from __future__ import annotations

import importlib
import json
import os
import sys
from typing import Any

from asking import Asked

# a client that prints, or that patches the streams when imported, must not spoil an answer
questions = os.fdopen(os.dup(0), encoding="utf-8")
answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
os.dup2(2, 1)


def answer(asked: Asked) -> dict[str, Any]:
    """Return the ranking that the client gave, or the exception that it raised."""
    try:
        return {"ranks": calls[asked.call](asked)}
    except Exception as exc:  # noqa: BLE001 - which one it is, is what the test asks
        kinds = [kind.__name__ for kind in type(exc).__mro__]
        body = getattr(exc, "body", None)
        plain = body if isinstance(body, dict | str) else None
        return {"error": {"kinds": kinds, "message": str(exc), "body": plain}}


calls = importlib.import_module(f"drive_{sys.argv[1]}").CALLS
for line in questions:
    answers.write(json.dumps(answer(Asked(**json.loads(line)))) + "\n")
    answers.flush()
