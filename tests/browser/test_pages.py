"""The pages in a real Chromium, on a real Unleash and a real Redis: each state, each action, wide and narrow."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.conftest import require_part
from tests.integration.flags import new_flag_name
from tests.parts.browser import DESKTOP, PHONE, Browser, Look, barriers, is_browser_here, is_too_wide, keep
from tests.parts.callers import ask_all
from tests.parts.fleet import Fleet, unleash_env
from tests.parts.programs import eventually
from tests.parts.redis_server import RedisServer, is_redis_here

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from playwright.sync_api import Page

    from tests.parts.unleash import Unleash

USERS = [f"user-{i}" for i in range(60)]
_OFF = [{"name": name, "is_on": False} for name in ("p95_relative", "errors_relative")]
ENV = {
    "RERANK_CANARY__GUARD__IS_ON": "true",
    "RERANK_CANARY__GUARD__GUARDRAILS": json.dumps([*_OFF, {"name": "p95", "limit": 30.0}]),
    "RERANK_CANARY__SHADOW__IS_ON": "true",
    "RERANK_CANARY__SHADOW__CONTROL_PERCENT": "100",
}
LOOKS = pytest.mark.parametrize("look", [DESKTOP, PHONE], ids=["desktop", "phone"])
PAGES = ("/ui/incidents", "/ui/requests", "/ui/history", "/ui/replicas")


class Site:
    """Two proxies, their store and their flag, and somebody who looks."""

    def __init__(self, fleet: Fleet, redis: RedisServer, browser: Browser) -> None:
        self.fleet, self.redis, self.browser = fleet, redis, browser

    def order(self, *words: str) -> None:
        done = self.fleet.run(*words, *([] if words[0] == "hold" else ["--yes"]), actor="adam")
        assert done.code == 0, done.err
        self.fleet.wait_until_agreed()

    def begin_at(self, percent: int) -> None:
        """Bring the rollout to a share, whatever it was before."""
        if self.fleet.rollout()["phase"] == "retired":
            self.order("rollback")
        self.fleet.begin_at(percent)
        self.fleet.wait_until_agreed()

    def ask(self) -> None:
        assert {each.status for each in ask_all(self.fleet.proxies[0].url, USERS)} == {200}


@pytest.fixture(scope="module")
def site(unleash: Unleash, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    require_part("redis-server", found=is_redis_here())
    require_part("chromium and axe-core", found=is_browser_here())
    flag = new_flag_name()
    unleash.admin.create_rollout(flag, 0)
    folder = tmp_path_factory.mktemp("browser")
    with RedisServer(folder / "redis") as redis:
        env = unleash_env(unleash, flag, redis.url) | ENV
        with Fleet(folder / "fleet", 2, env, prefix=flag) as fleet, Browser(fleet.proxies[0].control_url) as browser:
            yield Site(fleet, redis, browser)


@pytest.fixture(autouse=True)
def nothing_is_wrong(site: Site) -> Iterator[None]:
    """Fail whatever test a page of which wrote an error, or asked anybody else."""
    site.browser.wrong.clear()
    yield
    assert site.browser.wrong == []


def dark(site: Site) -> None:
    site.begin_at(0)


def ramping(site: Site) -> None:
    site.begin_at(25)
    site.ask()


def held(site: Site) -> None:
    site.begin_at(50)
    site.order("hold", "--reason", "a release is going out")


def rolled_back(site: Site) -> None:
    site.begin_at(25)
    site.ask()
    site.order("rollback", "--reason", "answers are bad")


def retired(site: Site) -> None:
    site.begin_at(100)
    site.order("retire", "--force", "--reason", "done")


STATES: dict[str, tuple[Callable[[Site], None], str]] = {
    "dark": (dark, "Dark"),
    "ramping": (ramping, "Ramping at 25 %"),
    "held": (held, "Held at 50 %"),
    "retired": (retired, "Old arm retired"),
    "rolled-back": (rolled_back, "Rolled back"),
}


@pytest.mark.parametrize("state", STATES)
def test_the_rollout_is_readable_in_each_state(site: Site, state: str) -> None:
    bring, words = STATES[state]
    bring(site)
    for look in (DESKTOP, PHONE):
        page = site.browser.page(look)
        page.get_by_role("heading", name=words, exact=True).wait_for()
        page.locator("figure.chart .line").first.wait_for(state="attached")
        assert page.locator("figure.chart").count() == 10
        assert barriers(page) == []
        assert not is_too_wide(page)
        keep(page, look, state)
        page.context.close()


@LOOKS
def test_every_other_page_is_readable(site: Site, look: Look) -> None:
    ramping(site)
    page = site.browser.page(look)
    for path in PAGES:
        page.goto(site.browser.url + path)
        page.get_by_role("heading", level=1).wait_for()
        assert barriers(page) == [], path
        assert not is_too_wide(page), path
        keep(page, look, path.rpartition("/")[2])


@LOOKS
def test_a_rollback_is_told_on_a_page_of_its_own(site: Site, look: Look) -> None:
    rolled_back(site)
    page = site.browser.page(look)
    page.get_by_role("link", name="Look at the rollback").click()
    page.get_by_text("the flag says 0 %").wait_for()

    def has_plots() -> bool:
        page.reload()
        return page.locator("figure.chart").count() == 10

    assert eventually(has_plots)
    assert barriers(page) == []
    assert not is_too_wide(page)
    keep(page, look, "rollback")


@LOOKS
def test_one_request_is_drawn_with_both_orders(site: Site, look: Look) -> None:
    ramping(site)
    page = site.browser.page(look)
    page.get_by_role("link", name="Requests", exact=True).click()

    def shadowed() -> bool:
        page.reload()
        return page.get_by_role("cell", name="shadowed").count() > 0

    assert eventually(shadowed)
    page.get_by_role("row").filter(has_text="shadowed").first.get_by_role("link").click()
    page.get_by_role("heading", name="Scores of both arms").wait_for()
    assert page.locator("svg.scores .link").count() == 2
    assert barriers(page) == []
    keep(page, look, "request")


def test_what_changes_is_seen_without_a_reload(site: Site) -> None:
    site.begin_at(5)
    page = site.browser.page(DESKTOP)
    page.get_by_role("heading", name="Ramping at 5 %").wait_for()
    site.order("ramp", "25")
    page.get_by_role("heading", name="Ramping at 25 %").wait_for()
    assert page.get_by_role("status").inner_text() == "Ramping at 25 %"
    assert page.title() == "Ramping at 25 % · rerank-canary"


def test_what_somebody_reads_stays_as_it_is_while_the_page_goes_on(site: Site) -> None:
    ramping(site)
    page = site.browser.page(PHONE)
    page.evaluate("document.addEventListener('htmx:afterSwap', () => { window.swaps = (window.swaps || 0) + 1; })")
    page.locator("details.missing summary").click()
    site.ask()  # what is above the plots reads otherwise now
    assert eventually(lambda: page.evaluate("window.swaps || 0") >= 3)
    assert page.locator("details.missing").get_attribute("open") is not None
    assert page.evaluate("document.activeElement.tagName") == "SUMMARY"


def test_a_page_that_is_cut_off_says_so(site: Site) -> None:
    ramping(site)
    page = site.browser.page(DESKTOP)
    page.locator("#state .foot").wait_for()
    page.wait_for_timeout(2500)  # the stream has begun
    page.context.set_offline(True)
    page.evaluate("window.stop()")
    page.get_by_role("alert").filter(has_text="Not connected since").wait_for()
    page.context.set_offline(False)
    site.browser.wrong.clear()  # the console tells of the lost stream, as it should
    page.get_by_role("link", name="Load the page again").click()
    page.locator("#lost").wait_for(state="hidden")


def test_the_value_under_the_pointer_is_shown(site: Site) -> None:
    ramping(site)
    page = site.browser.page(DESKTOP)
    plot = page.locator("figure.chart", has_text="Requests a second").locator("svg")

    def has_line() -> bool:
        page.reload()
        return len(plot.locator(".line.control").get_attribute("d") or "") > 30

    assert eventually(has_line)
    box = plot.bounding_box()
    assert box is not None
    for step in range(1, 40):
        page.mouse.move(box["x"] + box["width"] * step / 40, box["y"] + box["height"] / 2)
        if page.locator(".readout").count():
            break
    assert "control" in page.locator(".readout").inner_text()
    page.mouse.move(1, 1)
    page.locator(".readout").wait_for(state="detached")


def by_mouse(page: Page, label: str, button: str, reason: str) -> None:
    page.get_by_role("navigation", name="Actions").get_by_role("link", name=label, exact=True).click()
    page.get_by_label("Reason").fill(reason)
    page.get_by_role("button", name=button, exact=True).click()


def by_keyboard(page: Page, label: str, button: str, reason: str) -> None:
    """Reach everything by Tab, from the top of the page."""
    page.locator("body").press("Tab")
    _tab_to(page, label)
    page.keyboard.press("Enter")
    page.get_by_label("Reason").wait_for()
    page.keyboard.type(reason)  # where the focus is when the page opens
    _tab_to(page, button)
    page.keyboard.press("Enter")


def _tab_to(page: Page, label: str) -> None:
    for _ in range(60):
        focused = page.evaluate("document.activeElement?.textContent?.trim()")
        if focused == label:
            return
        page.keyboard.press("Tab")
    pytest.fail(f"{label!r} cannot be reached by Tab")


@pytest.mark.parametrize("give", [by_mouse, by_keyboard])
def test_each_action_is_given(site: Site, give: Callable[[Page, str, str, str], None]) -> None:
    site.begin_at(5)
    page = site.browser.page(DESKTOP)
    steps = [
        ("25 %…", "Move to 25 %", "Ramping at 25 %"),
        ("Hold…", "Hold", "Held at 25 %"),
        ("Go on…", "Move to 25 %", "Ramping at 25 %"),
        ("Roll back…", "Roll back now", "Rolled back"),
        ("Re-arm…", "Re-arm", "Dark"),
        ("100 %…", "Move to 100 %", "Ramping at 100 %"),
    ]
    for label, button, state in steps:
        give(page, label, button, f"{give.__name__} {label}")
        page.get_by_role("heading", name=state, exact=True).wait_for()
    reasons = {each["reason"] for each in site.fleet.history()}
    assert {f"{give.__name__} {label}" for label, *_ in steps} <= reasons
    for label, button in (("Retire the old arm…", "Retire"),):
        page.get_by_role("link", name=label, exact=True).click()
        page.get_by_label("before the last stage is over").check()
        page.get_by_role("button", name=button, exact=True).click()
        page.get_by_role("heading", name="Old arm retired").wait_for()


def test_an_advance_too_early_is_refused_in_words_and_done_when_forced(site: Site) -> None:
    site.begin_at(5)
    page = site.browser.page(PHONE)
    page.get_by_role("link", name="Advance…").click()
    page.get_by_role("button", name="Advance").click()
    page.get_by_role("alert").get_by_text("the stage bakes for another").wait_for()
    assert [each for each in site.browser.wrong if "409" not in each] == []
    site.browser.wrong.clear()  # Chromium writes every status above 399 to its console
    page.get_by_label("before the time is over").check()
    page.get_by_role("button", name="Advance").click()
    page.get_by_role("heading", name="Ramping at 25 %").wait_for()


def test_a_viewer_has_nothing_to_press(site: Site) -> None:
    site.begin_at(5)
    page = site.browser.page(DESKTOP, "vera-key")
    page.get_by_role("heading", name="Ramping at 5 %").wait_for()
    assert page.get_by_role("navigation", name="Actions").count() == 0


def test_signing_in_is_readable_and_a_wrong_token_is_said(site: Site) -> None:
    page = site.browser.page(PHONE, None)
    page.goto(f"{site.browser.url}/ui/history")
    assert barriers(page) == []
    page.get_by_label("Control token").fill("wrong")
    page.keyboard.press("Enter")
    page.get_by_role("alert").wait_for()
    site.browser.wrong.clear()  # likewise, of the 401
    page.get_by_label("Control token").fill("olga-key")
    page.keyboard.press("Enter")
    page.wait_for_url("**/ui/history")
    page.get_by_role("button", name="Sign out").click()
    page.wait_for_url("**/ui/login")


def test_why_it_holds_is_said(site: Site, unleash: Unleash) -> None:
    site.begin_at(25)
    page = site.browser.page(DESKTOP)
    page.get_by_role("heading", name="Ramping at 25 %").wait_for()
    unleash.program.freeze()
    try:
        page.get_by_role("heading", name="Holding at 25 %").wait_for()
        page.get_by_text("Because a replica does not know the newest state of the flag.").wait_for()
        keep(page, DESKTOP, "holding")
        assert barriers(page) == []
    finally:
        unleash.program.thaw()
    page.get_by_role("heading", name="Ramping at 25 %").wait_for()


def test_with_the_store_down_the_page_says_so_and_recovers(site: Site) -> None:
    site.begin_at(25)
    page = site.browser.page(DESKTOP)
    page.get_by_role("heading", name="Ramping at 25 %").wait_for()
    site.redis.program.stop()
    try:
        page.get_by_text("The shared store cannot be reached").wait_for()
        keep(page, DESKTOP, "store-down")
        assert barriers(page) == []
        for path in PAGES:
            page.goto(site.browser.url + path)
            page.get_by_role("heading", level=1).wait_for()
    finally:
        site.redis.start()
    page.goto(f"{site.browser.url}/ui")
    page.get_by_text("The shared store cannot be reached").wait_for(state="detached")
