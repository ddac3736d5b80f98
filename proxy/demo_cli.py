"""``rerank-canary demo``: a rollout from 5 to 100 % with a fault on the way, to be watched on the dashboard."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import tempfile
import time
import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from proxy.demo import Demo, Found
    from proxy.listeners import Listener
    from proxy.parts import Parts

_out = Console()


@click.command("demo")
@click.option("--stage-seconds", type=click.FloatRange(1, 3600), default=15, show_default=True, help="Between steps.")
@click.option("--rate", type=click.FloatRange(1, 100), default=12, show_default=True, help="Requests a second.")
@click.option("--browser/--no-browser", default=True, help="Open the dashboard.")
@click.option("--stay", is_flag=True, help="Go on serving at the end, until Ctrl-C.")
def demo(stage_seconds: float, rate: float, *, browser: bool, stay: bool) -> None:
    """Start everything embedded, drive a whole rollout with a fault on the way, and end with a summary."""
    import uvloop  # noqa: PLC0415 - as all of serving, seconds to import

    from flags.store import StoreNotStarted  # noqa: PLC0415
    from proxy.demo import DemoFailed  # noqa: PLC0415
    from proxy.errors import InvalidModel, InvalidSettings  # noqa: PLC0415

    try:
        found = uvloop.run(_run(stage_seconds, rate, opens=browser, stays=stay))
    except (InvalidSettings, InvalidModel, DemoFailed, StoreNotStarted) as exc:
        raise click.ClickException(str(exc)) from exc
    except (KeyboardInterrupt, asyncio.CancelledError) as exc:
        _out.print("stopped")
        raise SystemExit(130 if isinstance(exc, KeyboardInterrupt) else 143) from None
    raise SystemExit(0 if found.is_promoted and found.rolled_back_at is not None and not found.failed else 1)


async def _run(stage_seconds: float, rate: float, *, opens: bool, stays: bool) -> Found:
    from proxy.demo import Demo  # noqa: PLC0415

    me = asyncio.current_task()
    assert me is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, me.cancel)
    async with contextlib.AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="rerank-canary-demo-")))
        parts, candidate, data, control = await stack.enter_async_context(_served(folder, stage_seconds))
        _say_where(parts, folder, data, control)
        if opens:
            webbrowser.open(f"{control.url}/ui")
        began = time.monotonic()
        played = Demo(
            parts,
            data.url,
            candidate,
            stage_seconds=stage_seconds,
            rate=rate,
            tell=lambda words: _out.print(Text(f"{time.monotonic() - began:6.1f} s  {words}"), soft_wrap=True),
        )
        found = await played.run()
        await _say_summary(parts, played, control)
        if stays:
            _out.print("serving until Ctrl-C")
            await asyncio.Event().wait()
    return found


@contextlib.asynccontextmanager
async def _served(folder: Path, stage_seconds: float) -> AsyncIterator[tuple[Any, ...]]:
    from proxy.app import create_control_app, create_data_app  # noqa: PLC0415
    from proxy.configuration import load  # noqa: PLC0415
    from proxy.demo import arms_of, settings_of, stand_in  # noqa: PLC0415
    from proxy.logs import configure_logs  # noqa: PLC0415
    from proxy.parts import Parts  # noqa: PLC0415

    llm = stand_in()
    settings = settings_of(load({}, None), folder, stage_seconds, llm.url)
    log = (folder / "demo.log").open("w", encoding="utf-8")
    configure_logs(settings.telemetry, log)
    arms, candidate = arms_of(settings)
    data, control = _listener(settings.server.port), _listener(settings.server.control_port)
    parts = Parts(settings, dict(os.environ), arms)
    try:
        await llm.start()
        await parts.start()
        await control.start(create_control_app(parts))
        await data.start(create_data_app(parts))
        yield parts, candidate, data, control
    finally:
        parts.is_draining = True
        await data.close()
        await parts.close()
        await control.close()
        await llm.close()
        log.close()


def _listener(port: int) -> Listener:
    """Return one on the usual port, or on another where that is taken."""
    from proxy.errors import InvalidSettings  # noqa: PLC0415
    from proxy.listeners import Listener  # noqa: PLC0415

    try:
        return Listener("127.0.0.1", port)
    except InvalidSettings:
        return Listener("127.0.0.1", 0)


def _say_where(parts: Parts, folder: Path, data: Listener, control: Listener) -> None:
    token = (folder / "control.token").read_text(encoding="utf-8").strip()
    table = Table.grid(padding=(0, 2))
    table.add_row("dashboard", f"{control.url}/ui")
    table.add_row("sign in with", token)
    table.add_row("data plane", data.url)
    table.add_row("candidate", Text(parts.model_names()[0]))
    table.add_row("control", "a stand-in that plays gpt-4o-mini, at its price")
    table.add_row("look at", "the track of stages, both arms' p95, the guardrail p95, then Rollbacks")
    _out.print(Panel(table, title="rerank-canary demo", expand=False))


async def _say_summary(parts: Parts, played: Demo, control: Listener) -> None:
    from proxy.dashboard.past import Past  # noqa: PLC0415
    from proxy.dashboard.plots import money_so_far  # noqa: PLC0415
    from proxy.dashboard.tiers import TIERS  # noqa: PLC0415

    found = played.found
    past = Past(parts.store, parts.settings.rollout_prefix, parts.rollout.control, parts.alerting.outbox)
    money = await money_so_far(past, TIERS)
    table = Table(title="what happened", title_justify="left", show_header=False)
    table.add_row("requests", f"{found.requests:,}, of which failed {found.failed}")
    if found.rolled_back_at is None:
        table.add_row("fault", "[red]not found[/]")
    else:
        table.add_row("fault found after", f"{found.rolled_back_at - found.fault_at:.1f} s")
        table.add_row("rollback", f"{control.url}/ui/incidents/{found.rollback_id}")
    table.add_row("in the end", "everybody has the candidate" if found.is_promoted else "[red]not ramped to 100 %[/]")
    if money.saved_dollars is not None:
        table.add_row("saved", f"${money.saved_dollars:.4f} of what the language model would have cost")
    if money.seconds_saved is not None:
        table.add_row("waiting saved", f"{money.seconds_saved:.0f} s, by the medians")
    _out.print(table)
