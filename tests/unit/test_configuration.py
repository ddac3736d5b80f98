from __future__ import annotations

from typing import TYPE_CHECKING, get_args

import pytest

from proxy.checks import is_loopback
from proxy.configuration import load
from proxy.errors import Forbidden, InvalidSettings, Unauthorized
from proxy.keys import Keys, presented_key, token_of
from proxy.secrets import Secret, hash_key, new_key, read_or_create, shown_url
from proxy.settings import Auth, CrossEncoderBackend, DialectName, LlmBackend, RemoteBackend
from proxy.wire.detect import DIALECTS

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
        ({"RERANK_CANARY__DEADLINE__CANDIDATE_SECONDS": "15"}, "fallback no time"),
        ({"RERANK_CANARY__DEADLINE__TOTAL_SECONDS": "inf"}, "$.deadline.total_seconds"),
        ({"RERANK_CANARY__DEADLINE__TOTAL_SECONDS": "nan"}, "$.deadline.total_seconds"),
        ({"RERANK_CANARY__SERVER__DRAIN_SECONDS": "inf"}, "$.server.drain_seconds"),
        ({"RERANK_CANARY__FALLBACK__MAX_DOLLARS_PER_HOUR": "inf"}, "$.fallback.max_dollars_per_hour"),
        ({"LLM_FALLBACK_THRESHOLD": "nan"}, "$.fallback.threshold"),
        ({"LLM_FALLBACK_THRESHOLD": "6.5"}, "every request would fall back"),
        ({"LLM_FALLBACK_THRESHOLD": "-1"}, "no request would ever fall back"),
        ({"RERANK_CANARY__ARMS": "5"}, "$.arms: is no table"),
        ({"RERANK_CANARY__ARMS": "5", "TOP_N": "5"}, "$.arms: is no table"),
        ({"RERANK_CANARY__ARMS__CANDIDATE": "[1]", "DEVICE": "cpu"}, "$.arms.candidate"),
        ({"RERANK_CANARY__BACKENDS": "foo"}, "$.backends: is no table"),
        ({"RERANK_CANARY__BACKENDS__TEI": "5"}, "$.backends.tei: is no table"),
        ({"RERANK_CANARY__SERVER__PORT": "5", "RERANK_CANARY__SERVER__PORT__X": "5"}, "$.server.port"),
        ({"RERANK_CANARY__WIRE__DIALECTS": '{"/v1/rerank": "jnia"}'}, "$.wire.dialects"),
        ({"RERANK_CANARY__WIRE__DIALECTS": '{"v1/rerank": "jina"}'}, "`v1/rerank`"),
        ({"UNLEASH_URL": "foo"}, "UNLEASH_URL"),
        ({"UNLEASH_URL": "unleash:4242/api"}, "UNLEASH_URL"),
        ({"UNLEASH_URL": "http:///api"}, "UNLEASH_URL"),
        ({"REDIS_URL": "foo"}, "REDIS_URL"),
        ({"REDIS_URL": "http://h"}, "REDIS_URL"),
        ({"REDIS_URL": "redis://:pw@host:notaport/0"}, "REDIS_URL"),
        ({"REDIS_URL": "unix://"}, "REDIS_URL"),
        ({"OPENAI_BASE_URL": "llm/v1"}, "$.backends.gpt.base_url"),
        ({"RERANK_CANARY__BACKENDS__GPT__STAND_IN_DELAY_SECONDS": "inf"}, "$.backends.gpt.stand_in_delay_seconds"),
        ({"RERANK_CANARY__BACKENDS__TEI__THREADS": "2"}, "$.backends.tei`"),
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


def test_a_password_in_a_url_that_is_refused_is_not_shown() -> None:
    for url in ("redis://:hunter2@host:notaport/0", "http://:hunter2@host", "redis://:hunter2@"):
        with pytest.raises(InvalidSettings) as caught:
            load({"REDIS_URL": url})
        assert "hunter2" not in str(caught.value)


def test_a_reserve_that_leaves_control_no_time_is_refused_and_a_smaller_one_named() -> None:
    env = {"RERANK_CANARY__DEADLINE__TOTAL_SECONDS": "1", "RERANK_CANARY__DEADLINE__CANDIDATE_SECONDS": "0.5"}
    with pytest.raises(InvalidSettings, match=r"\$\.deadline\.reserve_seconds: 1 s .* set it to 0\.5 or less"):
        load(env)
    assert load({**env, "RERANK_CANARY__DEADLINE__RESERVE_SECONDS": "0.5"}).deadline.total_seconds == 1


