"""Settings: one object, `CONF`, read from the environment and `.env`, and assignable in code before use."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from pydantic import AliasChoices, Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict
from pydantic_settings import SettingsError as UnreadableError

from agentexec.arguments.queue_names import MAX_QUEUE_NAME
from agentexec.arguments.served_queues import ServedQueue, describe_queues, served_by
from agentexec.arguments.setting_types import (
    Budgets,
    DashboardToken,
    DynamoTable,
    EncryptionKeys,
    ErrorMessage,
    ListenAddress,
    LogFormat,
    LogLevel,
    PayloadStore,
    QueueName,
    ServedQueues,
    SigningKeys,
    TablePrefix,
    Version,
    WebhookSecrets,
    split_keys,
)
from agentexec.arguments.variables import MAX_HOST_TIMEOUT, MIN_HOST_TIMEOUT, PREFIX, env_var_name
from agentexec.arguments.versions import DivergencePolicy
from agentexec.errors import SettingsError
from agentexec.llm.prices import ModelPrice
from agentexec.llm.rate_limits import parse_rate_limits
from agentexec.redaction import passwords

REDIS_BACKEND = "agentexec.state.redis_backend"
SQL_BACKEND = "agentexec.state.sql_backend"
MEMORY_BACKEND = "agentexec.state.memory_backend"
MODELS = "agentexec.activity.models"
EMBEDDED_DATABASE_URL = "sqlite:///agentexec.db"
SECRET_SETTINGS = frozenset(
    {"signing_key", "webhook_secret", "read_token_key", "dashboard_token", "mcp_token", "encryption_keys"}
)


class Settings(BaseSettings):
    """Settings of agentexec. The variable of a field is `AGENTEXEC_` and its name in capitals."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        str_strip_whitespace=True,  # files of secrets end with a line break
        env_file=".env",
        extra="ignore",
        validate_assignment=True,
        populate_by_name=True,
        env_ignore_empty=True,
    )

    redis_url: str | None = Field(
        default=None,
        validation_alias=AliasChoices("AGENTEXEC_REDIS_URL", "REDIS_URL"),
        description="URL of the Redis or Valkey server that holds the queue. Unset: the queue is in the SQL database.",
    )
    database_url: str | None = Field(
        default=None,
        validation_alias=AliasChoices("AGENTEXEC_DATABASE_URL", "DATABASE_URL"),
        description=f"SQLAlchemy URL of the record. Unset: {EMBEDDED_DATABASE_URL}.",
    )
    num_workers: int = Field(
        default=4, ge=1, le=512, description="Number of worker processes of one `agentexec worker`."
    )
    worker_concurrency: int = Field(
        default=10,
        ge=1,
        le=10_000,
        description="Number of tasks that each worker process runs at the same time.",
    )
    worker_module: str | None = Field(
        default=None, description="Module that `agentexec worker` and the other commands load."
    )
    queue_name: QueueName = Field(
        default="agentexec_tasks",
        min_length=1,
        max_length=MAX_QUEUE_NAME,
        description="Name of the queue: visible characters, without blanks, commas and double quotes, and without a colon and a "
        "number at the end.",
    )
    queues: ServedQueues = Field(
        default="",
        description="Queues that a worker serves: high,default in this order, or high:3,default:1 by weight. Unset: the one of "
        "AGENTEXEC_QUEUE_NAME.",
    )
    graceful_shutdown_timeout: float = Field(
        default=300, ge=0, description="Seconds that running tasks have to finish after SIGTERM or SIGINT."
    )
    table_prefix: TablePrefix = Field(
        default="agentexec_", max_length=40, description="Prefix of the table names."
    )
    result_ttl: int = Field(
        default=3600, ge=1, description="Seconds that a result is kept after its task has ended."
    )
    state_backend: str = Field(
        default=REDIS_BACKEND,
        description="Module of the state backend. The default applies once a Redis URL is set.",
    )
    key_prefix: str = Field(
        default="agentexec", min_length=1, max_length=60, description="Prefix of the Redis keys."
    )
    dynamodb_table: DynamoTable = Field(
        default="agentexec", description="Table of the DynamoDB state backend."
    )
    lease_seconds: float = Field(
        default=30,
        ge=0.5,
        le=3600,
        description="Seconds without a heartbeat after which another worker gets the task.",
    )
    host_timeout: float = Field(
        default=10,
        ge=MIN_HOST_TIMEOUT,
        le=MAX_HOST_TIMEOUT,
        description="Seconds without a sign of life from a host after which others get the tasks of its workers.",
    )
    max_crashes: int = Field(
        default=3,
        ge=1,
        le=100,
        description="Number of crashes, without a new recorded step in between, after which a task ends in ERROR.",
    )
    max_payload_bytes: int = Field(
        default=1_048_576,
        ge=1024,
        description="Size limit of a context, metadata or result, in bytes of JSON.",
    )
    payload_store: PayloadStore | None = Field(
        default=None,
        description="URL of the store of large values, such as file:///var/lib/agentexec or s3://bucket/folder, the same in every "
        "process. Unset: all values are in the database.",
    )
    payload_threshold: int = Field(
        default=65_536,
        ge=256,
        description="Size in bytes above which a value goes to the payload store.",
    )
    model_prices: dict[str, ModelPrice] = Field(
        default_factory=dict,
        description="Prices of models, as JSON: for each model, dollars per million tokens of input, cached_input and output.",
    )
    list_prices: bool = Field(
        default=True,
        description="Use of the price list shipped with agentexec, for models without a price in AGENTEXEC_MODEL_PRICES.",
    )
    connect_timeout: float = Field(
        default=30, ge=0, description="Seconds that a starting worker waits for Redis and the database."
    )
    rate_limits: str = Field(
        default="",
        description="Rate limits of models, shared by all workers, like gpt-4o=500rpm,200000tpm; *=60rpm.",
    )
    budgets: Budgets = Field(
        default="", description="Budgets shared by metadata key, like tenant=$50/day; *=2000000 tokens/hour."
    )
    rate_limit_wait: float = Field(
        default=5,
        ge=0,
        le=300,
        description="Longest time, in seconds, that a task keeps its slot while a model is rate limited. For a longer wait it goes back "
        "to the queue.",
    )
    max_retry_after: float = Field(
        default=3600,
        ge=1,
        le=604_800,
        description="Longest wait, in seconds, that a server's Retry-After may ask for; a longer one is cut to this.",
    )
    max_tasks_per_child: int = Field(
        default=0,
        ge=0,
        description="Number of tasks after which a worker process is replaced, up to a tenth fewer at random; 0 for never.",
    )
    max_memory_per_child: int = Field(
        default=0,
        ge=0,
        description="Memory in MiB (resident set) above which a worker process is replaced after its running tasks; 0 for never.",
    )
    hang_timeout: float = Field(
        default=300,
        ge=0,
        description="Seconds without an answer of its event loop after which a worker process is killed and replaced; 0 for never.",
    )
    worker_version: Version | None = Field(
        default=None,
        description="Version of the code of a worker's tasks, unless `@pool.task` names another. Unset: none.",
    )
    pin_versions: bool = Field(
        default=False,
        description="Run only what began with the version of a worker's own tasks, and what nobody has begun.",
    )
    on_divergence: DivergencePolicy = Field(
        default="fail",
        description="Policy for runs that a worker's code cannot replay: fail, restart or ask, unless `@pool.task` has another.",
    )
    burst: bool = Field(
        default=False, description="Stop once the queue holds nothing that is ready and no task runs here."
    )
    reload: bool = Field(
        default=False,
        description="Load the code again whenever a Python file changes, for development; needs agentexec[reload].",
    )
    pidfile: Path | None = Field(
        default=None,
        description="File that holds the pid of the supervisor while it runs. Unset: no file.",
    )
    heartbeat_file: Path | None = Field(
        default=None,
        description="File that a worker rewrites every second, for `agentexec worker --check`. Unset: no file.",
    )
    health_port: int | None = Field(
        default=None, ge=1, le=65535, description="Port of a worker's probes /livez and /readyz. Unset: none."
    )
    metrics_port: int | None = Field(
        default=None,
        ge=1,
        le=65535,
        description="Port of a worker's metrics for Prometheus, at /metrics; may be that of the probes. Unset: none.",
    )
    listen_address: ListenAddress = Field(
        default="",
        description="IP address of the ports of probes and metrics, such as 127.0.0.1. Unset: all addresses of the host, which "
        "the probes of Kubernetes need.",
    )
    opentelemetry: bool = Field(
        default=False,
        description="Spans and metrics of tasks and agents for OpenTelemetry, in applications and workers.",
    )
    signing_key: SigningKeys | None = Field(
        default=None,
        description="Key that signs the entries in Redis, 16 characters or more, the same in every process. Of several keys, with "
        "commas between them, the first one signs and all are accepted.",
    )
    read_token_key: SigningKeys | None = Field(
        default=None,
        description="Key that signs the read tokens of browsers, 16 characters or more, where the HTTP API runs. Of several keys, with "
        "commas between them, the first one signs and all are accepted. Unset: there are no read tokens.",
    )
    webhook_secret: WebhookSecrets | None = Field(
        default=None,
        description="Secret that signs webhooks (whsec_ and base64), where workers run. Of several, with commas between them, each signs.",
    )
    webhook_private_addresses: bool = Field(
        default=False, description="Send webhooks to private addresses too, such as those of the own network."
    )
    dashboard_token: DashboardToken | None = Field(
        default=None,
        description="Token that logs in to the web dashboard, 16 characters or more. Unset: `agentexec dashboard` prints one where it "
        "needs one.",
    )
    mcp_token: DashboardToken | None = Field(
        default=None,
        description="Token that clients of `agentexec mcp --http` must send, 16 characters or more. Unset: it serves this machine only.",
    )
    encryption_keys: EncryptionKeys | None = Field(
        default=None,
        description="Keys of Fernet that encrypt contexts, results, journals and conversations in the database. Of several, with "
        "commas between them, the first one encrypts and all decrypt. Unset: these values are stored as they are.",
    )
    log_level: LogLevel = Field(default="INFO", description="Log level of the worker.")
    log_format: LogFormat = Field(default="text", description="Format of the worker's log: text or json.")
    activity_message_create: str = Field(default="Waiting to start.", description="First log line of a task.")
    activity_message_started: str = Field(default="Task started.", description="Log line when a task starts.")
    activity_message_complete: str = Field(
        default="Task completed successfully.", description="Log line when a task completes."
    )
    activity_message_error: ErrorMessage = Field(
        default="Task failed with error: {error}",
        description="Log line when a task fails; {error} is the reason.",
    )

    @field_validator("rate_limits")
    @classmethod
    def _readable_limits(cls, value: str) -> str:
        parse_rate_limits(value)
        return value

    def __setattr__(self, name: str, value: Any) -> None:
        if not name.startswith("_") and name not in type(self).model_fields:
            raise SettingsError(f"There is no setting named {name}; see the settings table in README.md.")
        if name == "table_prefix" and value != self.table_prefix and MODELS in sys.modules:
            raise SettingsError(
                "AGENTEXEC_TABLE_PREFIX cannot be changed once the tables have their names; set it before any other part "
                "of agentexec is used."
            )
        try:
            super().__setattr__(name, value)
        except ValidationError as error:
            raise SettingsError(_sentence(error)) from None

    @property
    def served_queues(self) -> tuple[ServedQueue, ...]:
        """Queues that a worker serves: those of `queues`, or the one of `queue_name`."""
        return served_by(self.queues, self.queue_name)

    @property
    def queues_text(self) -> str:
        """The served queues, as a log line tells them."""
        return describe_queues(self.served_queues)

    @property
    def signing_keys(self) -> list[str]:
        """Keys of `signing_key`. The first one signs."""
        return split_keys(self.signing_key)

    @property
    def read_token_keys(self) -> list[str]:
        """Keys of `read_token_key`. The first one signs."""
        return split_keys(self.read_token_key)

    @property
    def webhook_secrets(self) -> list[str]:
        """Secrets of `webhook_secret`. Each one signs."""
        return split_keys(self.webhook_secret)

    @property
    def secrets(self) -> list[str]:
        """Texts that must not be shown: keys, secrets, tokens, and the passwords of the URLs."""
        urls = (self.redis_url, self.database_url, self.payload_store)
        tokens = [token.get_secret_value() for token in (self.dashboard_token, self.mcp_token) if token]
        keys = [
            *self.signing_keys,
            *self.read_token_keys,
            *self.webhook_secrets,
            *split_keys(self.encryption_keys),
        ]
        return [*keys, *tokens, *(password for url in urls if url for password in passwords(url))]

    @property
    def backend_module(self) -> str:
        """Module of the state backend in use: the one set explicitly, else Redis if a URL is set, else SQL."""
        if "state_backend" in self.model_fields_set:
            return self.state_backend
        return REDIS_BACKEND if self.redis_url else SQL_BACKEND


