"""Everything that can be configured, with bounds and units.

One TOML file, then ``RERANK_CANARY__SECTION__FIELD`` variables, then the swap-out plan's own toggles;
the later wins. A name that is unknown or a value out of bounds stops the start, and is named.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta, field

from alerts.guardrails import GuardrailOverride
from flags.ramp import DEFAULT_PLAN, Stage
from proxy.backends import Backend, CrossEncoderBackend, LlmBackend, Price, RemoteBackend
from proxy.bounds import Count, Dollars, Pause, Port, Seconds, Section, Share
from proxy.engine.calibration import Calibration
from proxy.quality_settings import Events, Feedback, Probes, Shadow
from proxy.receivers import Alerts
from proxy.secrets import Secret

__all__ = ["Backend", "CrossEncoderBackend", "LlmBackend", "Price", "RemoteBackend", "Settings"]

DialectName = Literal["cohere-v1", "cohere-v2", "jina", "infinity", "voyage", "tei", "nim"]


class Server(Section, frozen=True):
    """Where the two planes listen."""

    host: str = "127.0.0.1"
    port: Port = 8080
    control_host: str = "127.0.0.1"
    control_port: Port = 8081
    drain_seconds: Pause = 0.5
    """After SIGTERM: how long new requests are still taken while readiness already says no."""
    grace_seconds: Seconds = 20.0
    """After that: how long running requests may take to finish."""
    max_connections: Count = 2048
    """Requests in flight on the data plane before the next is answered 429."""


class Limits(Section, frozen=True):
    """What one request may bring. Over a limit nothing reaches an arm."""

    max_documents: Count = 1000
    max_queries: Count = 32
    """Distinct queries of one ``/score`` request; each is a ranking of its own."""
    max_body_bytes: Count = 16 * 1024 * 1024
    max_document_bytes: Count = 2 * 1024 * 1024
    max_query_bytes: Count = 64 * 1024
    max_tokens: Count = 2_000_000
    """Tokens of query and documents together, counted with the language model's own encoding."""


class ControlToken(Section, frozen=True):
    """A named actor on the control plane."""

    name: str
    key: str
    """``sha256:...`` as printed by ``rerank-canary new-key``."""
    role: Literal["viewer", "operator", "admin"] = "viewer"
    expires_at: Annotated[datetime, Meta(tz=True)] | None = None
    """From then on it is refused, such as ``2027-01-31T00:00:00Z``. None: it does not expire."""


class Auth(Section, frozen=True):
    """Keys of both planes, never in clear."""

    data_keys: tuple[str, ...] = ()
    """``sha256:...`` each. Empty: anybody may call, which needs a loopback host or `allow_anonymous`."""
    allow_anonymous: bool = False
    control_tokens: tuple[ControlToken, ...] = ()
    """Empty: one admin token is made at the first start and kept in the data directory."""


class Identity(Section, frozen=True):
    """Who the user is: the first source that gives a value."""

    user: tuple[str, ...] = ("header:X-User-Id", "header:X-OpenWebUI-User-Id", "body:user")
    """``header:NAME`` or ``body:NAME``. None gives a value: a hash of the API key and the query."""
    session: tuple[str, ...] = ("header:X-Session-Id",)
    properties: dict[str, str] = field(default_factory=lambda: {"client": "header:X-Client-Name"})
    """Unleash property → source, for constraints and segments."""
    salt: Secret | None = None
    """Hashes user ids before they are stored or exported. None: one is kept in the data directory."""


class Flag(Section, frozen=True):
    """The flag that holds the percentage."""

    key: str = "rerank-canary"
    url: str | None = None
    """Base URL of an Unleash server with ``/api``. None: a file in Unleash's format."""
    token: Secret | None = None
    environment: str = "default"
    file: Path | None = None
    """None: ``flags.json`` in the data directory, made at the first start."""
    initial_share_percent: Annotated[int, Meta(ge=0, le=100)] = 5
    """What a flag file made at the first start says."""
    bootstrap: Path | None = None
    """A flag state to begin with where the Unleash server was never reached."""
    poll_seconds: Annotated[int, Meta(ge=1, le=3600)] = 1
    timeout_seconds: Seconds = 2.0
    admin_token: Secret | None = None
    """For Unleash's admin API. None: the share is changed in Unleash only, and a rollback by the latch alone."""
    project: str = "default"
    admin_environment: str | None = None
    """Where the share is changed. None: the environment that `token` is for."""


class Ramp(Section, frozen=True):
    """How the share rises."""

    stages: tuple[Stage, ...] = DEFAULT_PLAN
    """Each with the shortest time to stay; the last is 100 %."""
    auto_advance: bool = False
    """False: a stage that is passed waits for an operator."""
    cool_down_seconds: Annotated[float, Meta(ge=0, le=30 * 86400)] = 3600.0
    """After a rollback, until it may be re-armed; doubles with each rollback."""
    audit_entries: Count = 10_000
    """How many changes the audit trail keeps."""


class Guard(Section, frozen=True):
    """When the candidate is taken out by itself."""

    is_on: bool = True
    """False: nobody judges; a stage is passed when its time is over."""
    alpha: Annotated[float, Meta(gt=0, le=0.5)] = 0.01
    """Probability that any guardrail rolls a healthy candidate back, over all of the planned rollout."""
    baseline_file: Path | None = None
    """What `rerank-canary baseline` saved: its p95 stands for control's where control has too little traffic of its
    own. None: ``baseline.json`` in the data directory, where there is one."""
    guardrails: tuple[GuardrailOverride, ...] = ()
    """Other limits than `alerts.guardrails` has, by name; report only; off."""


