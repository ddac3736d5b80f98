"""Writes the share to a real Unleash server, through its admin API.

The order of the calls matters: an environment turned on without a strategy gives the candidate to
everybody, so the strategy is there, with its share, before the environment is turned on.
"""

from __future__ import annotations

from typing import Any

import httpx
import msgspec
from msgspec.structs import replace

from flags.flag_writer import FlagForbidden, FlagMoved, FlagNotWritten, FlagShare
from flags.rollout import ROLLOUT_STRATEGY

_TRIES = 3


class _Strategy(msgspec.Struct):
    id: str
    name: str
    parameters: dict[str, str] = {}
    title: str | None = None
    disabled: bool = False


class _Environment(msgspec.Struct):
    enabled: bool
    strategies: list[_Strategy] = []

    def rollout(self) -> _Strategy | None:
        """Return the strategy that splits; None: there is none."""
        return next((s for s in self.strategies if s.name == ROLLOUT_STRATEGY and not s.disabled), None)


class _Event(msgspec.Struct):
    id: int


class _Failure(msgspec.Struct):
    message: str


class _Events(msgspec.Struct):
    events: list[_Event]


def _message(response: httpx.Response) -> str:
    """Return what Unleash says of a failure, shortened."""
    try:
        return msgspec.json.decode(response.content, type=_Failure).message[:200]
    except msgspec.MsgspecError:
        return "no reason"


class UnleashFlagWriter:
    """Changes one flag's rollout strategy in one environment."""

    def __init__(
        self, *, url: str, token: str, flag: str, project: str, environment: str, timeout_seconds: float = 2.0
    ) -> None:
        self._flag = flag
        self._features = f"/admin/projects/{project}/features"
        self._path = f"{self._features}/{flag}/environments/{environment}"
        self._client = httpx.AsyncClient(
            base_url=url.rstrip("/"), headers={"Authorization": token}, timeout=timeout_seconds
        )

    async def close(self) -> None:
        """Close connections."""
        await self._client.aclose()

    async def create(self, title: str) -> bool:
        """Make the flag, with a rollout of 0 % and its environment off; tell whether there was none.

        Raises:
            FlagForbidden, FlagNotWritten: it is not there afterwards, or is there without a rollout.

        """
        body = {"name": self._flag, "type": "release", "description": title, "impressionData": False}
        try:
            response = await self._client.post(self._features, json=body)
        except httpx.HTTPError as exc:
            raise FlagNotWritten(f"Unleash cannot be reached: {type(exc).__name__}") from exc
        if response.status_code == 409:  # in this project, or in another one: then `read` says that it is not here
            await self.read()
            return False
        if response.status_code in {401, 403, 404}:
            raise FlagForbidden(f"Unleash answered {response.status_code}: {_message(response)}")
        if response.is_error:
            raise FlagNotWritten(f"Unleash answered {response.status_code}: {_message(response)}")
        await self.write(0, expected=None, group_id=self._flag, title=title)
        return True

    async def read(self) -> FlagShare:
        """Return what the flag says now.

        Raises:
            FlagNotWritten: it cannot be read.

        """
        return self._share(await self._environment())

    async def write(self, share_percent: int, *, expected: int | None, group_id: str, title: str) -> FlagShare:
        """Set share, hash group and title, and return what the flag says afterwards.

        Raises:
            FlagMoved: the flag has another share than *expected*.
            FlagForbidden, FlagNotWritten: nothing was written, or it could not be read back.

        """
        refusal: str | None = None
        for _ in range(_TRIES):
            found = await self._environment()
            now = self._share(found)
            if expected is not None and now.share_percent not in {expected, share_percent}:
                raise FlagMoved(now.share_percent)
            refusal = await self._set(found, share_percent, group_id, title)
            if refusal is None:
                await self._switch(found, to_on=share_percent > 0)
                back = self._share(await self._environment())
                if (back.share_percent, back.group_id) == (share_percent, group_id):
                    return replace(back, event_id=await self._newest_event())
        raise FlagNotWritten(refusal or "the flag was changed by somebody else each time it was to be written")

    async def _newest_event(self) -> str:
        """Return the id of the flag's newest event in Unleash's own log; empty where that cannot be read."""
        try:
            response = await self._client.get(
                "/admin/search/events", params={"feature": f"IS:{self._flag}", "limit": "1"}
            )
            return str(msgspec.json.decode(response.content, type=_Events).events[0].id)
        except (httpx.HTTPError, msgspec.MsgspecError, IndexError):
            return ""

    async def _set(self, found: _Environment, share_percent: int, group_id: str, title: str) -> str | None:
        """Write the strategy; return why Unleash did not take it, as when somebody was quicker; None: it did."""
        strategy = found.rollout()
        parameters = {"rollout": str(share_percent), "stickiness": "userId", "groupId": group_id}
        if strategy is None:
            body = {"name": ROLLOUT_STRATEGY, "title": title, "parameters": parameters, "constraints": []}
            await self._send("POST", "/strategies", body)
            return None
        parameters["stickiness"] = strategy.parameters.get("stickiness", "userId")
        operations = [
            {"op": "test", "path": "/parameters/rollout", "value": strategy.parameters.get("rollout", "100")},
            {"op": "replace", "path": "/parameters", "value": strategy.parameters | parameters},
            {"op": "add", "path": "/title", "value": title},
        ]
        response = await self._send("PATCH", f"/strategies/{strategy.id}", operations, may_conflict=True)
        return None if response.is_success else f"Unleash answered {response.status_code}: {_message(response)}"

    async def _switch(self, found: _Environment, *, to_on: bool) -> None:
        if found.enabled != to_on:
            await self._send("POST", "/on" if to_on else "/off")

    async def _environment(self) -> _Environment:
        response = await self._send("GET", "")
        try:
            return msgspec.json.decode(response.content, type=_Environment)
        except msgspec.MsgspecError as exc:
            raise FlagNotWritten(f"Unleash answered no environment of the flag: {exc}") from exc

    async def _send(self, method: str, path: str, body: Any = None, *, may_conflict: bool = False) -> httpx.Response:
        try:
            response = await self._client.request(method, self._path + path, json=body)
        except httpx.HTTPError as exc:
            raise FlagNotWritten(f"Unleash cannot be reached: {type(exc).__name__}") from exc
        if response.status_code in {401, 403}:
            raise FlagForbidden(
                f"Unleash answered {response.status_code}: the admin token may not change this flag, "
                "or the environment takes changes only as change requests"
            )
        if response.status_code == 404:
            raise FlagForbidden(f"Unleash does not know the flag {self._flag} in this project and environment")
        if response.is_error and not (may_conflict and response.status_code in {400, 409}):
            raise FlagNotWritten(f"Unleash answered {response.status_code}")
        return response

    def _share(self, found: _Environment) -> FlagShare:
        strategy = found.rollout()
        if strategy is None:
            return FlagShare(100 if found.enabled and not found.strategies else 0, self._flag)
        text = strategy.parameters.get("rollout", "0")
        share = int(text) if text.isascii() and text.isdecimal() and int(text) <= 100 else 0
        return FlagShare(
            share if found.enabled else 0, strategy.parameters.get("groupId") or self._flag, strategy.title or ""
        )
