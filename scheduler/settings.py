"""One frozen settings object, read from the environment and checked at start."""

import os
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from scheduler.addresses import kafka_bootstrap, listening_host, server_url
from scheduler.errors import SettingsError
from scheduler.kafka_servers import ENCRYPTED, WITH_LOGIN, KafkaServers
from scheduler.policy import (
    HOUR_MS,
    MINUTE_MS,
    DelayWindow,
    OverduePolicy,
    PacingPolicy,
    RetryPolicy,
)
from schemas.events import MAX_COMMAND_ACTIVITIES
from schemas.topics import DISPATCHER_GROUP, EXECUTOR_GROUP, WORKER_GROUP, Topics

ENV_PREFIX = "POD_AUTOMATION_"
FILE_SUFFIX = "_FILE"

LIKE_JITTER = 0.10
COMMENT_JITTER = 0.15
BACKOFF_JITTER = 0.10

# What is longer is a slip of the pen, and would lead out of the calendar, or out of an integer of
# PostgreSQL or Kafka, in the midst of work.
LONGEST_MS = 366 * 24 * HOUR_MS
LONGEST_CAP_WINDOW_MS = 31 * 24 * HOUR_MS
LONGEST_AGE_DAYS = 36_500
MOST_KEPT = 1_000_000_000
LONGEST_SESSION_MS = 30 * MINUTE_MS  # the broker's own default limit


