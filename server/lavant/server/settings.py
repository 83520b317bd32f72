"""Every knob of the server, once: with its unit, default and bounds."""

import ipaddress
import os
import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
    TomlConfigSettingsSource,
)

from lavant.server.scores.webhooks import is_prefix

CONFIG_VARIABLE = "LAVANT_CONFIG"
OFF = "off"
_YEAR = 365 * 24 * 3600
STORE_KEY_ID = "store"  # names the key that is kept in the store
_SQLITE = "sqlite:///"
_NATS = "nats://"
_LISTEN = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[^\s:/\[\]]+):(?P<port>[0-9]{1,5})")
_KEY = re.compile(r"(?:[0-9A-Fa-f]{2}){16,}")


class Settings(BaseSettings):
    """Read from flags, else from the environment (LAVANT_LISTEN ...), else from a TOML file.

    The file is the one that `--config` or LAVANT_CONFIG names. Times are in seconds, sizes in bytes.
    """

    model_config = SettingsConfigDict(
        env_prefix="LAVANT_",
        extra="forbid",
        frozen=True,
        allow_inf_nan=False,
        cli_prog_name="lavant serve",
        cli_kebab_case=True,
        cli_implicit_flags=True,
        cli_avoid_json=True,
        cli_hide_none_type=True,
    )

    config: Path | None = Field(None, description="a TOML file with any of these settings")
    listen: str = Field("127.0.0.1:7447", description="HOST:PORT of gRPC; port 0 picks a free one")
    http: str = Field("127.0.0.1:7448", description="HOST:PORT of HTTP; port 0 picks a free one; off: none")
    http_origins: list[str] = Field(
        default_factory=list, description="other sites whose pages may read over HTTP, such as https://example.org"
    )
    http_hosts: list[str] = Field(
        default_factory=list, description="names by which HTTP on loopback may be called, besides localhost"
    )
    store: str = Field(
        "sqlite:///lavant.db",
        description="where events are kept: sqlite:///PATH, or nats://HOST:PORT,HOST:PORT/NAME shared by many servers",
    )
    nats_replicas: Annotated[int, Field(ge=1, le=5)] | None = Field(
        None, description="servers that keep each message of a new NATS store; none: 3 in a cluster, else 1"
    )
    nats_max_bytes: Annotated[int, Field(ge=1 << 20)] | None = Field(
        None, description="size that the logs of a new NATS store may have in all; none: what the servers have room for"
    )
    workers: Annotated[int, Field(ge=1, le=256)] = Field(
        1, description="processes that share the port of gRPC, on a shared store; HTTP has one port each, counted up"
    )
    insecure: bool = Field(False, description="listen beyond loopback without authentication")
    token_keys: dict[str, str] = Field(
        default_factory=dict,
        description="keys that sign resume tokens, {id: 32 or more hexadecimal digits}; the first signs, all verify; "
        "none: a key kept in the store",
    )
    max_streams: Annotated[int, Field(ge=1)] = Field(20_000, description="streams and publishing calls open at once")
    max_connections: Annotated[int, Field(ge=1)] = Field(10_000, description="connections open at once")
    max_stream_age: Annotated[float, Field(ge=1, le=_YEAR)] = Field(
        1800, description="age at which a stream is renewed, ±10 %"
    )
    write_timeout: Annotated[float, Field(gt=0)] = Field(
        30, description="how long a reader may accept nothing before its stream ends"
    )
    ping_interval: Annotated[float, Field(ge=1, le=3600)] = Field(
        30, description="how long a connection may be silent before its peer is pinged"
    )
    ping_timeout: Annotated[float, Field(ge=1, le=3600)] = Field(
        10, description="how long the answer to a ping may take before the connection is closed"
    )
    retention: Annotated[float, Field(ge=1, le=100 * _YEAR)] | None = Field(
        None, description="how long after its end a run is deleted; none: never"
    )
    webhooks: list[str] = Field(
        default_factory=list,
        description="what addresses that alerts are posted to must begin with, such as https://hooks.example.org/lavant/",
    )
    drain_timeout: Annotated[float, Field(ge=0)] = Field(10, description="how long a stopping server waits for calls")
    tail_bytes: Annotated[int, Field(ge=1 << 16)] = Field(
        1 << 20, description="newest events of a run that are kept in memory while somebody reads it"
    )
    reflection: bool = Field(False, description="serve gRPC reflection")
    otel: bool = Field(False, description="trace calls with OpenTelemetry, as its OTEL_* variables say")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="least level that is logged")
    log_format: Literal["text", "json"] = Field("text", description="how lines of the log look; they go to stderr")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Flags come first (pydantic-settings puts them there), then the environment, then the file."""
        path = os.environ.get(CONFIG_VARIABLE)
        if path and not Path(path).is_file():
            raise SettingsError(f"{path}, which {CONFIG_VARIABLE} or --config names, is not a file")
        try:
            file_settings = TomlConfigSettingsSource(settings_cls, path)
        except (OSError, ValueError) as error:
            raise SettingsError(f"{path} cannot be read as TOML: {error}") from None
        return init_settings, env_settings, file_settings

    @field_validator("listen")
    @classmethod
    def _has_host_and_port(cls, value: str) -> str:
        found = _LISTEN.fullmatch(value)
        if found is None or int(found["port"]) > 65535:
            raise ValueError("must be HOST:PORT, such as 127.0.0.1:7447 or [::1]:7447")
        return value

    @field_validator("http")
    @classmethod
    def _is_off_or_has_host_and_port(cls, value: str) -> str:
        return value if value == OFF else cls._has_host_and_port(value)

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
    def _are_long_enough(cls, value: dict[str, str]) -> dict[str, str]:
        for key_id, key in value.items():
            if not 1 <= len(key_id) <= 16 or not key_id.isascii() or key_id == STORE_KEY_ID:
                raise ValueError(f"a key needs an id of 1 to 16 ASCII characters other than {STORE_KEY_ID!r}")
            if not _KEY.fullmatch(key):
                raise ValueError(f"key {key_id!r} must be at least 32 hexadecimal digits, an even number of them")
        return value

    @model_validator(mode="after")
    def _is_safe(self) -> "Settings":
        hosts = [self.host] if self.http == OFF else [self.host, host_of(self.http)]
        open_hosts = [] if self.insecure else [host for host in hosts if not is_loopback(host)]
        if open_hosts:
            raise ValueError(
                f"listening on {open_hosts[0]} would let everyone who can reach it read and write all runs; "
                "listen on 127.0.0.1, or pass --insecure if something else keeps strangers out"
            )
        return self

    @model_validator(mode="after")
    def _workers_share_a_store(self) -> "Settings":
        if self.workers > 1 and not self.store_is_shared:
            raise ValueError("a SQLite store belongs to one process: workers need a store on nats://")
        return self

    @property
    def host(self) -> str:
        """The host part of `listen`."""
        return host_of(self.listen)

    @property
    def store_is_shared(self) -> bool:
        """Whether the store is on NATS, where other servers may use it too."""
        return self.store.startswith(_NATS)

    @property
    def store_path(self) -> Path:
        """The file of a SQLite store."""
        return Path(self.store.removeprefix(_SQLITE))


def host_of(address: str) -> str:
    """The host part of HOST:PORT."""
    return address.rpartition(":")[0]


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach it."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