def explicit_settings() -> dict[str, Any]:
    """Return the settings set explicitly, in code or by environment variable, as JSON values."""
    values = CONF.model_dump(mode="json", include=CONF.model_fields_set)
    for name in SECRET_SETTINGS & values.keys():
        if (secret := getattr(CONF, name)) is not None:
            values[name] = secret.get_secret_value()
    return {name: value for name, value in values.items() if value is not None}


def _sentence(error: ValidationError) -> str:
    """Return the first problem of a settings error in one line, with its variable but without its value."""
    problem = error.errors(include_input=False, include_url=False)[0]
    name = str(problem["loc"][0]) if problem["loc"] else "settings"
    if name.lower() in Settings.model_fields:
        name = env_var_name(name)
    return f"{name} cannot be used: {problem['msg'].removeprefix('Value error, ')}."


def load_settings() -> Settings:
    """Read the settings from the environment and `.env`. Raises SettingsError that names the invalid variable."""
    try:
        return Settings()
    except ValidationError as error:
        raise SettingsError(_sentence(error)) from None
    except (UnreadableError, RecursionError) as error:
        # A variable with JSON: the error's text names only the field.
        known = [name for name in Settings.model_fields if f'"{name}"' in str(error)]
        if isinstance(error, RecursionError):
            known = ["model_prices"]  # the only nested setting
        raise SettingsError(
            f"{env_var_name(known[0]) if known else 'A setting'} cannot be used: it is not valid JSON."
        ) from None


CONF = load_settings()
