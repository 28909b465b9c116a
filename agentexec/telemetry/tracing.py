"""Spans and messaging metrics of tasks, by OpenTelemetry's conventions and through its API alone.

They go to whatever provider the process has. Without one they go nowhere.
"""

from __future__ import annotations

import time
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

from opentelemetry import metrics, trace
from opentelemetry.context import Context
from opentelemetry.trace import (
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    StatusCode,
    TraceFlags,
    set_span_in_context,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from agentexec.telemetry import names

MAX_CARRIER = 600
"""Characters of a trace context; a `tracestate` that makes it longer is left out, as W3C allows."""

_W3C = TraceContextTextMapPropagator()


class Tracing:
    """Spans and metrics of one process. Threads: any may call everything.

    Args:
        tracers: Provider of the tracer; by default that of the process.
        meters: Provider of the meter, likewise.
    """

    def __init__(
        self, tracers: trace.TracerProvider | None = None, meters: metrics.MeterProvider | None = None
    ) -> None:
        self._tracer = trace.get_tracer(names.SCOPE, tracer_provider=tracers)
        meter = metrics.get_meter(names.SCOPE, meter_provider=meters)
        buckets = names.MESSAGING_SECONDS
        self._operation_duration = meter.create_histogram(
            names.OPERATION_DURATION, "s", explicit_bucket_boundaries_advisory=buckets
        )
        self._process_duration = meter.create_histogram(
            names.PROCESS_DURATION, "s", explicit_bucket_boundaries_advisory=names.SECONDS
        )
        self._sent = meter.create_counter(names.SENT_MESSAGES, "{message}")
        self._consumed = meter.create_counter(names.CONSUMED_MESSAGES, "{message}")

    @contextmanager
    def sending(self, task_name: str, queue: str) -> Generator[Span]:
        """Trace and measure the enqueuing inside the block; the span is current there."""
        attributes = _attributes(queue, "send", "send")
        began = time.monotonic()
        try:
            with self._tracer.start_as_current_span(
                f"send {task_name}",
                kind=SpanKind.PRODUCER,
                attributes={**attributes, names.TASK_NAME: task_name},
                record_exception=False,
                set_status_on_exception=False,
            ) as span:
                try:
                    yield span
                except BaseException as error:
                    attributes[names.ERROR_TYPE] = type(error).__name__
                    _note_error(span, type(error).__name__)
                    raise
        finally:
            self._operation_duration.record(time.monotonic() - began, attributes)

    def note_sent(self, span: Span, agent_ids: list[UUID], queue: str) -> None:
        """Note the tasks that a call has enqueued."""
        if len(agent_ids) == 1:
            span.set_attribute(names.MESSAGE_ID, str(agent_ids[0]))
        else:
            span.set_attribute(names.BATCH_COUNT, len(agent_ids))
        self._sent.add(len(agent_ids), _attributes(queue, "send", "send"))

    def carrier(self, task_name: str, queue: str) -> str | None:
        """Return the current trace context as text, to be kept with a new task; None if there is no provider.

        A task that nobody's code enqueues, such as that of a schedule, gets a span of its own.
        """
        if trace.get_current_span().get_span_context().is_valid:
            return _inject()
        with self.sending(task_name, queue):
            return _inject()

    @contextmanager
    def processing(
        self, task_name: str, agent_id: UUID, attempt: int, queue: str, carrier: str | None
    ) -> Generator[AttemptSpan]:
        """Trace and measure the attempt inside the block; its span is current there, and in the threads of its handler."""
        attributes = _attributes(queue, "process", "process")
        self._consumed.add(1, attributes)
        began = time.monotonic()
        try:
            with self._tracer.start_as_current_span(
                f"process {task_name}",
                context=_extract(carrier, agent_id),
                kind=SpanKind.CONSUMER,
                attributes={
                    **attributes,
                    names.MESSAGE_ID: str(agent_id),
                    names.TASK_NAME: task_name,
                    names.ATTEMPT: attempt,
                },
                record_exception=False,
                set_status_on_exception=False,
            ) as span:
                yield AttemptSpan(span, attributes)
        finally:
            self._process_duration.record(time.monotonic() - began, attributes)

    def close(self) -> None:
        """Do nothing: providers belong to the process."""


class AttemptSpan:
    """Span of an attempt that runs."""

    def __init__(self, span: Span, attributes: dict[str, Any]) -> None:
        self._span = span
        self._attributes = attributes

    def note_outcome(self, outcome: str, error: str | None) -> None:
        """Note how the attempt ended. Of an error, its class and its first line, without secrets."""
        self._span.set_attribute(names.OUTCOME, outcome)
        if error is not None:
            kind, _, _ = error.partition(":")
            self._attributes[names.ERROR_TYPE] = kind if kind.isidentifier() else "error"
            _note_error(self._span, self._attributes[names.ERROR_TYPE], error.partition("\n")[0])


def _attributes(queue: str, name: str, kind: str) -> dict[str, Any]:
    return {
        names.SYSTEM: names.SCOPE,
        names.DESTINATION: queue,
        names.OPERATION_NAME: name,
        names.OPERATION_TYPE: kind,
    }


def _note_error(span: Span, kind: str, description: str | None = None) -> None:
    span.set_attribute(names.ERROR_TYPE, kind)
    span.set_status(StatusCode.ERROR, description)


def _inject() -> str | None:
    fields: dict[str, str] = {}
    _W3C.inject(fields)
    parent, state = fields.get("traceparent"), fields.get("tracestate")
    if parent is None:
        return None
    text = f"{parent} {state}" if state else parent
    return text if len(text) <= MAX_CARRIER else parent


def _extract(carrier: str | None, agent_id: UUID) -> Context:
    """Return the context of the call that enqueued a task.

    Without one, or if the text is none, the trace is named after the task, so that all attempts still share it.
    """
    parent, _, state = (carrier or "").partition(" ")
    context = _W3C.extract({"traceparent": parent, "tracestate": state}, context=Context())
    if trace.get_current_span(context).get_span_context().is_valid:
        return context
    flags = TraceFlags(TraceFlags.SAMPLED)
    derived = SpanContext(
        agent_id.int, agent_id.int & 0xFFFF_FFFF_FFFF_FFFF or 1, is_remote=True, trace_flags=flags
    )
    return set_span_in_context(NonRecordingSpan(derived), Context())
