"""Events of a task in the protocols of other front ends: what a client has after any cut and any crash."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from ag_ui.core import Event
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from agentexec.activity.schemas import ActivityEvent
from agentexec.web.ag_ui import AgUiTranslator
from agentexec.web.ai_sdk import AiSdkTranslator
from agentexec.web.frames import Frames, Place, parse_place
from agentexec.web.translation import Message, Translator

AGENT_ID = UUID("01a20f88-9c47-7904-8c27-ab1c480d3ca6")
RUN, OTHER_RUN = "a1b2c3d4", "00000001"
VALID = TypeAdapter(Event)
LIVE = ("text_delta", "tool_called", "tool_output", "usage", "agent", "dropped")

Frame = tuple[str, Message]


def line(type: Any, message: str = "", status: str = "running", **data: Any) -> ActivityEvent:
    return event(type, message=message, status=status, percentage=None, **data)


def event(type: Any, **data: Any) -> ActivityEvent:
    return ActivityEvent(id="", type=type, at=datetime.now(UTC), data=data)


def text(*pieces: str, turn: int = 1, run: str = RUN) -> list[ActivityEvent]:
    offsets = itertools.accumulate(map(len, pieces), initial=0)
    return [
        event("text_delta", text=piece, item_id="i", run=run, turn=turn, offset=offset)
        for piece, offset in zip(pieces, offsets, strict=False)
    ]


def old_text(*pieces: str) -> list[ActivityEvent]:
    return [event("text_delta", text=piece, item_id="__fake_id__") for piece in pieces]


def call(call_id: str, tool: str = "look_up", run: str = RUN) -> ActivityEvent:
    return event("tool_called", tool=tool, call_id=call_id, arguments='{"topic":"x"}', run=run)


def task(*items: ActivityEvent | list[ActivityEvent]) -> list[ActivityEvent]:
    """Return the events with ids as a stream gives them."""
    counted: list[ActivityEvent] = []
    lines = numbers = 0
    for each in (each for item in items for each in (item if isinstance(item, list) else [item])):
        lines, numbers = (lines, numbers + 1) if each.type in LIVE else (lines + 1, numbers)
        counted.append(each.model_copy(update={"id": f"{lines}.{numbers}"}))
    return counted


def result(value: Any = None) -> ActivityEvent:
    return line("result", "Done.", "complete", value=value)


class AgUiClient:
    """Client of AG-UI: the rules that `@ag-ui/client` enforces, and the messages that it shows."""

    def __init__(self) -> None:
        self.messages: dict[str, dict[str, Any]] = {}
        self.open: set[str] = set()
        self.steps: set[str] = set()
        self.started = self.over = False
        self.results: dict[str, str] = {}
        self.calls: dict[str, str] = {}

    def take(self, messages: Iterable[Message]) -> None:
        for message in messages:
            VALID.validate_python(message)
            assert not self.over, message
            assert self.started != (message["type"] == "RUN_STARTED"), message
            getattr(self, f"on_{message['type'].lower()}", lambda message: None)(message)

    def on_run_started(self, message: Message) -> None:
        self.started = True

    def on_text_message_start(self, message: Message) -> None:
        id = message["messageId"]
        assert id not in self.open
        self.open.add(id)
        assert self.messages.setdefault(id, {"role": "assistant", "text": ""})["role"] == "assistant"

    def on_text_message_content(self, message: Message) -> None:
        assert message["messageId"] in self.open
        self.messages[message["messageId"]]["text"] += message["delta"]

    def on_text_message_end(self, message: Message) -> None:
        self.open.remove(message["messageId"])

    def on_activity_snapshot(self, message: Message) -> None:
        assert message["messageId"] not in self.open
        self.messages[message["messageId"]] = {"role": "activity"}

    def on_step_started(self, message: Message) -> None:
        assert not self.steps
        self.steps.add(message["stepName"])

    def on_step_finished(self, message: Message) -> None:
        self.steps.remove(message["stepName"])

    def on_tool_call_start(self, message: Message) -> None:
        assert message["toolCallId"] not in self.calls.keys() - self.results.keys()
        self.calls[message["toolCallId"]] = message["toolCallName"]

    def on_tool_call_result(self, message: Message) -> None:
        assert message["toolCallId"] in self.calls
        self.results[message["toolCallId"]] = message["content"]

    def on_run_finished(self, message: Message) -> None:
        assert not self.open and not self.steps
        self.over = True

    on_run_error = on_run_finished

    @property
    def text(self) -> str:
        return "|".join(m["text"] for m in self.messages.values() if m["role"] == "assistant")


class AiSdkClient:
    """Client of the AI SDK: the parts that `ai` makes of chunks."""

    def __init__(self) -> None:
        self.parts: list[dict[str, Any]] = []
        self.open: dict[str, dict[str, Any]] = {}
        self.calls: dict[str, Any] = {}
        self.seen: list[str] = []

    def take(self, chunks: Iterable[Message]) -> None:
        for chunk in chunks:
            self.seen.append(chunk["type"])
            match chunk["type"]:
                case "text-start":
                    self.open[chunk["id"]] = {"text": ""}
                    self.parts.append(self.open[chunk["id"]])
                case "text-delta":
                    self.open[chunk["id"]]["text"] += chunk["delta"]
                case "text-end":
                    part = self.open.pop(chunk["id"])
                    if "providerMetadata" in chunk:
                        part["withdrawn"] = chunk["providerMetadata"]["agentexec"]["withdrawn"]
                case "finish-step":
                    assert not self.open
                case "tool-input-available":
                    assert self.calls.get(chunk["toolCallId"], "answered") is not None
                    self.calls[chunk["toolCallId"]] = None
                case "tool-output-available":
                    assert chunk["toolCallId"] in self.calls
                    self.calls[chunk["toolCallId"]] = chunk["output"]

    @property
    def text(self) -> str:
        return "|".join(part["text"] for part in self.parts if not part.get("withdrawn"))


Client = AgUiClient | AiSdkClient
PROTOCOLS: list[tuple[type[Translator], type[Client]]] = [
    (AgUiTranslator, AgUiClient),
    (AiSdkTranslator, AiSdkClient),
]
both = pytest.mark.parametrize(("translate", "client_of"), PROTOCOLS, ids=["ag-ui", "ai-sdk"])


def received(
    translate: type[Translator], events: Sequence[ActivityEvent], after: str | None = None
) -> list[Frame]:
    """Return the frames of one connection; `after` is the id of the last frame of the one before."""
    place = parse_place(after)
    line, number = map(int, place.event.split("."))
    frames = Frames(translate(AGENT_ID, place.state), place, begin=after is None)
    seen = [
        (event.type not in LIVE and int(event.id.split(".")[0]) <= line)
        or (event.type in LIVE and int(event.id.split(".")[1]) <= number)
        for event in events
    ]
    left = [event for event, is_seen in zip(events, seen, strict=True) if not is_seen]
    chunks = [*frames.begin(), *(frame for event in left for frame in frames.of([event]))]
    return [parsed(chunk) for chunk in chunks]


def parsed(chunk: bytes) -> Frame:
    id, data = chunk.decode().removeprefix("id: ").removesuffix("\n\n").split("\ndata: ")
    return id, json.loads(data)


def show(translate: type[Translator], client_of: type[Client], events: Sequence[ActivityEvent]) -> Any:
    """Return the client after the events, having checked that a connection cut after any frame changes nothing."""
    client, whole = client_of(), received(translate, events)
    for index, (id, _message) in enumerate(whole):
        rest = received(translate, events, id)
        assert [message for _id, message in whole[: index + 1] + rest] == [message for _id, message in whole]
    client.take(message for _id, message in whole)
    return client


@both
def test_text_calls_and_outputs_arrive(translate: Any, client_of: Any) -> None:
    client = show(
        translate,
        client_of,
        task(
            line("status", "Task started."),
            text("I look ", "it up."),
            event("usage", run=RUN, input_tokens=1),
            call("c1"),
            event("tool_output", call_id="c1", output='{"answer":5}'),
            text("It is ", "5.", turn=2),
            result("It is 5."),
        ),
    )
    assert client.text == "I look it up.|It is 5."
    outputs = client.results if isinstance(client, AgUiClient) else client.calls
    assert outputs == {"c1": '{"answer":5}' if isinstance(client, AgUiClient) else {"answer": 5}}


@both
@pytest.mark.parametrize(
    ("again", "shown"),
    [
        (["The ", "weather is fine."], "The weather is fine."),
        (["The weather i"], "The weather i"),
        (["It is", " fine, the weather."], "It is fine, the weather."),
        (["No."], "No."),
    ],
    ids=["the same and more", "the same", "other text", "shorter"],
)
def test_text_that_a_crash_cut_off_is_shown_once(
    translate: Any, client_of: Any, again: list[str], shown: str
) -> None:
    stream = task(
        line("status", "Task started."),
        text("The weath", "er i"),
        line("status", "The worker process was killed.", "queued"),
        line("status", "Task started."),
        text(*again),
        event("usage", run=RUN),
        result(shown),
    )
    assert show(translate, client_of, stream).text == shown

    late, frames = client_of(), Frames(translate(AGENT_ID), Place(), begin=True)
    late.take(parsed(chunk)[1] for chunk in [*frames.begin(), *frames.of(stream)])
    assert late.text == shown
    if isinstance(late, AiSdkClient):
        assert late.seen.count("text-start") == 1


@both
def test_a_call_that_is_made_again_after_a_crash_is_told_once(translate: Any, client_of: Any) -> None:
    stream = task(
        call("c1"),
        line("status", "Task started."),
        line("log", "Resumed at turn 2 (attempt 2)"),
        call("c1"),
        event("tool_output", call_id="c1", output="ok"),
        result(),
    )
    assert list(show(translate, client_of, stream).calls) == ["c1"]


@both
def test_runs_side_by_side_keep_their_texts_apart(translate: Any, client_of: Any) -> None:
    first, second = text("a", "b", "c"), text("x", "y", "z", run=OTHER_RUN)
    mixed = [event for pair in zip(first, second, strict=True) for event in pair]
    client = show(translate, client_of, task(*mixed, result()))
    assert sorted("".join(sorted(client.text.replace("|", "")))) == sorted("abcxyz")
    if isinstance(client, AgUiClient):
        assert client.text == "abc|xyz"


@both
def test_missing_text_is_marked_and_the_result_makes_up_for_it(translate: Any, client_of: Any) -> None:
    first, _lost, last = text("Once ", "upon ", "a time.")
    stream = task(first, event("dropped"), last, result("Once upon a time."))
    assert show(translate, client_of, stream).text == "Once …a time.|Once upon a time."
    assert show(translate, client_of, task(result("Once upon a time."))).text == "Once upon a time."


@both
def test_events_of_workers_of_older_releases_make_one_message_for_each_answer(
    translate: Any, client_of: Any
) -> None:
    stream = task(
        line("status", "Task started."),
        old_text("I look ", "it up."),
        event("usage"),
        event("tool_called", tool="t", call_id="c1", arguments="{}"),
        event("tool_output", call_id="c1", output="5"),
        old_text("It i"),
        line("status", "Task started."),
        old_text("It is ", "5."),
        result(),
    )
    assert show(translate, client_of, stream).text == "I look it up.|It is 5."


@both
@pytest.mark.parametrize("ending", ["error", "canceled"])
def test_a_task_that_does_not_end_well_closes_what_is_open(
    translate: Any, client_of: Any, ending: Any
) -> None:
    last = task(text("Half a"), line(ending, "Attempt 1 failed.", ending, error="No network."))
    client = show(translate, client_of, last)
    assert client.text == "Half a" and not client.open
    if isinstance(client, AgUiClient):
        assert client.over
    else:
        assert client.seen[-1] == ("error" if ending == "error" else "abort")


@both
def test_a_client_that_starts_anew_in_the_middle_is_told_what_is_open(translate: Any, client_of: Any) -> None:
    stream = task(text("One ", "two."), result("One two."))
    first = Frames(translate(AGENT_ID), Place(), begin=True)
    place = parse_place(parsed([*first.begin(), *first.of(stream[:1])][-1])[0])
    frames, client = Frames(translate(AGENT_ID, place.state), place, begin=True), client_of()
    client.take(parsed(chunk)[1] for chunk in [*frames.begin(), *frames.of(stream[1:])])
    assert client.text == "two."


@both
def test_live_events_that_tell_nothing_change_no_place(translate: Any, client_of: Any) -> None:
    """Such as that the log has changed: they count, if they were seen, and another reading may not see them."""
    quiet = task(line("status", "Task started."), result("Done."))
    counted = [
        event.model_copy(update={"id": f"{number}.{2 * number}"}) for number, event in enumerate(quiet, 1)
    ]
    for first, second in ((quiet, counted), (counted, quiet)):
        whole = received(translate, first)
        for index, (id, _message) in enumerate(whole):
            rest = [message for _id, message in received(translate, second, id)]
            assert rest == [message for _id, message in whole[index + 1 :]]


@both
def test_calls_that_wait_for_approval_are_told(translate: Any, client_of: Any) -> None:
    waiting = {"call_id": "c1", "tool": "pay", "arguments": '{"sum":5}', "kind": "approval"}
    stream = task(
        line("status", "Waiting for approval: pay({})", "queued", approvals=[waiting]),
        line("log", "Approved: pay({})", "queued"),
        call("c1", "pay"),
        event("tool_output", call_id="c1", output="paid"),
        result(),
    )
    client = show(translate, client_of, stream)
    assert list(client.calls) == ["c1"]
    if isinstance(client, AiSdkClient):
        assert client.seen.index("tool-approval-request") == client.seen.index("tool-input-available") + 1


values = st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.just("é\ud800")
data = st.dictionaries(
    st.sampled_from(
        ["text", "run", "turn", "offset", "item_id", "call_id", "tool", "arguments", "output", "status"]
    ),
    values | st.sampled_from([RUN, "web_search", "running", 1, 0]),
)
forged = st.lists(
    st.tuples(
        st.sampled_from(["text_delta", "tool_called", "tool_output", "usage", "agent", "status", "dropped"]),
        data,
    )
)


@both
@settings(max_examples=60, deadline=None)
@given(events=forged, state=st.text(max_size=60) | st.just("3f;a1b2c3d4.1-0-5-77-o;!1f"))
def test_forged_events_and_states_break_no_client(
    translate: Any, client_of: Any, events: list[tuple[Any, dict[str, Any]]], state: str
) -> None:
    made = task(*[ActivityEvent(id="", type=type, at=datetime.now(UTC), data=data) for type, data in events])
    client = client_of()
    client.take(message for _id, message in received(translate, task(made, result("x"))))
    assert not client.open
    frames = Frames(translate(AGENT_ID, state), Place(), begin=True)
    assert [*frames.begin(), *frames.of(made)]
