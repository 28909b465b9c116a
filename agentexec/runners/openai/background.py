"""Model calls in the background: the response's id is recorded before anything waits for it, so no other worker asks again.

The SDK's model makes its request as always, with a client that lets the provider answer in the background
(`background: true`) and returns the finished response.
"""

from __future__ import annotations

import asyncio
import copy
import dataclasses
import hashlib
import json
import logging
from collections.abc import AsyncGenerator, Coroutine, Sequence
from contextlib import aclosing
from typing import Any, TypeVar

from agents import Model, OpenAIResponsesModel
from agents.models.openai_responses import OpenAIResponsesWSModel

from agentexec.errors import AgentexecError, BackgroundResponseError, LeaseLostError, UsageError
from agentexec.journal.facts import Fact, FactKind, background_path, dump
from agentexec.journal.recorder import SETTLE_SECONDS
from agentexec.journal.store import is_canceled
from agentexec.runners.budgets import add_log_line
from agentexec.runners.openai.background_waits import (
    Attached,
    end_event,
    event_status,
    follow,
    is_over,
    long_wait,
    poll,
    shows_output,
)
from agentexec.runners.openai.proxy import SdkProxy
from agentexec.runners.openai.run import DurableRun
from agentexec.runtime import RUNTIME

log = logging.getLogger("agentexec.background")

T = TypeVar("T")

CANCEL_TIMEOUT = 10.0

WORTH_A_RETRY = frozenset({"server_error", "rate_limit_exceeded", "vector_store_timeout"})
"""Error codes of failed responses after which the same request may succeed."""


@dataclasses.dataclass(frozen=True, slots=True)
class OpenResponse:
    """A response that was asked for and whose end is not recorded."""

    response_id: str
    streamed: bool
    wraps_up: bool


class BackgroundCall:
    """One model call of a run that is answered in the background, with what the journal knows about it.

    At its path the journal holds a fact for each response that was asked for, and one for each that ended without an
    answer.
    """

    def __init__(self, run: DurableRun, input_hash: str) -> None:
        self._recorder = run.recorder
        self._input_hash = input_hash
        self.agent_id = run.recorder.lease.agent_id
        """The task."""
        self.unfinished = run.recorder.unfinished
        self.path = background_path(run.path, run.next_turn)
        self._recorder.passed.note_claimed(self.path)
        self._recorder.require_same_input(self.path, 0, input_hash, f"model call {run.next_turn}")
        self.open = _load(self._recorder.facts(self.path))
        """The response that is under way; None if none is."""
        self.wraps_up = self.open is not None and self.open.wraps_up
        """True if the call is its run's last one, made without tools."""

    @property
    def idempotency_key(self) -> str:
        """The key of the next request: the same in every attempt, until a response to it is recorded."""
        number = len(self._recorder.facts(self.path))
        place = f"{self.agent_id}/{self.path}/{number}/{self._input_hash}"
        return f"agentexec-{hashlib.sha256(place.encode()).hexdigest()[:40]}"

    async def record_begin(self, response_id: str, *, streamed: bool) -> None:
        """Record the id of a response that the provider has begun."""
        opened = OpenResponse(response_id, streamed, self.wraps_up)
        await self._record(dataclasses.asdict(opened))
        self.open = opened

    async def record_end(self, status: str) -> None:
        """Record that the response ended without an answer: the next request asks again."""
        opened, self.open = self.open, None
        if opened is not None:
            await self._record({"response_id": opened.response_id, "ended": status})

    async def _record(self, value: dict[str, Any]) -> None:
        text = dump(value, "The id of a response")
        await self._recorder.record(self.path, FactKind.BACKGROUND, self._input_hash, text)

    async def was_canceled(self) -> bool:
        """Return True if somebody has canceled the task; False also if the record cannot be read."""
        try:
            return await RUNTIME.run_in_thread(is_canceled, RUNTIME.engine, self.agent_id)
        except AgentexecError:
            return False

    def model(self, inner: Model) -> Model:
        """Return the SDK's model with a client that answers this call."""
        model: Any = copy.copy(inner)
        own_client = model._get_client
        model._get_client = lambda: _BackgroundClient(own_client(), self)
        return model


