"""``rerank-canary demo`` as its reader runs it, at its fastest, with somebody who looks at the dashboard meanwhile."""

from __future__ import annotations

import os
import re
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.conftest import require_part
from tests.parts.browser import DESKTOP, Browser, barriers, is_browser_here, keep
from tests.parts.programs import eventually
from tests.running import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

STAGE_SECONDS = os.environ.get("DEMO_STAGE_SECONDS", "2")


class Demo:
    def __init__(self, folder: Path) -> None:
        self.out = folder / "demo.out"
        with self.out.open("w") as out:
            command = [str(ROOT / ".venv/bin/rerank-canary"), "demo", "--no-browser", "--stage-seconds", STAGE_SECONDS]
            env = {"PATH": os.environ["PATH"], "HOME": str(folder), "TMPDIR": str(folder), "COLUMNS": "160"}
            env["PYTHONUNBUFFERED"] = "1"
            self.process = subprocess.Popen(command, cwd=folder, env=env, stdout=out, stderr=subprocess.STDOUT)

    def says(self, pattern: str) -> str:
        """Wait until it said something, and return that."""

        def said() -> str | None:
            found = re.search(pattern, self.out.read_text())
            return found.group(1) if found else None

        found = eventually(said, timeout_seconds=120)
        assert found is not None, self.out.read_text()
        return found


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Demo]:
    made = Demo(tmp_path)
    yield made
    if made.process.poll() is None:
        made.process.kill()
    made.process.wait(30)


def test_the_demo_is_found_out_rolled_back_mended_and_ramped_to_everybody(demo: Demo, tmp_path: Path) -> None:
    require_part("chromium and axe-core", found=is_browser_here())
    url, token = demo.says(r"(http://\S+)/ui"), demo.says(r"sign in with\s+(\S+)")
    with Browser(url) as browser:
        page = browser.page(DESKTOP, token)
        page.get_by_role("heading", name="Rolled back").wait_for(timeout=90_000)
        page.get_by_role("link", name="Look at the rollback").click()
        page.get_by_text("verdict: the guard rolls back").wait_for()
        assert page.get_by_role("row").filter(has_text="p95").count() == 1
        assert barriers(page) == []
        keep(page, DESKTOP, "demo-rollback")
        page.goto(f"{url}/ui")
        page.get_by_role("heading", name="Ramping at 100 %").wait_for(timeout=90_000)
        keep(page, DESKTOP, "demo")
        assert browser.wrong == []
        page.context.close()
        assert demo.process.wait(120) == 0, demo.out.read_text()
    text = demo.out.read_text()
    assert re.search(r"rolled back by the guard [\d.]+ s after the fault began: p95", text)
    assert "of which failed 0" in text
    assert "everybody has the candidate" in text
    assert re.search(r"saved\s+│ \$0\.\d+", text)
    assert [each.name for each in tmp_path.glob("rerank-canary-demo-*")] == []
