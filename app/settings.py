"""All settings, from the environment or `.env`. Every key stands in `.env.example` with a comment.

Only values live here; what they mean is decided where they are used.
"""

import logging
from decimal import Decimal
from enum import StrEnum
from functools import cached_property
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from pathlib import Path
from urllib.parse import quote, urlsplit

from pydantic import AliasChoices, Field, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

_PASSWORD_HASHES = ("$argon2id$", "$2a$", "$2b$", "$2y$")


class Environment(StrEnum):
    """Development allows test funds and switched-off limits; a database serves the one it was made for, for ever."""

    DEVELOPMENT = "development"
    PRODUCTION = "production"


def parse_hosts(text: str) -> dict[str, tuple[str, int | None]]:
    """Of "name=address[:port],...": lower-case name to address and port. Raises ValueError that quotes the entry."""
    hosts: dict[str, tuple[str, int | None]] = {}
    for entry in filter(None, (part.strip() for part in text.split(","))):
        name, separator, target = entry.partition("=")
        address, _, port = target.strip().rpartition(":") if not target.strip().endswith("]") else (target, "", "")
        if not port.isdecimal() or (":" in address and not address.startswith("[")):
            address, port = target.strip(), ""
        try:
            if not (separator and name.strip()) or (port and not 1 <= int(port) <= 65_535):
                raise ValueError
            hosts[name.strip().lower()] = (str(ip_address(address.strip("[]"))), int(port) if port else None)
        except ValueError:
            raise ValueError(f'must be like "news.example=127.0.0.1:8601,..."; got {entry[:80]!r}') from None
    return hosts


