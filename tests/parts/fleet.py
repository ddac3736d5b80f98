"""Several proxies that share one store and one flag, and operators who command them."""

from __future__ import annotations

import json
import os
import subprocess
from typing import TYPE_CHECKING, Any, Self

import httpx
import msgspec

from flags.bucketing import bucket
from proxy.secrets import hash_key
from tests.integration.pages import status
from tests.parts.callers import QUICK
from tests.parts.programs import eventually
from tests.parts.unleash import ADMIN_TOKEN, CLIENT_TOKEN
from tests.running import ROOT, Proxy

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tests.parts.network import Network
    from tests.parts.unleash import Unleash

TOKENS = {"vera": "viewer", "olga": "operator", "adam": "admin"}
"""Actors and their roles; the key of each is the name and ``-key``."""


class Ran(msgspec.Struct, frozen=True):
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


class Fleet:
    """Proxies of one rollout."""

    def __init__(
        self, folder: Path, count: int, env: Mapping[str, str], *, prefix: str, network: Network | None = None
    ) -> None:
        shared = {
            **QUICK,
            **env,
            "RERANK_CANARY__STORE__PREFIX": prefix,
            "RERANK_CANARY__AUTH__CONTROL_TOKENS": json.dumps(control_tokens()),
            "RERANK_CANARY__RAMP__COOL_DOWN_SECONDS": "0",
        }
        self.proxies = [
            network.proxy(number, folder / str(number), shared) if network else Proxy(folder / str(number), shared)
            for number in range(count)
        ]

    def __enter__(self) -> Self:
        try:
            for proxy in self.proxies:
                proxy.start()
            self.wait_until_agreed()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for proxy in self.proxies:
            if proxy.process is not None and proxy.process.poll() is None:
                proxy.process.kill()
                proxy.process.wait(15)

    def wait_until_agreed(self, *, timeout_seconds: float = 40) -> dict[str, Any]:
        """Wait until all follow one version of the record, which the flag says too; return what it is."""

        def agreed() -> dict[str, Any] | None:
            found = [self.rollout(number) for number in range(len(self.proxies))]
            versions = {each["record_version"] for each in found}
            is_settled = len(versions) == 1 and None not in versions and not found[0]["flag_is_behind"]
            is_settled &= all(each["latch"]["is_delivered"] for each in found)
            shares = {each["share_percent"]["effective"] for each in found}
            return found[0] if is_settled and shares == {found[0]["share_percent"]["desired"]} else None

        agreement = eventually(agreed, timeout_seconds=timeout_seconds)
        assert agreement is not None
        return agreement

    def rollout(self, number: int = 0) -> dict[str, Any]:
        """Return what one of them says of the rollout."""
        found: dict[str, Any] = status(self.proxies[number])["rollout"]
        return found

    def leader(self) -> int:
        """Return the number of the one that holds the lease."""

        def found() -> int | None:
            for number, proxy in enumerate(self.proxies):
                page = status(proxy)
                if page["rollout"]["leader"] == page["instance_id"]:
                    return number + 1
            return None

        return (eventually(found) or 0) - 1

    def run(self, *command: str, number: int = 0, actor: str = "adam") -> Ran:
        """Run ``rerank-canary COMMAND`` against one of them."""
        done = subprocess.run(
            [str(ROOT / ".venv/bin/rerank-canary"), *command, "--url", self.proxies[number].control_url],
            env={"PATH": os.environ["PATH"], "RERANK_CANARY_TOKEN": f"{actor}-key", "COLUMNS": "200"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        return Ran(done.returncode, done.stdout, done.stderr)

    def order(self, path: str, **fields: object) -> dict[str, Any]:
        """Give an order to the first of them, as the admin."""
        url = f"{self.proxies[0].control_url}/{path}"
        answer = httpx.post(url, json=fields, headers={"Authorization": "Bearer adam-key"}, timeout=30)
        assert answer.is_success, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def begin_at(self, percent: int) -> None:
        """Bring the rollout to a share, whatever it was before."""
        found = self.rollout()
        if found["latch"]["is_set"]:
            self.order("rearm", reason="the next test")
        if found["phase"] != "ramping" or found["share_percent"]["desired"] != percent:
            self.order("ramp", share_percent=percent, force=True)
        self.wait_until_agreed(timeout_seconds=30)

    def history(self, number: int = 0) -> list[dict[str, Any]]:
        """Return the audit trail, the newest first."""
        found: list[dict[str, Any]] = self.run("history", "--count", "1000", "--json", number=number).json
        return found


def control_tokens() -> list[dict[str, str]]:
    """Return the setting of all of them."""
    return [{"name": name, "role": role, "key": hash_key(f"{name}-key")} for name, role in TOKENS.items()]


def unleash_env(unleash: Unleash, flag: str, redis_url: str, *, url: str | None = None) -> dict[str, str]:
    """Return the variables of proxies that follow and write a flag of a real Unleash."""
    return {
        "UNLEASH_URL": url or unleash.url,
        "UNLEASH_API_TOKEN": CLIENT_TOKEN,
        "UNLEASH_ADMIN_TOKEN": ADMIN_TOKEN,
        "RERANK_CANARY__FLAG__KEY": flag,
        "REDIS_URL": redis_url,
    }


def in_group(users: list[str], group_id: str, percent: int) -> set[str]:
    """Return the users whom the published hash gives to the candidate."""
    return {user for user in users if bucket(group_id, user) <= percent}