class Arms(Section, frozen=True):
    """Roles, bound to back ends by name."""

    control: str = "gpt"
    candidate: str = "cross-encoder"
    fallback: str = "gpt"
    """Answers when the candidate cannot, or doubts."""
    use_candidate: bool = True
    """False: everybody gets control, whatever the flag says (the plan's USE_CROSS_ENCODER)."""
    top_n: Count | None = None
    """Results of a request that asks for no number (the plan's TOP_N). None: all."""


class Deadline(Section, frozen=True):
    """One deadline a request, shared by every arm that works on it."""

    total_seconds: Seconds = 15.0
    candidate_seconds: Seconds = 3.0
    """When the candidate is given up, so that the fallback has the rest."""
    reserve_seconds: Seconds = 1.0
    """What is kept of the total for the candidate when control fails."""


class Fallback(Section, frozen=True):
    """When the fallback arm answers for the candidate, and how often it may."""

    statistic: Literal["top1", "mean", "margin"] = "top1"
    """top1: calibrated probability of the best document. mean: mean logit. margin: best logit minus the k-th."""
    margin_k: Annotated[int, Meta(ge=2)] = 2
    threshold: Annotated[float, Meta(ge=-1e6, le=1e6)] | None = None
    """Below it the fallback answers. None: what the model's calibration says, or never."""
    max_share: Share = 0.2
    """Low scores that may fall back, as a share of the candidate's requests of the last hour."""
    max_dollars_per_hour: Dollars = 10.0
    min_requests: Count = 20
    """`max_share` counts from this many candidate requests on."""
    on_control_failure: Literal["candidate", "error"] = "candidate"
    """What answers when control fails, before the last resort."""
    last_resort: Literal["error", "received"] = "error"
    """When no arm can rank: 503, or the order received, marked as such."""
    breaker_failures: Count = 5
    """Failures of an arm in a row that open its breaker."""
    breaker_seconds: Seconds = 10.0
    """How long an open breaker spares the arm before one request may try it again."""


class Wire(Section, frozen=True):
    """Where dialects leave a choice."""

    empty_documents: Literal["accept", "reject"] = "accept"
    """An empty list of documents: 200 with no results, or an error."""
    return_documents: bool | None = None
    """Where the request does not say. None: as the dialect does (Cohere no, Jina yes)."""
    document_as_string: bool = False
    """Infinity's shape: ``document`` is the text itself, not an object."""
    dialects: dict[str, DialectName] = field(default_factory=dict)
    """Path, or hashed key (``sha256:...``), → dialect, where detection must not decide."""


class Search(Section, frozen=True):
    """``POST /v1/search``: passages are retrieved, and then ranked as those of any request are."""

    index: Path | None = None
    """The folder that `rerank-canary retrieve index` wrote. None: there is no such path."""
    top_k: Annotated[int, Meta(ge=1, le=1000)] = 25
    """Passages that are retrieved and ranked; a request's `top_n` cuts the answer."""
    model: str | None = None
    """Where the bi-encoder of the index lies, a folder or a name. None: where it lay when the index was made."""
    device: str = "cpu"
    """Of the bi-encoder, as torch names it."""
    timeout_seconds: Seconds = 1.0
    """When the vectors are given up, and BM25 alone retrieves."""
    max_waiting: Count = 64
    """Searches by vectors under way or waiting; above it BM25 alone retrieves."""


class Store(Section, frozen=True):
    """The one shared store."""

    url: Secret | None = None
    """``redis://``, ``rediss://`` or ``unix://``. None: a Valkey child process in the data directory."""
    prefix: str = "rerank-canary"
    timeout_seconds: Seconds = 0.5


class Dashboard(Section, frozen=True):
    """The pages of the control plane."""

    is_on: bool = True
    """False: there are none, and nothing of the past is kept for them."""


class Telemetry(Section, frozen=True):
    """What people look at. OTLP is configured by the standard OTEL_ variables."""

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["auto", "json", "console"] = "auto"
    """auto: console on a terminal, JSON elsewhere."""


class Settings(Section, frozen=True):
    """All of it."""

    data_dir: Path = Path("var")
    server: Server = Server()
    limits: Limits = Limits()
    auth: Auth = Auth()
    identity: Identity = Identity()
    flag: Flag = Flag()
    ramp: Ramp = Ramp()
    guard: Guard = Guard()
    probes: Probes = Probes()
    shadow: Shadow = Shadow()
    feedback: Feedback = Feedback()
    events: Events = Events()
    alerts: Alerts = Alerts()
    arms: Arms = Arms()
    backends: dict[str, Backend] = field(default_factory=dict)
    deadline: Deadline = Deadline()
    fallback: Fallback = Fallback()
    calibrations: dict[str, Calibration] = field(default_factory=dict)
    """Model as ``status`` names it, revision and engine included, or a language model's name → what its scores mean and
    when to doubt them, in place of what comes with the model. ``rerank-canary calibrate --write`` writes them."""
    wire: Wire = Wire()
    search: Search = Search()
    store: Store = Store()
    dashboard: Dashboard = Dashboard()
    telemetry: Telemetry = Telemetry()

    @property
    def rollout_prefix(self) -> str:
        """How the store's keys of this rollout begin: another flag is another rollout."""
        return f"{self.store.prefix}:{self.flag.key}"

    @property
    def events_url(self) -> str:
        """Where the event log lies."""
        return self.events.url or str(self.data_dir / "events")

    def backend(self, name: str) -> Backend:
        """Return the back end called *name*; ``gpt`` and ``cross-encoder`` are there unless redefined.

        Raises:
            KeyError: there is none of that name.

        """
        defaults: dict[str, Backend] = {"gpt": LlmBackend(), "cross-encoder": CrossEncoderBackend()}
        return (defaults | self.backends)[name]
