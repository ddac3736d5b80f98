"""The real servers that these tests share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.conftest import require_part
from tests.parts.unleash import Postgres, Unleash, is_unleash_here

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def unleash(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Unleash]:
    """Return an Unleash server; each test makes flags of its own in it."""
    require_part("an Unleash server with its PostgreSQL", found=is_unleash_here())
    with Postgres() as database, Unleash(database.url, tmp_path_factory.mktemp("unleash")) as server:
        yield server