@pytest.mark.parametrize(
    "unused",
    [{"RERANK_CANARY__FALLBACK__ON_CONTROL_FAILURE": "error"}, {"USE_CROSS_ENCODER": "false"}],
    ids=["control alone", "no candidate"],
)
def test_a_reserve_that_nobody_uses_needs_no_time(unused: dict[str, str]) -> None:
    env = {"RERANK_CANARY__DEADLINE__TOTAL_SECONDS": "1", "RERANK_CANARY__DEADLINE__CANDIDATE_SECONDS": "0.5"}
    assert load({**env, **unused}).deadline.total_seconds == 1


def test_an_underscore_in_a_variable_means_the_hyphen_of_a_back_end(tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    file.write_text('[backends.next-TEI]\nkind = "remote"\napi = "tei"\nbase_url = "http://tei"\n')
    env = {
        "RERANK_CANARY__BACKENDS__CROSS_ENCODER__THREADS": "2",
        "RERANK_CANARY__BACKENDS__NEXT_TEI__MODEL": "m",
        "RERANK_CANARY__BACKENDS__MY_LLM__KIND": "llm",
    }
    settings = load(env, file)
    candidate, remote = settings.backend("cross-encoder"), settings.backend("next-TEI")
    assert isinstance(candidate, CrossEncoderBackend)
    assert isinstance(remote, RemoteBackend)
    assert (candidate.threads, remote.model, sorted(settings.backends)) == (
        2,
        "m",
        ["cross-encoder", "gpt", "my_llm", "next-TEI"],
    )


def test_every_dialect_and_no_other_can_be_configured() -> None:
    assert set(get_args(DialectName)) == set(DIALECTS)
    dialects = load({"RERANK_CANARY__WIRE__DIALECTS": f'{{"/v1/rerank": "tei", "{KEY}": "cohere-v1"}}'}).wire.dialects
    assert dialects == {"/v1/rerank": "tei", KEY: "cohere-v1"}


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


def test_a_secret_file_that_was_left_empty_gets_a_secret(tmp_path: Path) -> None:
    (tmp_path / "salt").write_text("\n")
    found = read_or_create(tmp_path / "salt")
    assert len(found) > 40
    assert read_or_create(tmp_path / "salt") == found
    assert [file.name for file in tmp_path.iterdir()] == ["salt"]


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://h:8/v1", "http://h:8/v1"),
        ("http://user:hunter2@h:8/v1", "http://h:8/v1"),
        ("redis://:hunter2@h", "redis://h"),
        ("redis://:a/hunter2?#@h/0", "redis://h/0"),
        ("http://h/v1?key=hunter2#hunter2", "http://h/v1"),
        ("user:hunter2@h", "h"),
        ("http://u:hunter2://x@h", "http://h"),
        ("unix:///run/store.sock", "unix:///run/store.sock"),
    ],
)
def test_a_url_is_shown_without_what_opens_it(url: str, shown: str) -> None:
    assert shown_url(url) == shown


def test_no_key_is_no_actor_even_where_an_empty_one_is_configured() -> None:
    assert Keys(Auth(), [token_of("local", "")]).actor("") is None


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


def test_shadows_of_nobody_are_refused() -> None:
    env = {f"RERANK_CANARY__SHADOW__{name}_PERCENT": "0" for name in ("CONTROL", "CANDIDATE")}
    load(env)
    with pytest.raises(InvalidSettings, match=r"\$\.shadow\.is_on: .* both 0"):
        load(env | {"RERANK_CANARY__SHADOW__IS_ON": "true"})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("control_percent", "101"),
        ("candidate_percent", "-1"),
        ("max_dollars_per_hour", "-1"),
        ("max_concurrency", "0"),
        ("deadline_seconds", "0"),
        ("expected_overlap", "0"),
        ("expected_overlap", "1.1"),
    ],
)
def test_a_setting_of_the_shadows_that_cannot_be_is_named(name: str, value: str) -> None:
    with pytest.raises(InvalidSettings, match=rf"\$\.shadow\.{name}"):
        load({f"RERANK_CANARY__SHADOW__{name.upper()}": value})


def test_a_margin_of_the_overlap_that_no_candidate_could_miss_is_named() -> None:
    guardrails = '[{"name": "overlap", "limit": 0.5}]'
    with pytest.raises(InvalidSettings, match=r"\$\.guard\.guardrails: overlap: a margin must be below 0\.4"):
        load({"RERANK_CANARY__SHADOW__EXPECTED_OVERLAP": "0.4", "RERANK_CANARY__GUARD__GUARDRAILS": guardrails})
