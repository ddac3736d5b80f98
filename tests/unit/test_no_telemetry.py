"""Nobody but those who were configured is told of what runs here."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def test_openvino_makes_no_client_id_and_reports_to_nobody(tmp_path: Path) -> None:
    look = "print([name for name in sys.modules if name.startswith('openvino_telemetry.')])"
    code = f"import proxy.engine.openvino_engine, sys; {look}"
    env = {**os.environ, "HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "[]\n"
    assert list(tmp_path.iterdir()) == []
