"""The proxy: wire, arms, engine, serving. Depends on `alerts`, which depends on `flags`, never the other way."""

import sys

# OpenVINO's import makes a client id and reports the use of it to its makers; without this package it does neither
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # None: an import of it fails