class Settings(BaseSettings):
    """The process's settings. Names in the environment are MEGATRON_<NAME> but for the aliases below."""

    model_config = SettingsConfigDict(
        env_prefix="MEGATRON_", env_file=".env", extra="ignore", populate_by_name=True, env_ignore_empty=True
    )

    env: Environment = Environment.PRODUCTION
    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=1, le=65535)
    data_dir: Path = Path(".data")

    database_url: str | None = Field(
        default=None, validation_alias=AliasChoices("DATABASE_URL", "POSTGRES_URL", "NEON_DATABASE_URL")
    )
    redis_url: str | None = Field(
        default=None, validation_alias=AliasChoices("REDIS_URL", "KV_URL", "UPSTASH_REDIS_URL")
    )
    upstash_rest_url: str | None = Field(
        default=None, validation_alias=AliasChoices("UPSTASH_REDIS_REST_URL", "KV_REST_API_URL")
    )
    upstash_rest_token: str | None = Field(
        default=None, validation_alias=AliasChoices("UPSTASH_REDIS_REST_TOKEN", "KV_REST_API_TOKEN"), repr=False
    )
    database_pool_max: int = Field(default=16, ge=2, le=200)
    database_pooler: bool = False
    """A pooler in transaction mode stands in front: prepared statements are not kept."""

    admin_password_hash: str | None = Field(default=None, repr=False)
    """bcrypt or Argon2id hash of the password of the admin named "admin"; unset, that admin cannot log in."""
    admins: dict[str, str] = Field(default_factory=dict, repr=False)
    """Further named admins: JSON object of name to password hash."""
    session_hours: int = Field(default=24 * 14, ge=1, le=24 * 90)
    admin_session_minutes: int = Field(default=60, ge=5, le=24 * 60)
    password_hash_concurrency: int = Field(default=2, ge=1, le=32)

    rate_limits: bool = True
    rate_limit_per_ip_minute: int = Field(default=6_000, ge=1)
    """Cost points a minute and address; a plain request costs 1."""
    rate_limit_per_account_minute: int = Field(default=6_000, ge=1)
    rate_limit_log_in_minute: int = Field(default=10, ge=1)
    """Log-ins a minute, by address and by e-mail."""
    rate_limit_sign_up_hour: int = Field(default=30, ge=1)
    """Sign-ups an hour and address."""
    connections_per_ip: int = Field(default=200, ge=1)
    """WebSockets and event streams at once, by address and API process."""
    connections_per_account: int = Field(default=50, ge=1)
    """The same, by account."""
    subscriptions_per_connection: int = Field(default=100, ge=1)
    subscriptions_per_ip: int = Field(default=2_000, ge=1)
    """Subscriptions at once, by address and API process."""
    subscriptions_per_account: int = Field(default=500, ge=1)
    """The same, by account."""
    connection_init_seconds: int = Field(default=10, ge=1, le=60)
    """How long a new WebSocket may wait with its connection_init."""
    trusted_proxies: list[str] = Field(default_factory=list)
    """Networks whose X-Forwarded-For counts, JSON list of CIDRs."""
    allowed_origins: list[str] = Field(default_factory=list)
    """Origins of frontends, JSON list such as ["https://app.example"]; the API's own origin is always allowed."""
    allowed_hosts: list[str] = Field(default_factory=lambda: ["localhost", "127.0.0.1", "[::1]"])
    """Host headers that are served, JSON list; "*" serves any."""

    tick_retention_days: int = Field(default=30, ge=1, le=3_650)
    """How long ticks and candles of a second are kept; longer candles are kept for good."""

    serper_api_key: str | None = Field(default=None, validation_alias="SERPER_API_KEY", repr=False)
    serper_api_url: str = Field(default="https://google.serper.dev", validation_alias="SERPER_API_URL")
    huggingface_api_key: str | None = Field(default=None, validation_alias="HUGGINGFACE_API_KEY", repr=False)
    huggingface_api_url: str = Field(default="https://router.huggingface.co/v1", validation_alias="HUGGINGFACE_API_URL")
    """Base of an OpenAI-compatible API: chat completions are below it."""
    huggingface_model: str = Field(default="openai/gpt-oss-120b", validation_alias="HUGGINGFACE_MODEL")
    huggingface_embedding_model: str | None = Field(default=None, validation_alias="HUGGINGFACE_EMBEDDING_MODEL")
    """Set, near-duplicate pages count as one source; unset, nothing is embedded."""
    search_requests_per_day: int = Field(default=2_500, ge=0)
    model_requests_per_day: int = Field(default=5_000, ge=0)
    search_request_cost: int = Field(default=1_000, ge=0)
    """10^-6 US dollars a request."""
    model_token_cost: int = Field(default=500_000, ge=0)
    """10^-6 US dollars a million tokens."""
    oracle_search_results: int = Field(default=5, ge=1, le=20)
    """Pages of a query that are read at most."""
    oracle_concurrency: int = Field(default=32, ge=1, le=500)
    """Runs at once in one worker."""
    oracle_max_moves_percent: int = Field(default=25, ge=1, le=1_000)
    """The cap of the moves of F, up and down, that search readings of one asset make within 24 hours: percent of F."""
    oracle_feed_report_days: int = Field(default=7, ge=1, le=3_650)
    """How long reports of feeds are kept; those of searches and overrides are kept for good."""
    oracle_series_speed: Decimal = Field(default=Decimal(1), gt=0, le=1_000)
    """By how much faster than usual bundled series are replayed."""
    oracle_allow_private: bool = False
    """Whether feeds and pages may come from private and loopback addresses: in development only."""
    oracle_hosts: str = ""
    """Addresses of host names, before any resolver is asked: "news.example=127.0.0.1:8601,..."."""
    worker_metrics_port: int | None = Field(default=None, ge=1, le=65535)
    """Where a worker serves its /metrics, on loopback; unset, nowhere."""
    blob_read_write_token: str | None = Field(default=None, validation_alias="BLOB_READ_WRITE_TOKEN", repr=False)
    blob_api_url: str = Field(default="https://blob.vercel-storage.com", validation_alias="VERCEL_BLOB_API_URL")
    ably_api_key: str | None = Field(default=None, validation_alias="ABLY_API_KEY", repr=False)
    ably_api_url: str = Field(default="https://rest.ably.io", validation_alias="ABLY_API_URL")
    pinecone_api_key: str | None = Field(default=None, validation_alias="PINECONE_API_KEY", repr=False)
    pinecone_index_url: str | None = Field(default=None, validation_alias="PINECONE_INDEX_URL")
    """The index's own host, as an address; set with the key, embeddings are kept there and not in PostgreSQL."""

    demo_traders: bool = True
    """Whether `megatron dev` starts demo traders."""
    log_level: str = "INFO"

    @field_validator("log_level")
    @classmethod
    def _known_level(cls, value: str) -> str:
        if value.upper() not in logging.getLevelNamesMapping():
            raise ValueError(f"must be DEBUG, INFO, WARNING or ERROR; got {value!r}")
        return value.upper()

    @field_validator("trusted_proxies")
    @classmethod
    def _networks(cls, values: list[str]) -> list[str]:
        for value in values:
            ip_network(value, strict=False)
        return values

    @field_validator("admin_password_hash")
    @classmethod
    def _usable_hash(cls, value: str | None) -> str | None:
        if value is not None and not value.startswith(_PASSWORD_HASHES):
            raise ValueError("must be a bcrypt or Argon2id hash: `megatron hash-password` makes one")
        return value

    @field_validator("admins")
    @classmethod
    def _usable_hashes(cls, values: dict[str, str]) -> dict[str, str]:
        for name, value in values.items():
            if not value.startswith(_PASSWORD_HASHES):
                raise ValueError(f"{name}'s must be a bcrypt or Argon2id hash: `megatron hash-password` makes one")
        return values

    @model_validator(mode="after")
    def _development_stays_home(self) -> "Settings":
        if self.development and self.host not in ("127.0.0.1", "::1", "localhost"):
            raise ValueError(
                f"development binds to loopback only, and MEGATRON_HOST is {self.host!r}: use 127.0.0.1, "
                "or serve with MEGATRON_ENV=production"
            )
        if not self.rate_limits and not self.development:
            raise ValueError("MEGATRON_RATE_LIMITS=0 works in development only: leave it out, or raise the limits")
        if self.oracle_feed_report_days > self.tick_retention_days:
            raise ValueError(
                f"MEGATRON_ORACLE_FEED_REPORT_DAYS is {self.oracle_feed_report_days}, and what F was after a reading is"
                f" kept with the ticks, for MEGATRON_TICK_RETENTION_DAYS ({self.tick_retention_days}): lower one, or"
                " raise the other"
            )
        if self.oracle_allow_private and not self.development:
            raise ValueError(
                "MEGATRON_ORACLE_ALLOW_PRIVATE=1 works in development only: leave it out, and serve feeds and pages "
                "from public addresses"
            )
        return self

    @field_validator("oracle_hosts")
    @classmethod
    def _known_hosts(cls, value: str) -> str:
        parse_hosts(value)
        return value

    @cached_property
    def oracle_host_addresses(self) -> dict[str, tuple[str, int | None]]:
        """Host name to address, and port where one is given, of `oracle_hosts`."""
        return parse_hosts(self.oracle_hosts)

    @property
    def development(self) -> bool:
        """Whether test funds and switched-off limits may exist here."""
        return self.env is Environment.DEVELOPMENT

    @cached_property
    def proxy_networks(self) -> list[IPv4Network | IPv6Network]:
        """The trusted proxies, parsed."""
        return [ip_network(value, strict=False) for value in self.trusted_proxies]

    @property
    def effective_redis_url(self) -> str | None:
        """REDIS_URL, or the TLS address that Upstash serves beside its REST one."""
        if self.redis_url or not (self.upstash_rest_url and self.upstash_rest_token):
            return self.redis_url
        host = urlsplit(self.upstash_rest_url).hostname
        return f"rediss://default:{quote(self.upstash_rest_token, safe='')}@{host}:6379"
