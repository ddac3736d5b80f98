"""LiteLLM's proxy, the measure of ours: installed on first use in an environment of its own, set up to be fast."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tests.perf.servers import CACHE, PORTS, Server

if TYPE_CHECKING:
    from rich.console import Console

_PINNED = Path(__file__).with_name("requirements-litellm.txt")
_VENV = CACHE / "litellm"
_ENV = {
    "LITELLM_MODE": "PRODUCTION",
    "LITELLM_LOG": "ERROR",
    "LITELLM_TELEMETRY": "False",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # else it fetches a price list when it starts
    "NO_DOCS": "True",
    # on loopback, for the minutes of the measurement; ours checks no key there either
    "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true",
}
_CONFIG = """model_list:
  - model_name: rerank
    litellm_params:
      model: cohere/rerank
      api_base: http://127.0.0.1:{port}
      api_key: none
litellm_settings:
  telemetry: false
  set_verbose: false
  num_retries: 0
router_settings:
  num_retries: 0
  disable_cooldowns: true
general_settings:
  disable_spend_logs: true
"""


def install(console: Console) -> None:
    """Install it unless it is there as pinned."""
    stamp = _VENV / "installed"
    if stamp.exists() and stamp.read_bytes() == _PINNED.read_bytes():
        return
    console.print(f"installing LiteLLM into {_VENV}: some 600 MB, a minute or two")
    shutil.rmtree(_VENV, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", str(_VENV)], check=True)
    pip = [str(_VENV / "bin/python"), "-m", "pip", "--disable-pip-version-check", "--quiet", "install"]
    subprocess.run([*pip, "-r", str(_PINNED)], check=True)
    stamp.write_bytes(_PINNED.read_bytes())


def version() -> str:
    """Return the pinned version."""
    lines = _PINNED.read_text(encoding="utf-8").splitlines()
    return next(line.removeprefix("litellm==") for line in lines if line.startswith("litellm=="))


def litellm(folder: Path, stub_port: int) -> Server:
    """Return it in front of the server on *stub_port*: one worker, no key, no database, no log of requests."""
    folder.mkdir(parents=True, exist_ok=True)
    port = next(PORTS)
    file = folder / "config.yaml"
    file.write_text(_CONFIG.format(port=stub_port), encoding="utf-8")
    command = [str(_VENV / "bin/litellm"), "--config", str(file), "--host", "127.0.0.1", "--port", str(port)]
    return Server(folder, [*command, "--num_workers", "1"], port, env=_ENV, ready="/health/readiness")
