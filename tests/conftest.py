"""Fixtures that every kind of test shares."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import httpx
import pytest

from proxy.app import create_data_app
from proxy.configuration import load
from proxy.parts import Parts
from tests.arms import WordArm
from tests.parts.unleash import Postgres, Unleash, is_unleash_here

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path


class Plane:
    """A data plane in this process, with arms that the test can break."""

    def __init__(self, folder: Path, env: dict[str, str]) -> None:
        self.gpt = WordArm("gpt-test")
        self.cross_encoder = WordArm("cross-encoder-test")
        settings = load({"RERANK_CANARY__DATA_DIR": str(folder), **env})
        self.parts = Parts(settings, {}, {"gpt": self.gpt, "cross-encoder": self.cross_encoder})
        self.parts.rollout.latch.hear()  # as if the store had said that no rollback holds
        self.seen: list[object] = []
        transport = httpx.ASGITransport(create_data_app(self.parts))  # type: ignore[arg-type]  # Litestar's own types
        self.client = httpx.AsyncClient(transport=transport, base_url="http://proxy")


@pytest.fixture
async def make_plane(tmp_path: Path) -> AsyncIterator[Callable[..., Plane]]:
    """Return a maker of planes; keyword arguments are environment variables."""
    made: list[Plane] = []

    def make(**env: str) -> Plane:
        plane = Plane(tmp_path / str(len(made)), env)
        plane.parts.rollout.flag_gate.reload()  # type: ignore[attr-defined]  # the file gate, read at once
        made.append(plane)
        return plane

    yield make
    for plane in made:
        await plane.client.aclose()
        await plane.parts.store.aclose()


@pytest.fixture
def plane(make_plane: Callable[..., Plane]) -> Plane:
    """Return a plane with nothing but defaults."""
    return make_plane()


def require_part(name: str, *, found: bool) -> None:
    """Skip loudly where a part is missing; where all must be there (CI), fail."""
    if found:
        return
    reason = f"{name} is not here: tests/parts/install brings it"
    if os.environ.get("REQUIRE_PARTS"):
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def unleash(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Unleash]:
    """Return an Unleash server; each test makes flags of its own in it."""
    require_part("an Unleash server with its PostgreSQL", found=is_unleash_here())
    with Postgres() as database, Unleash(database.url, tmp_path_factory.mktemp("unleash")) as server:
        yield server