def _load(facts: Sequence[Fact]) -> OpenResponse | None:
    latest: dict[str, Any] = json.loads(facts[-1].value) if facts else {"ended": ""}
    if "ended" in latest:
        return None
    return OpenResponse(latest["response_id"], latest["streamed"], latest["wraps_up"])


def background_call(run: DurableRun, model: Model, settings: Any, input_hash: str) -> BackgroundCall | None:
    """Return a model call that is to be answered in the background; None for one that is not.

    The setting of an agent, `ModelSettings(extra_args={"background": …})`, comes before that of its runner.
    """
    own = (settings.extra_args or {}).get("background")
    if own is False or (own is None and not run.scope.background):
        return None
    if (
        isinstance(model, OpenAIResponsesModel)
        and not isinstance(model, OpenAIResponsesWSModel)
        and hasattr(model, "_get_client")
    ):
        return BackgroundCall(run, input_hash)
    if own is None and not _is_scripted(model) and type(model).__name__ not in run.without_background:
        run.without_background.add(type(model).__name__)
        log.warning(
            "Agent %s calls its model in the foreground: %s has no background responses, which need OpenAI's Responses "
            "API over HTTP.",
            run.active_agent,
            type(model).__name__,
        )
    return None


def _is_scripted(model: Model) -> bool:
    """Return True for the model of a test, which calls nobody."""
    return any(base.__module__.startswith("agents.testing") for base in type(model).__mro__)


class _BackgroundClient(SdkProxy):
    """The client of a model, whose `responses.create` returns what the background call brings."""

    def __init__(self, client: Any, call: BackgroundCall) -> None:
        super().__init__(client)
        self.responses = _BackgroundResponses(client, call)