class Settings(BaseSettings):
    """Every setting is the environment variable `POD_AUTOMATION_<NAME>`.

    docs/configuration.md is generated from these descriptions.
    """

    model_config = SettingsConfigDict(env_prefix=ENV_PREFIX, frozen=True, extra="ignore")

    kafka_bootstrap: str = Field(
        "127.0.0.1:9092", min_length=1, description="Kafka brokers, host:port, comma separated."
    )
    kafka_security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        "PLAINTEXT", description="How brokers are spoken to: SSL encrypts, SASL is with a login."
    )
    kafka_sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = Field(
        "SCRAM-SHA-512", description="How the login is proven."
    )
    kafka_sasl_username: str = Field("", description="Name of the login.")
    kafka_sasl_password: str = Field("", repr=False, description="Its password.")
    kafka_ca_file: str = Field(
        "", description="Authorities that sign the brokers' certificates, PEM; empty: the system's."
    )
    kafka_certificate_file: str = Field(
        "", description="Certificate that brokers ask of clients, PEM; empty: none."
    )
    kafka_key_file: str = Field(
        "", description="Its key, PEM; empty: it is in the file of the certificate."
    )
    # Never shown: both may carry a password.
    redis_url: str = Field(
        "redis://127.0.0.1:6379/0",
        repr=False,
        pattern=r"^(rediss?|unix)://",
        description="Redis or Valkey (6.2 or newer), with AOF and noeviction.",
    )
    postgres_dsn: str = Field(
        "postgresql://postgres@127.0.0.1:5432/pod_automation",
        repr=False,
        pattern=r"^postgres(ql)?://",
        description="PostgreSQL, as a postgresql:// address.",
    )
    partitions: int = Field(
        8, ge=1, le=1024, description="Partitions of every topic; fixed for the engine's life."
    )
    topic_prefix: str = Field(
        "",
        pattern=r"^[a-zA-Z0-9._-]{0,100}$",
        description="Put before all topics, groups, transactional ids and Redis keys.",
    )

    like_min_delay_ms: int = Field(5 * MINUTE_MS, ge=0, le=LONGEST_MS, description="Earliest like.")
    like_max_delay_ms: int = Field(
        30 * MINUTE_MS,
        ge=0,
        le=LONGEST_MS,
        description="Latest like, but for those that the cap moves later.",
    )
    like_max_members_per_hour: int = Field(
        3,
        ge=1,
        le=MOST_KEPT,
        description="Likes of one post at most in any stretch of the cap window.",
    )
    like_cap_window_ms: int = Field(
        HOUR_MS,
        ge=1,
        le=LONGEST_CAP_WINDOW_MS,
        description="What “an hour” is for the cap; shorter in demos and tests.",
    )
    comment_min_delay_ms: int = Field(
        1 * HOUR_MS, ge=0, le=LONGEST_MS, description="Earliest comment."
    )
    comment_max_delay_ms: int = Field(
        6 * HOUR_MS, ge=0, le=LONGEST_MS, description="Latest comment."
    )

    catch_up: Literal["immediate", "paced", "expire"] = Field(
        "immediate",
        description="What becomes of what is overdue, as after an outage: sent at once, laid out "
        "anew, or given up.",
    )
    # Below a second every timer would be late, and be moved for ever instead of being fired.
    paced_after_ms: int = Field(
        60_000, ge=1000, description="For `paced`: how late a timer must be to be laid out anew."
    )
    expire_after_ms: int = Field(
        6 * HOUR_MS, ge=1000, description="For `expire`: how late a timer must be to be given up."
    )

    queue_concurrency: int = Field(
        5, ge=1, le=1000, description="Engagements that one executor process handles at once."
    )
    queue_attempts: int = Field(
        3, ge=1, le=200, description="Attempts of one engagement; after the last it has failed."
    )
    backoff_initial_delay_ms: int = Field(
        30_000,
        ge=0,
        le=LONGEST_MS,
        description="Wait before the second attempt; before each further one twice as long.",
    )
    result_timeout_ms: int = Field(
        15 * MINUTE_MS,
        ge=1,
        le=LONGEST_MS,
        description="An attempt without a result after this time counts as failed.",
    )
    batch_size_likes: int = Field(
        20, ge=1, le=MAX_COMMAND_ACTIVITIES, description="Pending likes that are scheduled at once."
    )
    batch_size_comments: int = Field(
        10,
        ge=1,
        le=MAX_COMMAND_ACTIVITIES,
        description="Pending comments that are scheduled at once.",
    )
    sweep_interval_ms: int = Field(
        0,
        ge=0,
        le=LONGEST_MS,
        description="How often a worker schedules all pending, due rows by itself; 0: never.",
    )

    completed_job_keep_count: int = Field(
        1000, ge=0, le=MOST_KEPT, description="Executed activities that are kept, of each pod."
    )
    completed_job_age_days: float = Field(
        7,
        gt=0,
        le=LONGEST_AGE_DAYS,
        description="Days after which an executed activity is removed.",
    )
    failed_job_keep_count: int = Field(
        500,
        ge=0,
        le=MOST_KEPT,
        description="Failed, cancelled and expired activities kept, of each pod.",
    )
    failed_job_age_days: float = Field(
        30,
        gt=0,
        le=LONGEST_AGE_DAYS,
        description="Days after which a failed, cancelled or expired one is removed.",
    )
    audit_age_days: float = Field(
        365,
        gt=0,
        le=LONGEST_AGE_DAYS,
        description="Days after which a command is removed from the record, with who asked for it.",
    )
    retention_interval_ms: int = Field(
        60_000,
        ge=0,
        le=LONGEST_MS,
        description="How often a worker removes what need not be kept; 0: never.",
    )

    reconcile_interval_ms: int = Field(
        60_000,
        ge=0,
        description="How often a worker compares counts and watermarks of the stores; 0: never.",
    )
    traces: Literal["off", "otlp"] = Field(
        "off",
        description="`otlp`: send spans to a collector of OpenTelemetry; where it is and which"
        " spans, its own variables say (`OTEL_EXPORTER_OTLP_ENDPOINT`, `OTEL_TRACES_SAMPLER`).",
    )
    metrics_port: int = Field(
        0,
        ge=0,
        le=65_535,
        description="Port at which a worker or dispatcher serves its metrics; 0: none.",
    )
    metrics_host: str = Field(
        "127.0.0.1",
        min_length=1,
        description="Address at which a worker or dispatcher serves its metrics.",
    )

    ingest_batch_events: int = Field(
        200, ge=1, le=10_000, description="Events of one partition applied at once, at most."
    )
    ingest_linger_ms: int = Field(
        50, ge=0, le=1000, description="How long an event may wait for others to join its batch."
    )
    dispatch_batch: int = Field(
        5000, ge=1, le=20_000, description="Timers of one transaction, at most."
    )
    session_timeout_ms: int = Field(
        6000,
        ge=1000,
        le=LONGEST_SESSION_MS,
        description="Silence after which Kafka gives a process's shards to another.",
    )
    api_host: str = Field(
        "127.0.0.1", min_length=1, description="Address that the HTTP API listens on."
    )
    api_port: int = Field(8600, ge=0, le=65535, description="Its port; 0: any that is free.")
    api_tokens: str = Field(
        "",
        repr=False,
        description="Who may use the API: `role:name:token`, several separated by commas, white"
        " space or new lines. Roles are `viewer`, who may look, and `operator`, who may do all."
        " Better kept in a file, which POD_AUTOMATION_API_TOKENS_FILE names.",
    )
    api_requests_per_minute: int = Field(
        600,
        ge=1,
        le=1_000_000,
        description="Requests of one name, whatever its tokens, in a minute at most.",
    )

    instance_id: str = Field(
        "",
        pattern=r"^[a-zA-Z0-9._-]{0,64}$",
        description="Name of this process among those of its kind: started again after a crash it"
        " gets its shards back without a rebalance. Letters, digits, “.”, “_”, “-”; empty: none.",
    )
    shutdown_grace_ms: int = Field(
        8000,
        ge=100,
        le=LONGEST_MS,
        description="Time for an orderly stop; after it the process just ends.",
    )
    stall_timeout_ms: int = Field(
        60_000,
        ge=1000,
        le=LONGEST_MS,
        description="Lag without progress after which a worker exits, to restart; and for how long"
        " the event loop of any process may stand still.",
    )
    log_level: str = Field(
        "info", pattern=r"^(debug|info|warning|error)$", description="Least severe level logged."
    )

    @field_validator("log_level", mode="before")
    @classmethod
    def _in_any_case(cls, value: object) -> object:
        return value.lower() if isinstance(value, str) else value

    @field_validator("kafka_bootstrap")
    @classmethod
    def _has_brokers(cls, value: str) -> str:
        return kafka_bootstrap(value)

    @field_validator("redis_url", "postgres_dsn")
    @classmethod
    def _is_address(cls, value: str) -> str:
        return server_url(value)

    @field_validator("api_host", "metrics_host")
    @classmethod
    def _is_host(cls, value: str) -> str:
        return listening_host(value)

    @model_validator(mode="after")
    def _windows_are_ordered(self) -> Self:
        for kind in ("like", "comment"):
            low, high = getattr(self, f"{kind}_min_delay_ms"), getattr(self, f"{kind}_max_delay_ms")
            if low > high:
                raise ValueError(
                    f"{ENV_PREFIX}{kind.upper()}_MIN_DELAY_MS ({low}) is above "
                    f"{ENV_PREFIX}{kind.upper()}_MAX_DELAY_MS ({high})"
                )
        return self

    @model_validator(mode="after")
    def _kafka_login_is_whole(self) -> Self:
        chosen, protocol = self.kafka_security_protocol, f"{ENV_PREFIX}KAFKA_SECURITY_PROTOCOL"
        for name in ("kafka_sasl_username", "kafka_sasl_password"):
            variable, given = ENV_PREFIX + name.upper(), bool(getattr(self, name))
            if chosen in WITH_LOGIN and not given:
                raise ValueError(f"{variable} is needed with {protocol}={chosen}")
            if chosen not in WITH_LOGIN and given:
                raise ValueError(f"{variable} needs {protocol}=SASL_SSL (or SASL_PLAINTEXT)")
        for name in ("kafka_ca_file", "kafka_certificate_file", "kafka_key_file"):
            if chosen not in ENCRYPTED and getattr(self, name):
                raise ValueError(f"{ENV_PREFIX}{name.upper()} needs {protocol}=SSL or SASL_SSL")
        if self.kafka_key_file and not self.kafka_certificate_file:
            raise ValueError(f"{ENV_PREFIX}KAFKA_KEY_FILE needs {ENV_PREFIX}KAFKA_CERTIFICATE_FILE")
        return self

    # Not kept: a copy with other brokers must not have these.
    @property
    def kafka(self) -> KafkaServers:
        """The brokers, and how one gets in."""
        return KafkaServers(
            bootstrap=self.kafka_bootstrap,
            protocol=self.kafka_security_protocol,
            mechanism=self.kafka_sasl_mechanism,
            username=self.kafka_sasl_username,
            password=self.kafka_sasl_password,
            ca_file=self.kafka_ca_file,
            certificate_file=self.kafka_certificate_file,
            key_file=self.kafka_key_file,
        )

    @cached_property
    def policy(self) -> PacingPolicy:
        """The pacing policy these settings describe."""
        return PacingPolicy(
            like=DelayWindow(self.like_min_delay_ms, self.like_max_delay_ms, LIKE_JITTER),
            comment=DelayWindow(
                self.comment_min_delay_ms, self.comment_max_delay_ms, COMMENT_JITTER
            ),
            like_cap=self.like_max_members_per_hour,
            like_cap_window_ms=self.like_cap_window_ms,
        )

    @cached_property
    def retries(self) -> RetryPolicy:
        """What happens to attempts that fail."""
        return RetryPolicy(self.queue_attempts, self.backoff_initial_delay_ms, BACKOFF_JITTER)

    @cached_property
    def overdue(self) -> OverduePolicy | None:
        """What becomes of overdue timers; None: they fire at once."""
        if self.catch_up == "paced":
            return OverduePolicy("postpone", self.paced_after_ms)
        if self.catch_up == "expire":
            return OverduePolicy("expire", self.expire_after_ms)
        return None

    @cached_property
    def topics(self) -> Topics:
        """Topic names with the prefix."""
        return Topics.prefixed(self.topic_prefix)

    @property
    def worker_group(self) -> str:
        """Consumer group of the workers."""
        return self.topic_prefix + WORKER_GROUP

    @property
    def executor_group(self) -> str:
        """Consumer group of the executors."""
        return self.topic_prefix + EXECUTOR_GROUP

    @property
    def dispatcher_group(self) -> str:
        """Consumer group of the dispatchers."""
        return self.topic_prefix + DISPATCHER_GROUP

    def instance_of(self, kind: str) -> str | None:
        """Instance id in the group of the processes of `kind`; None for a dynamic member."""
        return f"{self.topic_prefix}{kind}-{self.instance_id}" if self.instance_id else None

    def instance_id_in(self, kind: str, name: str) -> str:
        """The inverse, for any process of `kind`: its `instance_id`."""
        return name.removeprefix(f"{self.topic_prefix}{kind}-")


