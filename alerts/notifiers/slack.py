"""Slack, by an incoming webhook; Mattermost and others take the same."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from alerts.alert import Severity
from alerts.notifiers.base import headline, span, web_links
from alerts.notifiers.http import post

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    import httpx

    from alerts.alert import Alert

_LONGEST_HEADER = 150
_LONGEST_SECTION = 3000
_MOST_SECTIONS = 46
"""Slack takes 50 blocks: these, a header, a line of times and one of links."""


class Slack:
    """Writes one message when an alert begins and one when it is over: Slack folds nothing."""

    takes_updates = False
    repost_seconds = None

    def __init__(
        self, name: str, url: str, client: httpx.AsyncClient, *, severities: Collection[Severity] = tuple(Severity)
    ) -> None:
        """Take the webhook's *url*, which is a secret."""
        self.name = name
        self.severities = frozenset(severities)
        self._url = url
        self._client = client

    async def send(self, alert: Alert) -> None:
        """Write the message."""
        await post(self._client, self._url, msgspec.json.encode(message(alert)))


def message(alert: Alert) -> dict[str, Any]:
    """Return *alert* as a message: its text is what a notification shows."""
    facts = [f"*{_escaped(label, 200)}:* {_escaped(text, _LONGEST_SECTION - 300)}" for label, text in alert.facts]
    links = [f"<{_escaped(_in_link(url), 2000)}|{_escaped(label, 200)}>" for label, url in web_links(alert).items()]
    header = {"type": "header", "text": {"type": "plain_text", "text": _cut(headline(alert), _LONGEST_HEADER)}}
    times = {
        "type": "context",
        "elements": [{"type": "mrkdwn", "text": f"{_escaped(alert.flag, 500)} · {span(alert)}"}],
    }
    sections = [*_sections(facts, "\n")[:_MOST_SECTIONS], *_sections(links, " · ")[:1]]
    return {"text": _escaped(headline(alert), _LONGEST_SECTION), "blocks": [header, times, *sections]}


def _sections(parts: Iterable[str], between: str) -> list[dict[str, Any]]:
    """Return the parts in as few sections as hold them."""
    texts: list[str] = []
    for part in parts:
        if texts and len(texts[-1]) + len(between) + len(part) <= _LONGEST_SECTION:
            texts[-1] += between + part
        else:
            texts.append(part)
    return [{"type": "section", "text": {"type": "mrkdwn", "text": text}} for text in texts]


def _escaped(text: str, longest: int) -> str:
    """Return *text* as it is read, with at most *longest* characters: no entity is cut in two."""
    escaped = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    if len(escaped) <= longest:
        return escaped
    kept = escaped[: longest - 1]
    begun = kept.rfind("&", len(kept) - 4)  # an entity has at most five characters
    if begun >= 0 and ";" not in kept[begun:]:
        kept = kept[:begun]
    return kept + "…"


def _cut(text: str, longest: int) -> str:
    return text if len(text) <= longest else text[: longest - 1] + "…"


def _in_link(url: str) -> str:
    return url.replace("|", "%7C").replace("<", "%3C").replace(">", "%3E")
