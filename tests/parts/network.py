"""Hosts of their own for proxies: network namespaces behind a bridge, whose packets can be dropped."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING, Self

from tests.running import Proxy

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


def are_namespaces_here() -> bool:
    """Tell whether this process may make hosts."""
    if os.geteuid() != 0 or not (shutil.which("ip") and shutil.which("iptables")):
        return False
    name = f"rc-probe-{os.getpid()}"
    made = subprocess.run(["ip", "netns", "add", name], check=False, capture_output=True).returncode == 0
    if made:
        _run("ip", "netns", "delete", name)
    return made


class Network:
    """A bridge, which is where the shared servers listen, and hosts that reach each other over it."""

    def __init__(self, hosts: int) -> None:
        self._id = os.getpid() % 250
        self._net = f"10.231.{self._id}"
        self.address = f"{self._net}.1"
        self._bridge = f"rcb{self._id}"
        self._hosts = hosts

    def __enter__(self) -> Self:
        _run("ip", "link", "add", self._bridge, "type", "bridge")
        _run("ip", "address", "add", f"{self.address}/24", "dev", self._bridge)
        _run("ip", "link", "set", self._bridge, "up")
        for number in range(self._hosts):
            name, cable = self._name(number), f"rc{self._id}v{number}"
            _run("ip", "netns", "add", name)
            _run("ip", "link", "add", cable, "type", "veth", "peer", "name", "eth0", "netns", name)
            _run("ip", "link", "set", cable, "master", self._bridge, "up")
            self._inside(number, "ip", "address", "add", f"{self._address(number)}/24", "dev", "eth0")
            self._inside(number, "ip", "link", "set", "eth0", "up")
            self._inside(number, "ip", "link", "set", "lo", "up")
        return self

    def __exit__(self, *_: object) -> None:
        for number in range(self._hosts):
            _run("ip", "netns", "delete", self._name(number))
        _run("ip", "link", "delete", self._bridge)

    def proxy(self, number: int, folder: Path, env: Mapping[str, str]) -> Proxy:
        """Return a proxy that is to run on a host."""
        inside = ("ip", "netns", "exec", self._name(number))
        anybody = {"RERANK_CANARY__AUTH__ALLOW_ANONYMOUS": "true"}
        return Proxy(folder, {**env, **anybody}, host=self._address(number), prefix=inside)

    def cut(self, number: int, *ports: int) -> None:
        """Drop what a host sends to these ports of the shared servers, without a word to it."""
        for port in ports:
            self._inside(number, *self._rule("-A", port))

    def mend(self, number: int) -> None:
        """Let everything through again."""
        self._inside(number, "iptables", "-F", "OUTPUT")

    def _rule(self, how: str, port: int) -> list[str]:
        to = ["-d", self.address, "-p", "tcp", "--dport", str(port)]
        return ["iptables", how, "OUTPUT", *to, "-j", "DROP"]

    def _inside(self, number: int, *command: str) -> None:
        _run("ip", "netns", "exec", self._name(number), *command)

    def _name(self, number: int) -> str:
        return f"rc-{self._id}-{number}"

    def _address(self, number: int) -> str:
        return f"{self._net}.{10 + number}"


def _run(*command: str) -> None:
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
