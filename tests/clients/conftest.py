"""Proxies and clients, each started once for all of its tests."""

from __future__ import annotations

import json
import subprocess
from contextlib import ExitStack
from typing import TYPE_CHECKING

import msgspec
import pytest

from flags.file_gate import write_flag_file
from tests.clients.driving import ENVIRONMENTS, Driver
from tests.conftest import require_part
from tests.running import ROOT, Proxy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.clients.ways import Way

SHARE_PERCENT = 50
ANY_KEY = "any-key"


class Place(msgspec.Struct, frozen=True):
    """Where a client asks, and with which key."""

    proxy: Proxy
    key: str


class Places(msgspec.Struct, frozen=True):
    """One proxy without keys, one with, and one with a key and with the settings that some clients need."""

    open: Place
    keyed: Place
    switched: Place

    def usual(self, way: Way) -> Place:
        """Return where *way* gets its rankings."""
        return self.switched if way.needs_switch else self.open

    def guarded(self, way: Way) -> Place:
        """Return where *way* needs the right key."""
        return self.switched if way.needs_switch else self.keyed


@pytest.fixture(scope="session")
def places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Places]:
    """Start the proxies. Both arms answer at once, have time for 1,000 documents, and stand in for nobody."""
    folder = tmp_path_factory.mktemp("proxies")
    write_flag_file(folder / "flags.json", "rerank-canary", SHARE_PERCENT)
    env = {
        "RERANK_CANARY__FLAG__FILE": str(folder / "flags.json"),
        "RERANK_CANARY__BACKENDS__GPT__KIND": "llm",
        "RERANK_CANARY__BACKENDS__GPT__STAND_IN_DELAY_SECONDS": "0",
        "RERANK_CANARY__DEADLINE__TOTAL_SECONDS": "120",
        "RERANK_CANARY__DEADLINE__CANDIDATE_SECONDS": "100",
        "RERANK_CANARY__FALLBACK__MAX_SHARE": "0",
    }
    made = subprocess.run(
        [str(ROOT / ".venv/bin/rerank-canary"), "new-key"], check=True, capture_output=True, text=True
    )
    key, hashed = made.stdout.split()
    keyed = env | {"RERANK_CANARY__AUTH__DATA_KEYS": json.dumps([hashed])}
    switched = keyed | {
        "RERANK_CANARY__WIRE__DOCUMENT_AS_STRING": "true",
        "RERANK_CANARY__WIRE__DIALECTS": json.dumps({"/v1/rerank": "voyage"}),
    }
    with (
        Proxy(folder / "open", env) as first,
        Proxy(folder / "keyed", keyed) as second,
        Proxy(folder / "switched", switched) as third,
    ):
        yield Places(Place(first, ANY_KEY), Place(second, key), Place(third, key))


@pytest.fixture(scope="session")
def driver_of(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[Way], Driver]]:
    """Return a giver of drivers; each starts when first wanted."""
    started: dict[str, Driver] = {}
    with ExitStack() as stack:

        def give(way: Way) -> Driver:
            require_part(f"the client {way.client}", found=(ENVIRONMENTS / way.client / ".complete").exists())
            if way.client not in started:
                home = tmp_path_factory.mktemp(way.client)
                started[way.client] = stack.enter_context(Driver(way.client, way.driver, home))
            return started[way.client]

        yield give
