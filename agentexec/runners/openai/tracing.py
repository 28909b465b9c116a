"""Traces of durable runs: one per task, in which nothing is written again that a replay only repeats."""

from __future__ import annotations

import functools
import logging
import os
import threading
from typing import Any
from uuid import UUID

from agents.tracing import get_current_span, get_trace_provider
from agents.tracing.processors import default_exporter, default_processor
from agents.tracing.provider import DefaultTraceProvider

from agentexec.config import CONF
from agentexec.journal.scopes import SCOPE

log = logging.getLogger("agentexec.runners")

CONTENT_VARIABLES = (
    "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT",
    "OTEL_INSTRUMENTATION_OPENAI_AGENTS_CAPTURE_CONTENT",
)
"""Variables that ask for the texts of messages in spans."""

PATCH_MARK = "_agentexec_patch"


def trace_id_of(agent_id: UUID) -> str:
    """Return the id of a task's trace, which is the same in every attempt."""
    return f"trace_{agent_id.hex}"


class ReplayedSpans:
    """Spans of a run, with all runs inside it, of which it is not known yet whether they are only repeated.

    A span that begins during a replay is held back. Once something new happens inside it, it goes to the processors
    with its original time, and so do the spans around it. One that ends before was written by an earlier attempt.
    """

    def __init__(self) -> None:
        self._held: dict[str, tuple[Any, Any]] = {}
        self._new: set[str] = set()

    def watch(self, span: Any, replaying: bool) -> None:
        """Watch a span that has not started."""
        if (replaying or self._held) and hasattr(span, "_processor"):
            span._processor = _SpanGate(self, span._processor, replaying)

    def let_through(self) -> None:
        """Note that something new happens inside the current span: it and the spans around it are written."""
        span = get_current_span()
        if span is not None and self._held:
            self._new.add(span.span_id)
            self._release(span.span_id)

    def start(self, span: Any, processor: Any, replaying: bool) -> None:
        """Write a span's start, or hold it back."""
        if replaying and span.parent_id not in self._new:
            self._held[span.span_id] = (span, processor)
            return
        self._new.add(span.span_id)
        self._release(span.parent_id)
        processor.on_span_start(span)

    def end(self, span: Any, processor: Any) -> None:
        """Write a span's end, or forget a span that was only repeated."""
        self._new.discard(span.span_id)
        if span.span_id in self._held:
            if span.error is None:
                del self._held[span.span_id]
                return
            # An error ends the attempt, or is new to the model: it is never left out.
            self._release(span.span_id)
        processor.on_span_end(span)

    def _release(self, span_id: str | None) -> None:
        """Write the start of a held span, after those of the spans around it."""
        chain = []
        while span_id is not None and (held := self._held.pop(span_id, None)) is not None:
            chain.append(held)
            span_id = held[0].parent_id
        for span, processor in reversed(chain):
            processor.on_span_start(span)


class _SpanGate:
    """Processor of one watched span."""

    def __init__(self, spans: ReplayedSpans, processor: Any, replaying: bool) -> None:
        self._spans = spans
        self._processor = processor
        self._replaying = replaying

    def on_span_start(self, span: Any) -> None:
        self._spans.start(span, self._processor, self._replaying)

    def on_span_end(self, span: Any) -> None:
        self._spans.end(span, self._processor)


def patch_tracing() -> None:
    """Make the SDK's spans known to the durable run that they belong to. Repeated calls have no effect.

    With OpenTelemetry on, the spans also go there.
    """
    if CONF.opentelemetry:
        _instrument()
    create = DefaultTraceProvider.create_span
    if hasattr(create, PATCH_MARK):
        return

    @functools.wraps(create)
    def create_span(self: Any, *args: Any, **kwargs: Any) -> Any:
        span = create(self, *args, **kwargs)
        scope = SCOPE.get()
        run = scope.run if scope is not None else None
        spans = getattr(run, "spans", None)
        if spans is not None:
            spans.watch(span, getattr(run, "replaying", False))
        return span

    setattr(create_span, PATCH_MARK, True)
    DefaultTraceProvider.create_span = create_span  # ty: ignore[invalid-assignment]


def _instrument() -> None:
    """Send the SDK's spans to OpenTelemetry too, unless the application has arranged that itself.

    What models and tools were told and said stays out of them, unless a variable of OpenTelemetry asks for it.
    """
    try:
        from opentelemetry.instrumentation.openai_agents import (  # noqa: PLC0415 - an extra
            OpenAIAgentsInstrumentor,
        )
    except ImportError:
        return
    instrumentor = OpenAIAgentsInstrumentor()
    if not instrumentor.is_instrumented_by_opentelemetry:
        if not default_exporter().api_key:
            _drop_default_processor()
        asked = any(name in os.environ for name in CONTENT_VARIABLES)
        instrumentor.instrument(**({} if asked else {"capture_message_content": False}))


def _drop_default_processor() -> None:
    """Take out the processor that sends to OpenAI: without a key it logs a line for each batch."""
    provider: Any = get_trace_provider()
    processors = getattr(getattr(provider, "_multi_processor", None), "_processors", ())
    provider.set_processors([processor for processor in processors if processor is not default_processor()])


def flush_traces(seconds: float) -> None:
    """Export the traces that wait for their next batch, for at most some seconds."""
    thread = threading.Thread(target=get_trace_provider().force_flush, name="agentexec-traces", daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        log.warning("The last traces could not be exported within %g s.", seconds)