def load_settings(**overrides: Any) -> Settings:
    """Settings from the environment and the files it names; `overrides` come first.

    Raises `SettingsError` with one line for each wrong value, naming its variable. Values are not
    repeated, since addresses may carry passwords.
    """
    try:
        return Settings(**{**_from_files(), **overrides})
    except ValidationError as error:
        lines = []
        for issue in error.errors(include_url=False, include_context=False, include_input=False):
            name = "".join(f"{ENV_PREFIX}{str(part).upper()}: " for part in issue["loc"][:1])
            lines.append(name + issue["msg"].removeprefix("Value error, "))
        raise SettingsError("\n".join(lines)) from None


def _from_files() -> dict[str, str]:
    """What is in the files that `POD_AUTOMATION_<NAME>_FILE` names, as secrets are handed out."""
    found: dict[str, str] = {}
    wrong: list[str] = []
    for field in Settings.model_fields:
        name = ENV_PREFIX + field.upper()
        path = os.environ.get(name + FILE_SUFFIX)
        if not path:
            continue
        if name in os.environ:
            wrong.append(f"{name}{FILE_SUFFIX}: set this or {name}, not both")
            continue
        try:
            # An editor ends a file with a line end, which is no part of the value.
            found[field] = Path(path).read_text("utf-8").strip()
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or "it is not UTF-8"
            wrong.append(f"{name}{FILE_SUFFIX}: the file cannot be read: {reason}")
    if wrong:
        raise SettingsError("\n".join(wrong))
    return found
