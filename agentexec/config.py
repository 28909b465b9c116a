"""Settings: one object, `CONF`, filled from the environment and `.env`, assignable in code before use."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import AliasChoices, Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict
from pydantic_settings import SettingsError as UnreadableError

from agentexec.errors import SettingsError
from agentexec.llm.prices import ModelPrice
from agentexec.llm.rate_limits import parse_rate_limits
from agentexec.redaction import passwords

PREFIX = "AGENTEXEC_"
REDIS_BACKEND = "agentexec.state.redis_backend"
SQL_BACKEND = "agentexec.state.sql_backend"
MEMORY_BACKEND = "agentexec.state.memory_backend"
MODELS = "agentexec.activity.models"
EMBEDDED_DATABASE_URL = "sqlite:///agentexec.db"
SHORTEST_KEY = 16


class Settings(BaseSettings):
    """Every setting of agentexec; the variable of a field is its name in capitals behind `AGENTEXEC_`."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_file=".env",
        extra="ignore",
        validate_assignment=True,
        populate_by_name=True,
        env_ignore_empty=True,
    )

    redis_url: str | None = Field(
        default=None,
        validation_alias=AliasChoices("AGENTEXEC_REDIS_URL", "REDIS_URL"),
        description="Redis or Valkey that holds the queue. Unset: the queue lives in the SQL database.",
    )
    database_url: str | None = Field(
        default=None,
        validation_alias=AliasChoices("AGENTEXEC_DATABASE_URL", "DATABASE_URL"),
        description=f"SQLAlchemy URL of the record. Unset: {EMBEDDED_DATABASE_URL}.",
    )
    num_workers: int = Field(
        default=4, ge=1, le=512, description="Worker processes of one `agentexec worker`."
    )
    worker_concurrency: int = Field(default=10, ge=1, le=10_000, description="Tasks at once in each process.")
    worker_module: str | None = Field(default=None, description="Module that `agentexec worker` loads.")
    queue_name: str = Field(default="agentexec_tasks", min_length=1, max_length=100, description="The queue.")
    graceful_shutdown_timeout: float = Field(
        default=300, ge=0, description="Seconds that running tasks get to finish after SIGTERM or SIGINT."
    )
    table_prefix: str = Field(default="agentexec_", max_length=40, description="Prefix of every table.")
    result_ttl: int = Field(
        default=3600, ge=1, description="Seconds that a result is kept after its task ended."
    )
    state_backend: str = Field(
        default=REDIS_BACKEND,
        description="Module of the state backend. The default takes effect once a Redis URL is set.",
    )
    key_prefix: str = Field(
        default="agentexec", min_length=1, max_length=60, description="Prefix of Redis keys."
    )
    lease_seconds: float = Field(
        default=30,
        ge=0.5,
        le=3600,
        description="Seconds without a heartbeat after which a task is given to another.",
    )
    max_crashes: int = Field(
        default=3,
        ge=1,
        le=100,
        description="Deaths of its process, without a new recorded step in between, after which a task ends in ERROR.",
    )
    max_payload_bytes: int = Field(
        default=1_048_576, ge=1024, description="Largest context, metadata or result, in bytes of JSON."
    )
    model_prices: dict[str, ModelPrice] = Field(
        default_factory=dict,
        description="What models cost, as JSON: model to dollars per million tokens of input, cached_input, output.",
    )
    list_prices: bool = Field(
        default=True,
        description="Whether models without a price in AGENTEXEC_MODEL_PRICES have that of the list in agentexec.",
    )
    connect_timeout: float = Field(
        default=30, ge=0, description="Seconds that a starting worker waits for Redis and the database."
    )
    rate_limits: str = Field(
        default="",
        description="Limits of models for all workers together, like gpt-4o=500rpm,200000tpm; *=60rpm.",
    )
    rate_limit_wait: float = Field(
        default=5,
        ge=0,
        le=300,
        description="Seconds that a task keeps its place while a model is rate limited; for longer it is given back.",
    )
    heartbeat_file: Path | None = Field(
        default=None,
        description="File that a worker rewrites every second, for `agentexec worker --check`. Unset: none.",
    )
    signing_key: SecretStr | None = Field(
        default=None,
        description="Key with which what stands in Redis is signed, 16 characters or more; several with commas: the first "
        "signs, all are accepted. The same in every process.",
    )
    log_level: str = Field(default="INFO", description="Level of the worker's log.")
    activity_message_create: str = Field(default="Waiting to start.", description="First log line of a task.")
    activity_message_started: str = Field(default="Task started.", description="Log line when a task starts.")
    activity_message_complete: str = Field(
        default="Task completed successfully.", description="Log line when a task completes."
    )
    activity_message_error: str = Field(
        default="Task failed with error: {error}",
        description="Log line when a task fails; {error} is the reason.",
    )

    @field_validator("log_level")
    @classmethod
    def _known_level(cls, value: str) -> str:
        level = value.upper()
        if level not in {"DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"}:
            raise ValueError("must be one of DEBUG, INFO, WARNING, ERROR, CRITICAL")
        return level

    @field_validator("signing_key")
    @classmethod
    def _long_keys(cls, value: SecretStr | None) -> SecretStr | None:
        if any(len(key) < SHORTEST_KEY for key in _split_keys(value)):
            raise ValueError(f"each key needs {SHORTEST_KEY} characters or more, with commas between keys")
        return value

    @field_validator("rate_limits")
    @classmethod
    def _readable_limits(cls, value: str) -> str:
        parse_rate_limits(value)
        return value

    @field_validator("table_prefix")
    @classmethod
    def _plain_prefix(cls, value: str) -> str:
        if value and not value.replace("_", "a").isalnum():
            raise ValueError("may hold letters, digits and underscores only")
        return value

    @field_validator("activity_message_error")
    @classmethod
    def _formattable(cls, value: str) -> str:
        try:
            value.format(error="")
        except (KeyError, IndexError, ValueError):
            raise ValueError("may hold no placeholder but {error}") from None
        return value

    def __setattr__(self, name: str, value: Any) -> None:
        if not name.startswith("_") and name not in type(self).model_fields:
            raise SettingsError(f"There is no setting named {name}; see the settings table in README.md.")
        if name == "table_prefix" and value != self.table_prefix and MODELS in sys.modules:
            raise SettingsError(
                "AGENTEXEC_TABLE_PREFIX cannot be changed once the tables have their names; set it before anything "
                "else of agentexec is used."
            )
        try:
            super().__setattr__(name, value)
        except ValidationError as error:
            raise SettingsError(_sentence(error)) from None

    @property
    def signing_keys(self) -> list[str]:
        """The keys of `signing_key`, the one that signs first."""
        return _split_keys(self.signing_key)

    @property
    def secrets(self) -> list[str]:
        """What must not be shown to anybody: the signing keys, and the passwords of the URLs."""
        urls = (self.redis_url, self.database_url)
        return [*self.signing_keys, *(one for url in urls if url for one in passwords(url))]

    @property
    def backend_module(self) -> str:
        """The state backend in force: the named one; else Redis where a URL is set, else SQL."""
        if "state_backend" in self.model_fields_set:
            return self.state_backend
        return REDIS_BACKEND if self.redis_url else SQL_BACKEND


