"""Names of all metrics and of the attributes of spans, with their labels and meanings."""

from __future__ import annotations

from typing import NamedTuple

SECONDS = (0.005, 0.025, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0, 7200.0)
"""Upper bounds of the buckets of durations: from a fast function to an agent that works for hours."""


class Counter(NamedTuple):
    """Metric that only grows. Of its labels, the values of the first may be many."""

    name: str
    help: str
    labels: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """Number of amounts of one series."""
        return 1


class Histogram(NamedTuple):
    """Metric of a distribution of seconds."""

    name: str
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = SECONDS

    @property
    def size(self) -> int:
        """Number of amounts of one series: one for each bucket, one for larger values, and the sum."""
        return len(self.buckets) + 2


class Gauge(NamedTuple):
    """Metric that rises and falls."""

    name: str
    help: str
    labels: tuple[str, ...] = ()


TASKS = Counter(
    "agentexec_tasks_total", "Tasks that ended on this host, by their final status.", ("task", "status")
)
RETRIES = Counter(
    "agentexec_task_retries_total", "Attempts that failed and are followed by another.", ("task",)
)
DURATION = Histogram(
    "agentexec_task_duration_seconds", "Length of attempts, until the handler ends.", ("task",)
)
WAIT = Histogram(
    "agentexec_task_wait_seconds",
    "Time from when a task may start until it starts, for each attempt.",
    ("task",),
)
TOKENS = Counter(
    "agentexec_tokens_total",
    "Tokens of model responses; kind input does not include cached_input.",
    ("model", "kind"),
)
REQUESTS = Counter("agentexec_model_requests_total", "Requests to models.", ("model",))
COST = Counter(
    "agentexec_cost_dollars_total", "Estimated cost of model responses whose price is known.", ("model",)
)
JOURNAL_APPENDS = Counter("agentexec_journal_appends_total", "Facts that durable runs recorded.", ("kind",))
OUTAGES = Counter("agentexec_outages_total", "Outages of a server, as this host saw them.", ("server",))
RESTARTS = Counter(
    "agentexec_worker_restarts_total",
    "Worker processes that were replaced: crash, hang, reload, recycle_tasks, recycle_memory.",
    ("reason",),
)

QUEUE_TASKS = Gauge(
    "agentexec_queue_tasks",
    "Tasks on the queue: ready, delayed, or leased to a worker of any host.",
    ("queue", "state"),
)
OLDEST_AGE = Gauge(
    "agentexec_queue_oldest_age_seconds",
    "Age of the oldest queued task that may start; 0 if there is none.",
    ("queue",),
)
RUNNING = Gauge("agentexec_running_tasks", "Tasks that the worker processes of this host run.")
LEASES = Gauge("agentexec_leases", "Tasks leased to the worker processes of this host.")
PROCESSES = Gauge("agentexec_worker_processes", "Worker processes of this host that live.")
SERVER_UP = Gauge("agentexec_server_up", "1 if a server answered lately, 0 if not.", ("server",))
INFO = Gauge("agentexec_info", "Always 1; the release is a label.", ("version",))

COUNTED: dict[str, Counter | Histogram] = {
    metric.name: metric
    for metric in (TASKS, RETRIES, DURATION, WAIT, TOKENS, REQUESTS, COST, JOURNAL_APPENDS, OUTAGES, RESTARTS)
}
"""Metrics that processes count, by name."""

GAUGES = (QUEUE_TASKS, OLDEST_AGE, RUNNING, LEASES, PROCESSES, SERVER_UP, INFO)
"""Metrics that are read when somebody asks."""

# ---- OpenTelemetry: the conventions for messaging, and what they have no name for --------------------------------

SCOPE = "agentexec"
"""Name of the tracer and the meter."""

SYSTEM = "messaging.system"
DESTINATION = "messaging.destination.name"
OPERATION_NAME = "messaging.operation.name"
OPERATION_TYPE = "messaging.operation.type"
MESSAGE_ID = "messaging.message.id"
BATCH_COUNT = "messaging.batch.message_count"
ERROR_TYPE = "error.type"
TASK_NAME = "agentexec.task.name"
ATTEMPT = "agentexec.task.attempt"
OUTCOME = "agentexec.attempt.outcome"

OPERATION_DURATION = "messaging.client.operation.duration"
PROCESS_DURATION = "messaging.process.duration"
SENT_MESSAGES = "messaging.client.sent.messages"
CONSUMED_MESSAGES = "messaging.client.consumed.messages"

MESSAGING_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)
"""Upper bounds of buckets that the conventions advise."""