class _BackgroundResponses:
    with_streaming_response = None
    """Tells the SDK to stream by `create`, as with any client that has nothing else."""

    def __init__(self, client: Any, call: BackgroundCall) -> None:
        self._responses = client.responses
        self._call = call
        self._noted: OpenResponse | None = None

    async def create(self, **request: Any) -> Any:
        """Return the finished response, or an iterator over its events.

        Raises BackgroundResponseError if it was canceled, or its answer is gone, twice; UsageError for store=False.
        """
        if request.get("store") is False:
            raise UsageError(
                "Background responses are stored by the provider until they are fetched, so they do not go with "
                "store=False; leave store out of the agent's ModelSettings, or background=True out of the runner."
            )
        headers = {"Idempotency-Key": self._call.idempotency_key, **(request.get("extra_headers") or {})}
        request = {**request, "background": True, "extra_headers": headers}
        return self._stream(request) if request.get("stream") is True else await self._whole(request)

    async def _whole(self, request: dict[str, Any]) -> Any:
        response = await self._answer(request)
        if await self._shall_ask_again(response):
            response = await self._answer(self._again(request))
            await self._note_end(response)
        if response is None or response.status == "cancelled":
            raise self._lost(response)
        return response  # of one that has failed or is incomplete, the SDK makes an error

    def _again(self, request: dict[str, Any]) -> dict[str, Any]:
        headers = {**request["extra_headers"], "Idempotency-Key": self._call.idempotency_key}
        return {**request, "extra_headers": headers}

    async def _answer(self, request: dict[str, Any]) -> Any:
        """Return the response at its end; None if the provider does not have it any more."""
        try:
            opened = self._call.open
            if opened is not None:
                return await long_wait(poll(self._responses, opened.response_id), self._note_wait)
            response = await self._to_the_id(self._begin(request))
            if is_over(response):
                return response
            return await long_wait(poll(self._responses, response.id), self._note_wait)
        except asyncio.CancelledError:
            await self._cancel_if_canceled()
            raise

    async def _stream(self, request: dict[str, Any]) -> AsyncGenerator[Any]:
        for is_last in (False, True):
            has_output = ended = False
            async with aclosing(self._events(request)) as events:
                async for event in events:
                    has_output = has_output or shows_output(event)
                    ended = event_status(event) is not None
                    if not ended:
                        yield event
                        continue
                    response = getattr(event, "response", None)
                    if await self._shall_ask_again(response) and not (has_output or is_last):
                        break
                    if getattr(response, "status", None) == "cancelled":
                        raise self._lost(response)
                    yield event
                    return
            if not ended:
                await self._note_end(None)
                if has_output or is_last:
                    raise self._lost(None)
            request = self._again(request)

    async def _events(self, request: dict[str, Any]) -> AsyncGenerator[Any]:
        """Yield the events of the response from its first one, over broken connections; none if the provider lost it."""
        finished = False
        try:
            opened = self._call.open
            if opened is None:
                attached = await self._to_the_id(self._begin_stream(request))
            else:
                attached = Attached(opened.response_id, can_stream=opened.streamed)
            async for event in follow(self._responses, attached, self._note_wait):
                finished = event_status(event) is not None
                yield event
            if not finished:
                response = await long_wait(poll(self._responses, attached.response_id), self._note_wait)
                finished = True
                if response is not None:
                    yield end_event(response, attached.after)
        finally:
            if not finished:
                await self._cancel_if_canceled()

    async def _begin(self, request: dict[str, Any]) -> Any:
        response = await self._responses.create(**request)
        if not is_over(response):
            await self._record_begin(response.id, streamed=False)
        return response

    async def _begin_stream(self, request: dict[str, Any]) -> Attached:
        stream = await self._responses.create(**request)
        event = await anext(stream, None)
        response = getattr(event, "response", None)
        if response is None:
            await stream.close()
            said = getattr(event, "message", None) or "no event came"
            raise BackgroundResponseError(f"The provider did not begin a background response: {said}.")
        await self._record_begin(response.id, streamed=True)
        return Attached(response.id, stream=stream, first=event)

    async def _record_begin(self, response_id: str, *, streamed: bool) -> None:
        try:
            await self._call.record_begin(response_id, streamed=streamed)
        except LeaseLostError:
            # The task was canceled, or another worker has it and asks for itself: nobody will fetch this one.
            await self._cancel(response_id)
            raise

    async def _to_the_id(self, begin: Coroutine[Any, Any, T]) -> T:
        """Await a request to the end even if the task is stopped: with its id on record, the next worker goes on."""
        request = asyncio.ensure_future(begin)
        request.add_done_callback(_forget_error)
        self._call.unfinished.add(request)
        request.add_done_callback(self._call.unfinished.discard)
        try:
            return await asyncio.shield(request)
        except asyncio.CancelledError:
            await asyncio.wait({request}, timeout=SETTLE_SECONDS)
            request.cancel()
            raise

    async def _shall_ask_again(self, response: Any) -> bool:
        """Record an end without an answer; decide whether the same request is worth another try."""
        await self._note_end(response)
        status = None if response is None else response.status
        if status == "failed":
            code = getattr(response.error, "code", None)
            return code is None or code in WORTH_A_RETRY
        return status in (None, "cancelled")

    async def _note_end(self, response: Any) -> None:
        status = "expired" if response is None else response.status
        if status != "completed" and self._call.open is not None:
            log.warning(
                "A background response of task %s ended without an answer: %s.", self._call.agent_id, status
            )
            await self._call.record_end(status)

    def _lost(self, response: Any) -> BackgroundResponseError:
        what = "is gone from the provider" if response is None else "was canceled at the provider"
        return BackgroundResponseError(
            f"A background response {what}, and so is the one that was asked for instead."
        )

    async def _note_wait(self) -> None:
        opened = self._call.open
        if opened is not None and self._noted != opened:
            self._noted = opened
            await add_log_line(self._call.agent_id, f"Waiting for background response {opened.response_id}.")

    async def _cancel_if_canceled(self) -> None:
        """Cancel the response if the task was canceled; a task that only leaves this worker will fetch it."""
        work = asyncio.ensure_future(self._check_and_cancel())
        work.add_done_callback(_forget_error)
        await asyncio.shield(work)

    async def _check_and_cancel(self) -> None:
        opened = self._call.open
        if opened is not None and await self._call.was_canceled():
            await self._cancel(opened.response_id)

    async def _cancel(self, response_id: str) -> None:
        try:
            await self._responses.cancel(response_id, timeout=CANCEL_TIMEOUT)
        except Exception as error:
            log.warning(
                "Response %s could not be canceled at the provider: %s", response_id, type(error).__name__
            )


def _forget_error(work: asyncio.Future[Any]) -> None:
    """Take the error of work that nobody waits for any more."""
    if not work.cancelled():
        work.exception()
