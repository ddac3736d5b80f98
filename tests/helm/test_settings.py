"""What the chart tells the proxy is what the proxy reads: variables and TOML of each example, by its own loader."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest

from proxy.backends import CrossEncoderBackend, LlmBackend, RemoteBackend
from proxy.configuration import load
from proxy.otel import protocols_of
from proxy.receivers import PagerDutyReceiver
from proxy.secrets import Secret, hash_key
from tests.helm.charts import EXAMPLES, one, pods, rendered
from tests.running import Proxy

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from proxy.settings import Settings

SECRETS = {
    "OPENAI_API_KEY": "sk-test",
    "REDIS_URL": "rediss://:password@redis.example.com:6380/0",
    "UNLEASH_API_TOKEN": "default:production.token",
    "UNLEASH_ADMIN_TOKEN": "*:*.token",
    "RERANK_CANARY__AUTH__DATA_KEYS": json.dumps([hash_key("data")]),
    "RERANK_CANARY__AUTH__CONTROL_TOKENS": json.dumps([{"name": "olga", "key": hash_key("olga"), "role": "operator"}]),
    "RERANK_CANARY__IDENTITY__SALT": "salt",
    "OTEL_EXPORTER_OTLP_HEADERS": "api-key=abc",
    "RERANK_CANARY__ALERTS__RECEIVERS__ON_CALL__ROUTING_KEY": "routing",
}
"""What stands in the Secrets, by the variable that it becomes."""


def told(values: Mapping[str, object] | str, folder: Path, pod: str = "Deployment/rc-rerank-canary") -> dict[str, str]:
    """Return the variables of a pod, with its TOML in a file of *folder*."""
    found = rendered(values)
    [container] = pods(found)[pod]["containers"]
    env = {each["name"]: each.get("value", SECRETS.get(each["name"], "?")) for each in container["env"]}
    file = folder / "rerank-canary.toml"
    file.write_text(one(found, "ConfigMap", "rc-rerank-canary")["data"]["rerank-canary.toml"])
    assert env["RERANK_CANARY_CONFIG"] == "/etc/rerank-canary/rerank-canary.toml"
    return env | {"RERANK_CANARY_CONFIG": str(file)}


def settings_of(values: Mapping[str, object] | str, folder: Path) -> Settings:
    return load(told(values, folder))


@pytest.mark.parametrize("example", EXAMPLES)
def test_the_proxy_reads_every_example(example: str, tmp_path: Path) -> None:
    env = told(example, tmp_path)
    settings = load(env)
    protocols_of(env)
    assert str(settings.data_dir) == "/data"
    assert (settings.server.host, settings.server.port) == ("0.0.0.0", 8080)  # noqa: S104 - in its pod
    assert settings.server.control_port == 8081
    assert settings.server.grace_seconds > settings.deadline.total_seconds


def test_every_value_of_the_full_example_arrives(tmp_path: Path) -> None:
    settings = settings_of("full", tmp_path)
    assert settings.flag.url == "https://unleash.example.com:8443/api"
    assert (settings.flag.project, settings.flag.admin_environment) == ("search", "production")
    assert settings.flag.token == Secret("default:production.token")
    assert settings.flag.admin_token == Secret("*:*.token")
    assert settings.store.url == Secret(SECRETS["REDIS_URL"])
    assert settings.identity.salt == Secret("salt")
    assert settings.auth.data_keys == (hash_key("data"),)
    assert settings.auth.control_tokens[0].name == "olga"
    gpt = settings.backend("gpt")
    assert isinstance(gpt, LlmBackend)
    on_call = settings.alerts.receivers["on_call"]
    assert isinstance(on_call, PagerDutyReceiver)
    assert on_call.routing_key == Secret("routing")
    assert [stage.share_percent for stage in settings.ramp.stages] == [5, 100]
    assert gpt.api_key == Secret("sk-test")


def test_the_model_is_told_its_device_and_its_threads(tmp_path: Path) -> None:
    values = {
        "gpu": {"enabled": True},
        "model": {"name": "/models/mine", "claim": "models"},
        "resources": {"limits": {"cpu": "6"}},
    }
    candidate = settings_of(values, tmp_path).backend("cross-encoder")
    assert isinstance(candidate, CrossEncoderBackend)
    assert (candidate.model, candidate.device, candidate.threads) == ("/models/mine", "cuda", 6)


def test_threads_of_the_configuration_go_before_the_limit(tmp_path: Path) -> None:
    config = '[backends.cross-encoder]\nkind = "cross-encoder"\nthreads = 1\n'
    candidate = settings_of({"config": config}, tmp_path).backend("cross-encoder")
    assert isinstance(candidate, CrossEncoderBackend)
    assert candidate.threads == 1


def test_the_configuration_may_bind_the_arms_anew(tmp_path: Path) -> None:
    tei = '[arms]\ncandidate = "tei"\n[backends.tei]\nkind = "remote"\napi = "tei"\nbase_url = "http://tei"\n'
    settings = settings_of({"model": {"name": ""}, "config": tei}, tmp_path)
    assert isinstance(settings.backend(settings.arms.candidate), RemoteBackend)


def test_the_control_plane_listens_outside_only_with_tokens(tmp_path: Path) -> None:
    assert settings_of("minimal", tmp_path).server.control_host == "127.0.0.1"
    with_tokens = settings_of({"secrets": {"controlTokens": {"name": "keys"}}}, tmp_path)
    assert with_tokens.server.control_host == with_tokens.server.host


def test_without_keys_whoever_reaches_the_port_may_call_and_with_keys_nobody_else(tmp_path: Path) -> None:
    assert settings_of("minimal", tmp_path).auth.allow_anonymous
    keyed = settings_of({"secrets": {"dataKeys": {"name": "keys"}}}, tmp_path)
    assert keyed.auth.data_keys
    assert not keyed.auth.allow_anonymous


@pytest.mark.parametrize("pod", ["Job/rc-rerank-canary-create-flag", "CronJob/rc-rerank-canary-nightly"])
def test_jobs_read_the_same_flag_and_store(pod: str, tmp_path: Path) -> None:
    served, run = load(told("full", tmp_path)), load(told("full", tmp_path, pod))
    assert (run.flag, run.store, run.identity) == (served.flag, served.store, served.identity)


def test_a_proxy_starts_by_what_the_chart_says(tmp_path: Path) -> None:
    (tmp_path / "chart").mkdir()
    env = told("minimal", tmp_path / "chart")
    of_the_place = re.compile(r"HOME$|__SERVER__|__DATA_DIR$")
    env = {name: value for name, value in env.items() if not of_the_place.search(name)}
    with Proxy(tmp_path / "proxy", env) as proxy:
        answer = proxy.rerank(headers={"x-user-id": "ada"})
        assert answer.status_code == 200
        ready: dict[str, Any] = proxy.logged("server.ready")[0]
    assert ready["store"] == "embedded"
