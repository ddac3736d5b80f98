from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from proxy.configuration import is_loopback, load
from proxy.errors import Forbidden, InvalidSettings, Unauthorized
from proxy.keys import Keys, presented_key, token_of
from proxy.secrets import Secret, hash_key, new_key, read_or_create
from proxy.settings import Auth, CrossEncoderBackend, LlmBackend, RemoteBackend

if TYPE_CHECKING:
    from pathlib import Path

KEY = hash_key("k")


def test_nothing_configured_is_a_valid_configuration() -> None:
    settings = load({})
    assert settings.server.port == 8080
    assert isinstance(settings.backend("gpt"), LlmBackend)
    assert isinstance(settings.backend("cross-encoder"), CrossEncoderBackend)


def test_the_plans_toggles_keep_their_names_and_win(tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    file.write_text('[arms]\nuse_candidate = true\n[backends.cross-encoder]\nkind = "cross-encoder"\nmodel = "a"\n')
    env = {
        "USE_CROSS_ENCODER": "False",
        "RERANK_MODEL": "b",
        "DEVICE": "cpu",
        "RERANK_BATCH": "32",
        "LLM_FALLBACK_THRESHOLD": "0.25",
        "TOP_N": "10",
        "RERANK_CANARY__ARMS__USE_CANDIDATE": "true",
    }
    settings = load(env, file)
    candidate = settings.backend("cross-encoder")
    assert isinstance(candidate, CrossEncoderBackend)
    assert (settings.arms.use_candidate, settings.arms.top_n, settings.fallback.threshold) == (False, 10, 0.25)
    assert (candidate.model, candidate.device, candidate.batch) == ("b", "cpu", 32)


def test_variables_reach_any_field_and_lists_are_json(tmp_path: Path) -> None:
    env = {
        "RERANK_CANARY__SERVER__PORT": "9",
        "RERANK_CANARY__AUTH__DATA_KEYS": f'["{KEY}"]',
        "RERANK_CANARY__BACKENDS__TEI__KIND": "remote",
        "RERANK_CANARY__BACKENDS__TEI__API": "tei",
        "RERANK_CANARY__BACKENDS__TEI__BASE_URL": "http://tei",
        "RERANK_CANARY__ARMS__CANDIDATE": "tei",
        "RERANK_CANARY__DATA_DIR": str(tmp_path),
    }
    settings = load(env)
    assert (settings.server.port, settings.auth.data_keys, settings.data_dir) == (9, (KEY,), tmp_path)
    assert isinstance(settings.backend("tei"), RemoteBackend)


def test_the_openai_variables_serve_every_language_model_without_its_own() -> None:
    env = {"OPENAI_API_KEY": "sk-1", "OPENAI_BASE_URL": "http://llm/v1"}
    backend = load(env).backend("gpt")
    assert isinstance(backend, LlmBackend)
    assert (backend.api_key, backend.base_url) == (Secret("sk-1"), "http://llm/v1")


@pytest.mark.parametrize(
    ("env", "place"),
    [
        ({"RERANK_CANARY__SERVER__PROT": "1"}, "prot"),
        ({"RERANK_CANARY__SERVER__PORT": "70000"}, "$.server.port"),
        ({"RERANK_CANARY__SERVER__PORT": "x"}, "$.server.port"),
        ({"RERANK_CANARY__SERVER": "x"}, "$.server"),
        ({"RERANK_CANARY__FALLBACK__MAX_SHARE": "1.5"}, "$.fallback.max_share"),
        ({"USE_CROSS_ENCODER": "perhaps"}, "$.arms.use_candidate"),
        ({"RERANK_BATCH": "0"}, "batch"),
        ({"DEVICE": "tpu"}, "device"),
        ({"RERANK_CANARY__ARMS__CONTROL": "nobody"}, "$.arms.control"),
        ({"RERANK_CANARY__DEADLINE__CANDIDATE_SECONDS": "99"}, "$.deadline.candidate_seconds"),
        ({"RERANK_CANARY__AUTH__DATA_KEYS": '["plain"]'}, "$.auth.data_keys[0]"),
        ({"RERANK_CANARY__IDENTITY__USER": '["cookie:x"]'}, "$.identity"),
        ({"RERANK_CANARY__SERVER__HOST": "0.0.0.0"}, "$.auth.data_keys"),  # noqa: S104 - refused
        ({"RERANK_CANARY__SERVER__CONTROL_HOST": "::"}, "$.auth.control_tokens"),
        ({"RERANK_CANARY__ARMS__CANDIDATE": "gpt", "LLM_FALLBACK_THRESHOLD": "0.1"}, "$.fallback.threshold"),
        ({"RERANK_CANARY_CONFIG": "/does/not/exist.toml"}, "/does/not/exist.toml"),
    ],
    ids=lambda v: "+".join(v) if isinstance(v, dict) else "",
)
def test_what_cannot_be_used_is_named(env: dict[str, str], place: str) -> None:
    with pytest.raises(InvalidSettings) as caught:
        load(env)
    assert place in str(caught.value)


def test_a_file_with_a_syntax_error_is_named(tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    file.write_text("[server\n")
    with pytest.raises(InvalidSettings, match=r"c\.toml"):
        load({}, file)


def test_one_key_cannot_serve_both_planes(tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    file.write_text(f'[auth]\ndata_keys = ["{KEY}"]\n[[auth.control_tokens]]\nname = "a"\nkey = "{KEY}"\n')
    with pytest.raises(InvalidSettings, match="both planes"):
        load({}, file)


@pytest.mark.parametrize(
    ("host", "is_local"),
    [("127.0.0.1", True), ("::1", True), ("localhost", True), ("10.0.0.1", False), ("proxy", False)],
)
def test_only_loopback_goes_without_keys(host: str, is_local: bool) -> None:  # noqa: FBT001 - a table
    assert is_loopback(host) is is_local


def test_a_secret_is_never_shown() -> None:
    settings = load({"OPENAI_API_KEY": "sk-very-secret", "REDIS_URL": "redis://:hidden@h"})
    assert "sk-very-secret" not in repr(settings)
    assert "hidden" not in repr(settings)


def test_a_made_secret_is_kept_and_only_its_owner_may_read_it(tmp_path: Path) -> None:
    first = read_or_create(tmp_path / "d" / "salt")
    assert read_or_create(tmp_path / "d" / "salt") == first
    assert (tmp_path / "d" / "salt").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": "Bearer k"},
        {"authorization": "bearer k"},
        {"authorization": "BEARER  k"},
        {"authorization": "k"},
        {"x-api-key": "k"},
        {"api-key": "k"},
    ],
    ids=str,
)
def test_a_key_is_found_wherever_clients_put_it(headers: dict[str, str]) -> None:
    assert presented_key(headers) == "k"


def test_any_of_several_data_keys_opens_and_no_other() -> None:
    keys = Keys(Auth(data_keys=(hash_key("a"), hash_key("b"))), [])
    keys.check_data("a")
    keys.check_data("b")
    for wrong in ("", "c", hash_key("a")):
        with pytest.raises(Unauthorized):
            keys.check_data(wrong)


def test_roles_on_the_control_plane_include_the_lower_ones() -> None:
    tokens = [token_of(role, f"key-{role}", role) for role in ("viewer", "operator", "admin")]
    keys = Keys(Auth(), tokens)
    assert keys.check_control("key-admin", "operator").name == "admin"
    assert keys.check_control("key-viewer").name == "viewer"
    with pytest.raises(Forbidden, match="takes the role operator"):
        keys.check_control("key-viewer", "operator")
    with pytest.raises(Unauthorized):
        keys.check_control("unknown")


def test_keys_are_long_and_never_twice_the_same() -> None:
    assert len({new_key() for _ in range(100)}) == 100
    assert len(new_key()) > 40
