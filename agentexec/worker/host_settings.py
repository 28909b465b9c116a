"""Settings of a host: those that its supervisor needs, without the library that reads and checks settings."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from agentexec.arguments.served_queues import describe_queues, served_by

if TYPE_CHECKING:
    from agentexec.config import Settings


@dataclass
class HostSettings:
    """Settings of one supervisor, named as in `Settings`, which has checked them."""

    num_workers: int
    worker_concurrency: int
    queue_name: str
    queues: str
    graceful_shutdown_timeout: float
    host_timeout: float
    max_tasks_per_child: int
    max_memory_per_child: int
    hang_timeout: float
    burst: bool
    reload: bool
    pidfile: Path | None
    heartbeat_file: Path | None
    health_port: int | None
    metrics_port: int | None
    listen_address: str
    opentelemetry: bool
    log_level: str
    log_format: str
    secrets: list[str]
    """Texts that must not be shown."""

    @classmethod
    def of(cls, settings: Settings | HostSettings) -> Self:
        """Return the settings of a host as they are now."""
        return cls(**{field.name: getattr(settings, field.name) for field in fields(cls)})

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """Return the settings of which `to_dict` made the JSON values."""
        values = dict(data)
        for name in ("pidfile", "heartbeat_file"):
            values[name] = values[name] and Path(values[name])
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as JSON values, with the secrets."""
        values = asdict(self)
        return {name: str(value) if isinstance(value, Path) else value for name, value in values.items()}

    @property
    def queues_text(self) -> str:
        """The served queues, as a log line tells them."""
        return describe_queues(served_by(self.queues, self.queue_name))
