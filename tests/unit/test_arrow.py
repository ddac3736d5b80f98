"""The one arrow: proxy imports alerts imports flags, and nothing points back."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MAY_IMPORT = {"flags": set(), "alerts": {"flags"}, "proxy": {"flags", "alerts"}}
PURE = [
    "flags/vocabulary.py",
    "flags/bucketing.py",
    "flags/rollout.py",
    "flags/ramp.py",
    "flags/record.py",
    "alerts/alert.py",
    "alerts/delivery.py",
    "alerts/design_effect.py",
    "alerts/evidence.py",
    "alerts/findings.py",
    "alerts/guardrails.py",
    "alerts/histogram.py",
    "alerts/judge.py",
    "alerts/judge_state.py",
    "alerts/stage_bounds.py",
    "alerts/vetoes.py",
    "alerts/judging.py",
    "alerts/relative_limit.py",
    "alerts/report.py",
    "alerts/signals.py",
    "alerts/verdict.py",
    "alerts/wanted.py",
    "proxy/breaker.py",
    "proxy/identity.py",
    "proxy/ranking.py",
    "proxy/doubt.py",
    "proxy/arms/llm_prompt.py",
    *(str(path.relative_to(ROOT)) for path in sorted((ROOT / "proxy/wire").glob("*.py"))),
]
"""Rules a reader must be able to follow without clock, randomness, network or logging."""
IMPURE = {"asyncio", "time", "random", "os", "socket", "structlog", "logging", "httpx", "redis", "datetime", "uuid"}


def imported(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {name.name.partition(".")[0] for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.partition(".")[0])
    return found


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_a_package_imports_only_what_lies_below_it(package: str) -> None:
    above = set(MAY_IMPORT) - MAY_IMPORT[package] - {package}
    wrong = {
        str(path.relative_to(ROOT)): sorted(imported(path) & above)
        for path in (ROOT / package).rglob("*.py")
        if imported(path) & above
    }
    assert not wrong


@pytest.mark.parametrize("module", PURE)
def test_the_pure_core_meets_no_clock_network_or_log(module: str) -> None:
    tree = ast.parse((ROOT / module).read_text(encoding="utf-8"))
    assert not imported(ROOT / module) & IMPURE
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.Await | ast.AsyncFunctionDef)]
