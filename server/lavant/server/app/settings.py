"""Settings of the server: each with its unit, default and bounds."""

import ipaddress
import os
import re
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
    TomlConfigSettingsSource,
)

from lavant.server.app.secret_files import read_secret_files
from lavant.server.auth.credential_limits import CredentialLimits
from lavant.server.auth.label_keys import DEFAULT_LABEL_KEYS
from lavant.server.auth.principal import Limits, Scope, is_tenant
from lavant.server.auth.quotas import Quota
from lavant.server.scores.alerts.addresses import is_prefix
from lavant.server.store.token_keys import FIRST_KEY_ID

CONFIG_VARIABLE = "LAVANT_CONFIG"
OFF = "off"
_DAY = 24 * 3600
_YEAR = 365 * _DAY
_MOST = 1_000_000  # calls or connections: more than one process can serve, and less than the numbers of gRPC end at
_SQLITE = "sqlite:///"
_NATS = "nats://"
_LISTEN = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[^\s:/\[\]]+):(?P<port>[0-9]{1,5})")
_ORIGIN = re.compile(r"(?!http:.*:80$|https:.*:443$)[a-z][a-z0-9+.-]*://(\[[0-9a-f:]+\]|[a-z0-9._-]+)(:\d+)?")
_KEY = re.compile(r"(?:[0-9A-Fa-f]{2}){16,}")
_STORE_KEY = re.compile(rf"{FIRST_KEY_ID}(-\d+)?")  # IDs of the keys that are kept in the store


def _number(
    default: float | None,
    text: str,
    unit: str = "seconds",
    *,
    ge: float | None = None,
    gt: float | None = None,
    le: float | None = None,
) -> Any:
    """Return a field whose description ends with its unit and bounds, for `--help` and the documentation."""
    least = f"{ge:,}" if gt is None else f"more than {gt:,}"
    bounds = f"{least} to {le:,}" if le is not None else least if gt is not None else f"{least} or more"
    return Field(default, description=f"{text}. In {unit}: {bounds}.", ge=ge, gt=gt, le=le)