def explicit_settings() -> dict[str, Any]:
    """The settings that were made, in code or by variables, as values that JSON can carry."""
    made = CONF.model_dump(mode="json", include=CONF.model_fields_set)
    if CONF.signing_key is not None and "signing_key" in made:
        made["signing_key"] = CONF.signing_key.get_secret_value()
    return {name: value for name, value in made.items() if value is not None}


def to_environment(values: Mapping[str, Any]) -> dict[str, str]:
    """Settings by name, as environment variables."""
    return {
        env_var_name(name): str(value) if isinstance(value, str | Path) else json.dumps(value)
        for name, value in values.items()
    }


def _split_keys(keys: SecretStr | None) -> list[str]:
    return [] if keys is None else [key.strip() for key in keys.get_secret_value().split(",")]


def env_var_name(field: str) -> str:
    """The environment variable of a settings field."""
    return PREFIX + field.upper()


def _sentence(error: ValidationError) -> str:
    """The first fault of a settings error in one line that names its variable and keeps its value to itself."""
    fault = error.errors(include_input=False, include_url=False)[0]
    name = str(fault["loc"][0]) if fault["loc"] else "settings"
    if name.lower() in Settings.model_fields:
        name = env_var_name(name)
    return f"{name} cannot be used: {fault['msg'].removeprefix('Value error, ')}."


def load_settings() -> Settings:
    """Read the settings from the environment and `.env`; raises SettingsError naming a bad variable."""
    try:
        return Settings()
    except ValidationError as error:
        raise SettingsError(_sentence(error)) from None
    except (UnreadableError, RecursionError) as error:
        # Of a variable that holds JSON; its text names the field alone.
        known = [name for name in Settings.model_fields if f'"{name}"' in str(error)]
        if isinstance(error, RecursionError):
            known = ["model_prices"]  # the one that is nested
        raise SettingsError(
            f"{env_var_name(known[0]) if known else 'A setting'} cannot be used: it is no valid JSON."
        ) from None


CONF = load_settings()
