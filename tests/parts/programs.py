"""Programs that the tests start, and end by their own process ids; and the wait for what they do."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Self, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

T = TypeVar("T")


def eventually(ask: Callable[[], T], *, timeout_seconds: float = 30, every_seconds: float = 0.05) -> T:
    """Return the first true answer of *ask*; an AssertionError in it counts as not yet.

    Raises:
        AssertionError: there was none in time.

    """
    end = time.monotonic() + timeout_seconds
    while True:
        try:
            answer = ask()
        except AssertionError:
            if time.monotonic() > end:
                raise
        else:
            if answer:
                return answer
            assert time.monotonic() < end, f"not in {timeout_seconds} s; the last answer was {answer!r}"
        time.sleep(every_seconds)


def programs_in(folder: Path) -> list[int]:
    """Return the ids of the processes that work in *folder*, zombies left out."""
    return [
        int(entry.name)
        for entry in Path("/proc").glob("[0-9]*")
        if is_running(int(entry.name)) and _works_in(entry) == folder.resolve()
    ]


def is_running(pid: int) -> bool:
    """Tell whether a process is there and no zombie."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def _works_in(entry: Path) -> Path | None:
    with contextlib.suppress(OSError):
        return (entry / "cwd").readlink()
    return None


class Program:
    """One process that can be started again, frozen and killed."""

    def __init__(
        self, command: Sequence[str], *, log: Path, env: Mapping[str, str] | None = None, user: str | None = None
    ) -> None:
        self._command = [*_dies_with_the_tests(), *command]
        self._log = log
        self._env = {"PATH": os.environ["PATH"], "TZ": "UTC", "LANG": "C.UTF-8", **(env or {})}
        self._user = user
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def start(self) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                cwd="/",
                env=self._env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for the tests
                user=self._user,
                group=self._user,
                extra_groups=[] if self._user else None,
            )

    def wait_until(self, is_up: Callable[[], bool], *, timeout_seconds: float = 60) -> None:
        """Wait for *is_up*; raise with the program's last words if it ends before."""

        def answers() -> bool:
            assert self._process is not None
            if self._process.poll() is not None:
                raise RuntimeError(f"{' '.join(self._command)} ended:\n{self.log[-3000:]}")
            return is_up()

        eventually(answers, timeout_seconds=timeout_seconds)

    def freeze(self) -> None:
        """Let connections to it hang."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """End it, by force if it takes too long. Nothing happens where it is over."""
        if self._process is None or self._process.poll() is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)
            self.thaw()
        try:
            self._process.wait(15)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(15)


def _dies_with_the_tests() -> list[str]:
    """Return a prefix that ends the program even if the tests are killed; nothing where the system has none."""
    return ["setpriv", "--pdeathsig", "INT"] if shutil.which("setpriv") else []