class Settings(BaseSettings):
    """Settings, read from flags, else from the environment (LAVANT_LISTEN ...), else from a TOML file.

    `--config` or LAVANT_CONFIG names the file.
    """

    model_config = SettingsConfigDict(
        env_prefix="LAVANT_",
        extra="forbid",
        frozen=True,
        allow_inf_nan=False,
        hide_input_in_errors=True,
        cli_prog_name="lavant serve",
        cli_kebab_case=True,
        cli_implicit_flags=True,
        cli_avoid_json=True,
        cli_hide_none_type=True,
    )

    config: Path | None = Field(None, description="TOML file with any of these settings.")
    listen: str = Field("127.0.0.1:7447", description="HOST:PORT of gRPC. Port 0 picks a free one.")
    http: str = Field("127.0.0.1:7448", description="HOST:PORT of HTTP, or off. Port 0 picks a free one.")
    admin: str = Field(
        "127.0.0.1:7449",
        description="HOST:PORT of health checks and metrics (/healthz, /readyz, /metrics), or off. Port 0 picks a free "
        "one. They have connections of their own, so that a flood on the other ports does not make them fail.",
    )
    otlp: str = Field(
        OFF,
        description="Second HOST:PORT of gRPC, or off: 127.0.0.1:4317 is where exporters of OpenTelemetry send spans "
        "and logs by default. The other address takes them too.",
    )
    otlp_http: str = Field(
        OFF, description="Second HOST:PORT of HTTP, or off: exporters of OTLP over HTTP send to 127.0.0.1:4318."
    )
    otlp_quiet_time: float = _number(
        10.0, "Time without a span after which the run of a trace ends, once the root of the trace has ended", gt=0
    )
    otlp_idle_timeout: float = _number(
        300.0,
        "Time without a span after which the run of a trace is abandoned whose root has not ended. Spans of a trace "
        "without an agent are deleted after it",
        ge=1,
        le=30 * 86_400,
    )
    http_origins: list[str] = Field(
        default_factory=list,
        description="Origins of other sites whose pages may read over HTTP, such as https://example.org.",
    )
    http_hosts: list[str] = Field(
        default_factory=list,
        description="Host names under which HTTP may be called, besides localhost, such as lavant.example.org. "
        "Required if HTTP listens beyond loopback: a page of any other name that resolves to this server is refused.",
    )
    store: str = Field(
        "sqlite:///lavant.db",
        repr=False,  # it may have a password
        description="Store of all events: sqlite:///PATH for one server, or nats://HOST:PORT,HOST:PORT/NAME, which "
        "several servers share.",
    )
    store_file: Path | None = Field(None, description="File with the store's URL, for a URL with a password.")
    nats_replicas: int | None = _number(
        None, "Copies of each message in a new NATS store; none: 3 in a cluster, else 1", "servers", ge=1, le=5
    )
    nats_max_bytes: int | None = _number(
        None,
        "Maximum size of all logs in a new NATS store; none: limited by the NATS servers",
        "bytes",
        ge=1 << 20,
        le=1 << 60,
    )
    nats_ca: Path | None = Field(
        None, description="PEM file with the CAs of the NATS servers: connections to them then use TLS, or fail."
    )
    nats_cert: Path | None = Field(None, description="PEM file with a client certificate for NATS. Needs nats_ca.")
    nats_key: Path | None = Field(None, description="PEM file with the key of nats_cert, without a passphrase.")
    nats_user: str | None = Field(None, description="User of NATS, with nats_password.")
    nats_password: SecretStr | None = Field(None, description="Password of nats_user.")
    nats_password_file: Path | None = Field(None, description="File with the password of nats_user.")
    nats_credentials: Path | None = Field(
        None, description="File with a user JWT of NATS and its seed (.creds), or with the seed of an NKey."
    )
    reuse_port: bool = Field(
        False,
        description="Share the port of gRPC with other lavant processes on this machine (SO_REUSEPORT). Needs a store "
        "on nats://; HTTP needs a port per process.",
    )
    insecure: bool = Field(False, description="Listen beyond loopback without authentication.")
    auth: list[Literal["keys", "jwt", "mtls"]] = Field(
        default_factory=list,
        description="Kinds of credentials that are accepted: keys (API keys, see `lavant keys`), jwt (JSON Web Tokens "
        "of an issuer), mtls (client certificates, see mtls_principals); none: every caller may do everything, as "
        "tenant default.",
    )
    init_key: bool = Field(
        False, description="Create an API key with all scopes, and print it, if the store has no keys yet."
    )
    tls_cert: Path | None = Field(
        None,
        description="PEM file with the certificate chain of the server: gRPC and HTTP then use TLS. It is read again "
        "when it changes, as are the two files below.",
    )
    tls_key: Path | None = Field(None, description="PEM file with the key of tls_cert, without a passphrase.")
    tls_client_ca: Path | None = Field(
        None, description="PEM file with the CAs of client certificates, which are then required."
    )
    mtls_principals: Path | None = Field(
        None,
        description="TOML file that maps names in client certificates, SPIFFE IDs or DNS names, to tenant, scopes, "
        "restriction and limits, for --auth mtls. It is read again when it changes.",
    )
    jwt_issuer: str | None = Field(None, description="Issuer of JWTs: the only accepted value of their claim iss.")
    jwt_audience: str | None = Field(
        None, description="Audience of JWTs: a value that their claim aud must have, such as the name of this service."
    )
    jwt_keys: str | None = Field(
        None,
        description="Key set of the issuer (JWKS): a file, or an https:// address. A file is read again every 5 "
        "seconds, an address every 5 minutes, and, once a minute at most, when a JWT names an unknown key.",
    )
    jwt_algorithm: Literal["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"] = (
        Field("RS256", description="Algorithm of the signatures of JWTs; no other one is accepted.")
    )
    jwt_tenant_claim: str = Field("tenant", description="Claim of a JWT that names its tenant.", min_length=1)
    jwt_scopes_claim: str = Field(
        "scope", description="Claim of a JWT that names its scopes: a list, or text separated by spaces.", min_length=1
    )
    jwt_tenants: dict[str, str] = Field(
        default_factory=dict,
        description="Tenants by the values of jwt_tenant_claim, {value: tenant}; others are denied. None: a value is "
        "the name of a tenant.",
    )
    jwt_scopes: dict[str, list[str]] = Field(
        default_factory=dict,
        description="Scopes by the values of jwt_scopes_claim, {value: [scope, ...]}; others grant nothing. None: a "
        "value is a scope.",
    )
    jwt_limits_claim: str = Field("limits", description="Claim of a JWT that names its limits.", min_length=1)
    jwt_limits: dict[str, CredentialLimits] = Field(
        default_factory=dict,
        description="Limits by the values of jwt_limits_claim, {value: {streams: 10, events_per_second: 100}}, which "
        "count for all JWTs of a subject; others are denied. None: JWTs have the quotas of their tenant only.",
    )
    token_keys: dict[str, SecretStr] = Field(
        default_factory=dict,
        description="Keys that sign resume tokens, {id: 32 or more hexadecimal digits}. The first one signs, all of "
        "them verify, beside the keys that are kept in the store. A store that is created with them gets none.",
    )
    token_keys_file: Path | None = Field(
        None, description="File with the keys that sign resume tokens, a line ID=KEY for each, as in token_keys."
    )
    max_streams: int = _number(20_000, "Maximum number of open streams and publishing calls", "calls", ge=1, le=_MOST)
    max_publishing_calls: int = _number(
        2_000,
        "Maximum number of open publishing calls, each of which may take 4 MiB of memory for a message that has not "
        "arrived whole",
        "calls",
        ge=1,
        le=_MOST,
    )
    max_connections: int = _number(
        10_000,
        "Maximum number of open connections, of gRPC and HTTP each; fewer if the limit of open files is lower",
        "connections",
        ge=1,
        le=_MOST,
    )
    peer_share: float = Field(
        0.8,
        description="Part of the streams, calls and HTTP connections, out of their maximum, that one address may hold: "
        "above 0, up to 1. Use 1 behind a proxy, whose address all peers have.",
        gt=0,
        le=1,
    )
    max_rules: int = _number(200, "Maximum number of rules per tenant", "rules", ge=1, le=100_000)
    max_alerts: int = _number(1_000, "Maximum number of alerts of all rules per tenant", "alerts", ge=0, le=1_000_000)
    max_label_keys: int = _number(
        DEFAULT_LABEL_KEYS,
        "Maximum number of different keys that labels of a tenant's runs have",
        "keys",
        ge=1,
        le=100_000,
    )
    tenant_streams: int | None = _number(
        None, "Maximum number of open streams, publishing calls and waits per tenant; none: any", "calls", ge=1
    )
    tenant_calls: int | None = _number(
        None, "Maximum number of other calls in progress per tenant; none: any", "calls", ge=1
    )
    tenant_events_per_second: float | None = _number(
        None, "Maximum rate at which a tenant may append events; none: any", "events per second", ge=1
    )
    tenant_bytes_per_second: float | None = _number(
        None, "Maximum rate at which a tenant may append events, by size; none: any", "bytes per second", ge=1024
    )
    tenant_runs_per_second: float | None = _number(
        None, "Maximum rate at which a tenant may create runs; none: any", "runs per second", ge=0.001
    )
    tenant_open_runs: int | None = _number(
        None, "Maximum number of a tenant's runs that have not ended; none: any", "runs", ge=1
    )
    tenant_stored_bytes: int | None = _number(
        None, "Maximum size of the events of a tenant's runs; none: any", "bytes", ge=1024
    )
    tenant_quotas: dict[str, dict[str, float]] = Field(
        default_factory=dict,
        description="Quotas of single tenants in place of those above, {tenant: {streams: 10, open_runs: 50}}.",
    )
    max_stream_age: float = _number(1800, "Age at which a stream ends and its client reopens it, ±10 %", ge=1, le=_YEAR)
    write_timeout: float = _number(30, "Time that a reader may accept nothing before its stream ends", gt=0, le=_DAY)
    ping_interval: float = _number(30, "Silence on a connection after which its peer is pinged", ge=1, le=3600)
    ping_timeout: float = _number(
        10, "Time that the answer to a ping may take before the connection is closed", ge=1, le=3600
    )
    retention: float | None = _number(
        None, "Time after its end at which a run is deleted; none: never", ge=1, le=100 * _YEAR
    )
    webhooks: list[str] = Field(
        default_factory=list,
        description="Prefixes of the addresses to which alerts may be posted, such as "
        "https://hooks.example.org/lavant/; none: no webhooks.",
    )
    drain_timeout: float = _number(10, "Time that a stopping server waits for open calls", ge=0, le=_DAY)
    tail_bytes: int = _number(
        1 << 20,
        "Size of the newest events per run that are kept in memory while the run has readers",
        "bytes",
        ge=1 << 16,
        le=1 << 30,
    )
    metric_tenants: int = _number(
        20, "Maximum number of tenants that metrics name; all others are reported together", "tenants", ge=0, le=1_000
    )
    reflection: bool | None = Field(
        None, description="Serve gRPC reflection, to callers with a valid credential; none: on loopback only."
    )
    otel: bool = Field(False, description="Trace calls with OpenTelemetry, configured by the OTEL_* variables.")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Lowest level that is logged.")
    log_format: Literal["text", "json"] = Field("text", description="Format of the log, which goes to stderr.")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Return the sources by precedence: flags (which pydantic-settings puts first), environment, file."""
        path = os.environ.get(CONFIG_VARIABLE)
        if path and not Path(path).is_file():
            raise SettingsError(f"{path}, which {CONFIG_VARIABLE} or --config names, is not a file")
        try:
            file_settings = TomlConfigSettingsSource(settings_cls, path)
        except (OSError, ValueError) as error:
            raise SettingsError(f"{path} cannot be read as TOML: {error}") from None
        except RecursionError:
            raise SettingsError(f"{path} cannot be read as TOML: it is nested too deeply") from None
        return init_settings, env_settings, file_settings

    @model_validator(mode="before")
    @classmethod
    def _read_secret_files(cls, values: dict[str, Any]) -> dict[str, Any]:
        return read_secret_files(values)

    @field_validator("listen")
    @classmethod
    def _has_host_and_port(cls, value: str) -> str:
        found = _LISTEN.fullmatch(value)
        if found is None or int(found["port"]) > 65535:
            raise ValueError("must be HOST:PORT, such as 127.0.0.1:7447 or [::1]:7447")
        return value

    @field_validator("http", "admin", "otlp", "otlp_http")
    @classmethod
    def _is_off_or_has_host_and_port(cls, value: str) -> str:
        return value if value == OFF else cls._has_host_and_port(value)

    @field_validator("http_origins")
    @classmethod
    def _are_origins(cls, value: list[str]) -> list[str]:
        for origin in value:
            if not _ORIGIN.fullmatch(origin):
                raise ValueError(
                    f"{origin!r} is no origin of pages as browsers send it: SCHEME://HOST or SCHEME://HOST:PORT in "
                    "lower case, without a path or the default port, such as https://example.org"
                )
        return value

    @field_validator("store")
    @classmethod
    def _has_known_scheme(cls, value: str) -> str:
        if not value.startswith((_SQLITE, _NATS)) or value in (_SQLITE, _NATS):
            raise ValueError(
                "must be sqlite:///PATH, such as sqlite:///lavant.db or sqlite:////var/lib/lavant.db, "
                "or nats://HOST:PORT,HOST:PORT"
            )
        return value

    @field_validator("webhooks")
    @classmethod
    def _end_the_host(cls, value: list[str]) -> list[str]:
        for prefix in value:
            if not is_prefix(prefix):
                raise ValueError("each must be an http:// or https:// address that ends with /")
        return value

    @field_validator("token_keys")
    @classmethod
    def _are_long_enough(cls, value: dict[str, SecretStr]) -> dict[str, SecretStr]:
        for key_id, key in value.items():
            if not 1 <= len(key_id) <= 16 or not key_id.isascii() or _STORE_KEY.fullmatch(key_id):
                raise ValueError(
                    f"a key needs an id of 1 to 16 ASCII characters other than {FIRST_KEY_ID!r} and {FIRST_KEY_ID}-2 …"
                )
            if not _KEY.fullmatch(key.get_secret_value()):
                raise ValueError(f"key {key_id!r} must be at least 32 hexadecimal digits, an even number of them")
        return value

    @field_validator("jwt_keys")
    @classmethod
    def _are_fetched_safely(cls, value: str | None) -> str | None:
        if value is not None and value.startswith("http://") and not is_loopback(urlsplit(value).hostname or ""):
            raise ValueError("must be a file or an https:// address: whoever answers for http:// could sign any JWT")
        return value

    @field_validator("jwt_tenants")
    @classmethod
    def _are_tenants(cls, value: dict[str, str]) -> dict[str, str]:
        for tenant in value.values():
            if not is_tenant(tenant):
                raise ValueError(f"{tenant!r} must be 1 to 64 characters of a-z 0-9 -, and not lavant")
        return value

    @field_validator("jwt_scopes")
    @classmethod
    def _are_scopes(cls, value: dict[str, list[str]]) -> dict[str, list[str]]:
        for scope in (scope for granted in value.values() for scope in granted):
            if scope not in set(Scope):
                raise ValueError(f"{scope!r} is no scope; use {', '.join(Scope)}")
        return value

    @model_validator(mode="after")
    def _jwts_have_an_issuer(self) -> "Settings":
        needed = {"jwt_issuer": self.jwt_issuer, "jwt_audience": self.jwt_audience, "jwt_keys": self.jwt_keys}
        missing = [name for name, value in needed.items() if not value]
        if "jwt" in self.auth and missing:
            raise ValueError(f"auth = jwt needs {' and '.join(missing)} as well")
        return self

    @model_validator(mode="after")
    def _is_safe(self) -> "Settings":
        addresses = (self.listen, self.http, self.admin, self.otlp, self.otlp_http)
        hosts = [host_of(address) for address in addresses if address != OFF]
        open_hosts = [] if self.insecure or self.auth else [host for host in hosts if not is_loopback(host)]
        if open_hosts:
            raise ValueError(
                f"listening on {open_hosts[0]} would let everyone who can reach it read and write all runs; "
                "listen on 127.0.0.1, require credentials with --auth, or pass --insecure if a proxy restricts access"
            )
        return self

    @field_validator("tenant_quotas")
    @classmethod
    def _are_quotas(cls, value: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
        for tenant, quotas in value.items():
            for name, quota in quotas.items():
                if name not in list(Quota):
                    raise ValueError(f"{name!r} of tenant {tenant!r} is no quota; use {', '.join(Quota)}")
                if quota <= 0:
                    raise ValueError(f"{name} of tenant {tenant!r} must be more than 0")
        return value

    @model_validator(mode="after")
    def _a_certificate_has_a_key(self) -> "Settings":
        if (self.tls_cert is None) != (self.tls_key is None):
            given, missing = ("tls_cert", "tls_key") if self.tls_key is None else ("tls_key", "tls_cert")
            raise ValueError(f"{given} needs {missing}: set both files, or neither")
        if self.tls_client_ca is not None and self.tls_cert is None:
            raise ValueError("tls_client_ca needs tls_cert and tls_key: without TLS there are no client certificates")
        return self

    @model_validator(mode="after")
    def _access_to_nats_is_whole(self) -> "Settings":
        if (self.nats_cert is None) != (self.nats_key is None):
            given, missing = ("nats_cert", "nats_key") if self.nats_key is None else ("nats_key", "nats_cert")
            raise ValueError(f"{given} needs {missing}: set both files, or neither")
        if self.nats_cert is not None and self.nats_ca is None:
            raise ValueError("nats_cert needs nats_ca: without TLS there are no client certificates")
        if (self.nats_user is None) != (self.nats_password is None):
            given, missing = ("nats_user", "nats_password") if self.nats_user else ("nats_password", "nats_user")
            raise ValueError(f"{given} needs {missing}: set both, or neither")
        if self.nats_user is not None and self.nats_credentials is not None:
            raise ValueError("nats_user and nats_credentials are both set; set one of them")
        return self

    @model_validator(mode="after")
    def _public_http_knows_its_names(self) -> "Settings":
        for name, address in (("http", self.http), ("otlp_http", self.otlp_http)):
            if address != OFF and not is_loopback(host_of(address)) and not self.http_hosts:
                raise ValueError(
                    f"{name} listens on {host_of(address)}, beyond loopback; list the host names under which it is "
                    "called with --http-hosts, such as --http-hosts lavant.example.org, or turn it off with "
                    f"--{name.replace('_', '-')} off"
                )
        return self

    @model_validator(mode="after")
    def _certificates_have_principals(self) -> "Settings":
        if "mtls" in self.auth and (self.tls_client_ca is None or self.mtls_principals is None):
            raise ValueError("auth mtls needs tls_client_ca and mtls_principals")
        if self.mtls_principals is not None and "mtls" not in self.auth:
            raise ValueError("mtls_principals has no effect without --auth mtls; add it")
        return self

    @model_validator(mode="after")
    def _sharing_a_port_needs_a_shared_store(self) -> "Settings":
        if self.reuse_port and not self.store_is_shared:
            raise ValueError("reuse_port needs a store on nats://: a SQLite store belongs to one process")
        return self

    @property
    def host(self) -> str:
        """Host part of `listen`."""
        return host_of(self.listen)

    @property
    def serves_reflection(self) -> bool:
        """Whether gRPC reflection is served."""
        return is_loopback(self.host) if self.reflection is None else self.reflection

    def limits_of(self, tenant: str) -> Limits:
        """Return the quotas of a tenant."""
        own = self.tenant_quotas.get(tenant, {})
        return Limits(**{kind: own.get(kind, getattr(self, f"tenant_{kind}")) for kind in Quota})

    @property
    def store_is_shared(self) -> bool:
        """Whether the store is on NATS, where other servers may use it as well."""
        return self.store.startswith(_NATS)

    @property
    def store_path(self) -> Path:
        """File of a SQLite store."""
        return Path(self.store.removeprefix(_SQLITE))


def host_of(address: str) -> str:
    """Return the host part of HOST:PORT."""
    return address.rpartition(":")[0]


def is_loopback(host: str) -> bool:
    """Return whether a host is reachable from this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
