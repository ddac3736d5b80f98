"""What a cluster runs beside the proxy: the flag's first state, and a look at whether an installation is well.

Exit codes: 0 done; 1 it is not well, or was refused; 2 wrong usage or settings; 3 a server cannot be reached; 4 a key
or token is refused.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections import Counter
from pathlib import Path
from typing import NoReturn

import click
import httpx
from prometheus_client.parser import text_string_to_metric_families
from rich.console import Console
from rich.text import Text

from flags.flag_writer import FlagForbidden, FlagNotWritten
from proxy.configuration import load
from proxy.control_client import REFUSED, UNAUTHORIZED, UNREACHABLE
from proxy.errors import InvalidSettings
from proxy.rollout import unleash_writer

_errors = Console(stderr=True)
_WRONG = 2
_USERS = 40
_HEARTBEAT_SECONDS = 60.0
_QUERY = "how long does a worker bee live"
_DOCUMENTS = ["Honey keeps for years in a closed jar.", "A worker bee lives about six weeks in summer."]


@click.command("create-flag")
@click.option("--config", "file", type=click.Path(path_type=Path), help="TOML file; else $RERANK_CANARY_CONFIG.")
def create_flag(file: Path | None) -> None:
    """Make the flag in Unleash, at 0 % and off, where there is none of its name; one that is there is left alone."""
    try:
        settings = load(os.environ, file)
    except InvalidSettings as exc:
        _fail(str(exc), _WRONG)
    if settings.flag.url is None or settings.flag.admin_token is None:
        _fail("$.flag: needs UNLEASH_URL and UNLEASH_ADMIN_TOKEN", _WRONG)

    async def create() -> bool:
        writer = unleash_writer(settings.flag)
        try:
            return await writer.create("rerank-canary: made at 0 %")
        finally:
            await writer.close()

    try:
        was_made = asyncio.run(create())
    except FlagForbidden as exc:
        _fail(str(exc), UNAUTHORIZED)
    except FlagNotWritten as exc:
        _fail(str(exc), UNREACHABLE if "reached" in str(exc) else REFUSED)
    click.echo(f"{settings.flag.key}: {'made, at 0 % and off' if was_made else 'is there already, left as it is'}")


@click.command("smoke")
@click.option("--url", default="http://127.0.0.1:8080", show_default=True, help="Of the data plane.")
@click.option("--control-url", help="Of the control plane; without it the guard is not looked at.")
@click.option("--key", envvar="RERANK_CANARY_KEY", default="", help="Of the data plane.")
def smoke(url: str, control_url: str | None, key: str) -> None:
    """Rank for a few users, and say who got which arm and when the guard last judged."""
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    with httpx.Client(base_url=url, headers=headers, timeout=60) as client:
        answers = [_ask(client, f"smoke-{number}").headers for number in range(_USERS)]
    for name in ("arm", "reason", "served-by"):
        counts = Counter(each[f"x-rerank-{name}"] for each in answers).most_common()
        click.echo(f"{name}: {', '.join(f'{value} {count}' for value, count in counts)} of {_USERS} users")
    if control_url is None:
        click.echo("guard: not looked at (no --control-url)")
        return
    age = _heartbeat_age(control_url)
    if age is None:
        click.echo("guard: off, or has not judged yet")
    elif age > _HEARTBEAT_SECONDS:
        _fail(f"the guard judged {age:.0f} s ago", REFUSED)
    else:
        click.echo(f"guard: judged {age:.1f} s ago")


def _ask(client: httpx.Client, user: str) -> httpx.Response:
    """Return an answer that ranks what is plain."""
    body = {"query": _QUERY, "documents": _DOCUMENTS}
    try:
        answer = client.post("/v1/rerank", json=body, headers={"X-User-Id": user})
    except httpx.HTTPError as exc:
        _fail(f"{client.base_url}: {exc}", UNREACHABLE)
    if answer.status_code in {401, 403}:
        _fail(f"{client.base_url}: the key is refused: set RERANK_CANARY_KEY", UNAUTHORIZED)
    try:
        best = answer.json()["results"][0]["index"]
    except (ValueError, LookupError, TypeError):
        _fail(f"{client.base_url} answered {answer.status_code}: {answer.text[:200]}", REFUSED)
    if best != 1:
        model = answer.headers.get("x-rerank-model")
        _fail(f"{client.base_url} ranks what is plain the wrong way round ({model})", REFUSED)
    return answer


def _heartbeat_age(control_url: str) -> float | None:
    """Return how long ago the guard judged; None: never."""
    try:
        page = httpx.get(f"{control_url}/metrics", timeout=30).raise_for_status().text
    except httpx.HTTPError as exc:
        _fail(f"{control_url}: {exc}", UNREACHABLE)
    beats = (
        sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
        if sample.name == "rerank_guard_heartbeat_seconds"
    )
    newest = max(beats, default=None)
    return None if newest is None else max(0.0, time.time() - newest)


def _fail(reason: str, code: int) -> NoReturn:
    _errors.print(Text.assemble(("rerank-canary: ", "bold red"), reason), highlight=False, soft_wrap=True)
    sys.exit(code)
