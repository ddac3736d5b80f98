"""A real Chromium that notes whatever a page should not do."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from playwright.sync_api import sync_playwright

if TYPE_CHECKING:
    from collections.abc import Mapping

    from playwright.sync_api import Page, Request

_AXE = Path(__file__).parent / ".cache/browser/node_modules/axe-core/axe.min.js"
_CHROMIUM = shutil.which("chromium")
_SHOTS = Path(__file__).parents[1] / "browser/screenshots"


class Look(NamedTuple):
    """How somebody looks."""

    name: str
    width: int
    height: int
    scheme: str


DESKTOP = Look("desktop", 1280, 900, "light")
PHONE = Look("phone", 390, 844, "dark")


def is_browser_here() -> bool:
    """Tell whether there is one, and what checks a page for those who cannot see it."""
    return _CHROMIUM is not None and _AXE.exists()


class Browser:
    """Opens pages of one control plane."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.wrong: list[str] = []
        """Errors of the console, and requests to anybody else."""

    def __enter__(self) -> Self:
        self._playwright = sync_playwright().start()
        self._browser = self._playwright.chromium.launch(executable_path=_CHROMIUM, args=["--no-sandbox"])
        return self

    def __exit__(self, *_: object) -> None:
        self._browser.close()
        self._playwright.stop()

    def page(self, look: Look, key: str | None = "adam-key") -> Page:
        """Return a page of a new browser profile, signed in with *key*."""
        size: Any = {"width": look.width, "height": look.height}
        context = self._browser.new_context(viewport=size, color_scheme=look.scheme)  # type: ignore[arg-type]
        page = context.new_page()
        page.set_default_timeout(30_000)
        page.on(
            "console", lambda m: self.wrong.append(f"console: {m.text}") if m.type in {"error", "warning"} else None
        )
        page.on("pageerror", lambda error: self.wrong.append(f"script: {error}"))
        page.on("request", self._note)
        if key is not None:
            page.goto(f"{self.url}/ui")
            page.get_by_label("Control token").fill(key)
            page.keyboard.press("Enter")
            page.wait_for_url(f"{self.url}/ui")
        return page

    def _note(self, request: Request) -> None:
        if not request.url.startswith((self.url, "data:")):
            self.wrong.append(f"elsewhere: {request.url}")


def barriers(page: Page) -> list[str]:
    """Return what axe-core finds serious or critical."""
    page.evaluate(_AXE.read_text(encoding="utf-8"))  # not as a script element, which the page rightly refuses
    found: Mapping[str, Any] = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    return [
        f"{each['id']}: {each['help']}: {[node['target'] for node in each['nodes']][:3]}"
        for each in found["violations"]
        if each["impact"] in {"serious", "critical"}
    ]


def is_too_wide(page: Page) -> bool:
    """Tell whether the page has to be pushed sideways to be read."""
    found: bool = page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth + 1")
    return found


def keep(page: Page, look: Look, name: str) -> None:
    """Keep a picture, where that is asked for."""
    if os.environ.get("KEEP_SCREENSHOTS"):
        page.screenshot(path=_SHOTS / f"{name}-{look.name}.jpg", full_page=True, type="jpeg", quality=60)
