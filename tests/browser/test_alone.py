"""One proxy with what it brings along: no Unleash, no Redis, nobody judging, and nothing in the past."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from tests.conftest import require_part
from tests.parts.browser import PHONE, Browser, barriers, is_browser_here, keep
from tests.parts.callers import QUICK
from tests.running import Proxy

if TYPE_CHECKING:
    from pathlib import Path


def test_a_rollout_alone_goes_from_nothing_to_promoted(tmp_path: Path) -> None:
    """One proxy with what it brings along, nobody judging, and a plan of one second."""
    require_part("chromium and axe-core", found=is_browser_here())
    stages = json.dumps([{"share_percent": 100, "bake_seconds": 1}])
    env = QUICK | {"RERANK_CANARY__RAMP__STAGES": stages, "RERANK_CANARY__FLAG__INITIAL_SHARE_PERCENT": "0"}
    with Proxy(tmp_path, env) as proxy, Browser(proxy.control_url) as browser:
        token = (tmp_path / "var/control.token").read_text().strip()
        page = browser.page(PHONE, token)
        page.get_by_role("heading", name="Dark").wait_for()
        page.get_by_text("The guard is off.").first.wait_for()
        assert barriers(page) == []
        keep(page, PHONE, "empty")
        page.get_by_role("link", name="100 %…").click()
        page.get_by_role("button", name="Move to 100 %").click()
        page.get_by_role("heading", name="Promoted").wait_for()
        keep(page, PHONE, "promoted")
        assert barriers(page) == []
        assert browser.wrong == []
        page.context.close()
