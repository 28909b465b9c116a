"""Server of OpenAI's Responses API with background responses, which counts what it is asked.

`POST /v1/responses` (also `background`, `stream`), `GET /v1/responses/ID` (also `stream=true&starting_after=N`), and
`POST /v1/responses/ID/cancel`, all also behind `/v1/anything`. As a process, `python -m tests.responses_server SETTINGS` prints its URL; `GET /ledger`
returns what it was asked.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit
from urllib.request import Request, urlopen

USAGE = {
    "input_tokens": 100,
    "input_tokens_details": {"cached_tokens": 0},
    "output_tokens": 10,
    "output_tokens_details": {"reasoning_tokens": 0},
    "total_tokens": 110,
}
ENDS = {"completed": "response.completed", "failed": "response.failed", "incomplete": "response.incomplete"}


def message(text: str) -> dict[str, Any]:
    """Return the output item of a text."""
    part = {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
    return {"type": "message", "role": "assistant", "status": "completed", "content": [part]}


def tool_call(name: str, call_id: str, **arguments: Any) -> dict[str, Any]:
    """Return the output item of a call."""
    return {
        "type": "function_call",
        "call_id": call_id,
        "name": name,
        "arguments": json.dumps(arguments),
        "status": "completed",
    }


@dataclasses.dataclass
class Behavior:
    """Settings of a server, which a test may change at any time.

    Attributes:
        turns: The outputs of each model, turn by turn; the outputs of tools in the input tell which turn it is.
        seconds: Seconds that a response takes, or that its events are spread over.
        begins_after: Seconds until a response begins.
        ends: How the next responses end: completed, failed, incomplete, cancelled, or gone from the server.
        breaks: Number of events after which the next streams break.
        streams_again: False if streams of a response cannot be taken up again.
        knows_keys: True for a server that answers a repeated Idempotency-Key with the same response.
        knows_background: False for a server that ignores `background`.
        errors: Statuses of the next requests for a response that exists.
    """

    turns: dict[str, list[list[dict[str, Any]]]] = dataclasses.field(default_factory=dict)
    seconds: float = 0.0
    begins_after: float = 0.0
    ends: list[str] = dataclasses.field(default_factory=list)
    breaks: list[int] = dataclasses.field(default_factory=list)
    streams_again: bool = True
    knows_keys: bool = False
    knows_background: bool = True
    errors: list[int] = dataclasses.field(default_factory=list)


class Answer:
    """One response, which is over when its time has come."""

    def __init__(self, request: dict[str, Any], behavior: Behavior) -> None:
        self.id = f"resp_{uuid.uuid4().hex}"
        self.request = request
        self.streamed = bool(request.get("stream"))
        self.canceled = threading.Event()
        self._began = time.monotonic()
        self.seconds = behavior.seconds
        self.end = behavior.ends.pop(0) if behavior.ends else "completed"
        items = request["input"] if isinstance(request["input"], list) else []
        outputs = sum(item.get("type") == "function_call_output" for item in items)
        turns = behavior.turns[request["model"]]
        calls = itertools.accumulate(sum(item["type"] == "function_call" for item in turn) for turn in turns)
        turn = next((turn for turn, before in enumerate(calls) if outputs < before), len(turns) - 1)
        self._output = [{"id": f"item_{turn}_{n}", **item} for n, item in enumerate(turns[turn])]
        self.events = list(self._make_events())

    @property
    def status(self) -> str:
        if self.canceled.is_set():
            return "cancelled"
        return self.end if time.monotonic() >= self._began + self.seconds else "in_progress"

    def due(self, number: int) -> float:
        """Return the seconds until an event is due."""
        last = len(self.events) - 1
        return self._began + self.seconds * number / max(last, 1) - time.monotonic()

    def body(self, status: str | None = None) -> dict[str, Any]:
        status = status or self.status
        is_over = status != "in_progress"
        return {
            "id": self.id,
            "object": "response",
            "created_at": 1_770_000_000,
            "model": self.request["model"],
            "status": status,
            "background": bool(self.request.get("background")),
            "error": {"code": "server_error", "message": "It broke."} if status == "failed" else None,
            "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
            "output": self._output if status == "completed" else [],
            "parallel_tool_calls": True,
            "tool_choice": "auto",
            "tools": [],
            "usage": USAGE if is_over else None,
        }

    def _make_events(self) -> Iterator[dict[str, Any]]:
        started = self.body("in_progress")
        events: list[dict[str, Any]] = [
            {"type": "response.created", "response": started},
            {"type": "response.in_progress", "response": started},
        ]
        if self.end == "completed":
            for index, item in enumerate(self._output):
                events += _item_events(item, index)
        if self.end in ENDS:
            events.append({"type": ENDS[self.end], "response": self.body(self.end)})
        for number, event in enumerate(events):
            yield {**event, "sequence_number": number}


def _item_events(item: dict[str, Any], index: int) -> Iterator[dict[str, Any]]:
    place = {"item_id": item["id"], "output_index": index}
    begun = {**item, "content": []} if item["type"] == "message" else {**item, "arguments": ""}
    yield {"type": "response.output_item.added", "item": begun, "output_index": index}
    if item["type"] == "message":
        part = item["content"][0]
        at = {**place, "content_index": 0}
        yield {"type": "response.content_part.added", "part": {**part, "text": ""}, **at}
        for piece in part["text"].split(" "):
            yield {"type": "response.output_text.delta", "delta": f"{piece} ", "logprobs": [], **at}
        yield {"type": "response.output_text.done", "text": part["text"], "logprobs": [], **at}
        yield {"type": "response.content_part.done", "part": part, **at}
    else:
        text, name = item["arguments"], {"name": item["name"]}
        yield {"type": "response.function_call_arguments.delta", "delta": text, **place}
        yield {"type": "response.function_call_arguments.done", "arguments": text, **name, **place}
    yield {"type": "response.output_item.done", "item": item, "output_index": index}


class ResponsesServer:
    """The server, in threads of this process."""

    def __init__(self, behavior: Behavior) -> None:
        self.behavior = behavior
        self.answers: dict[str, Answer] = {}
        self.by_key: dict[str, Answer] = {}
        self.ledger: list[dict[str, Any]] = []
        self.lock = threading.Lock()
        self._http = _HttpServer(("127.0.0.1", 0), _Handler)
        self._http.responses = self
        self.url = f"http://127.0.0.1:{self._http.server_port}/v1"

    def count(self, what: str) -> int:
        """Return how often something was asked: create, retrieve, stream or cancel."""
        with self.lock:
            return sum(line["what"] == what for line in self.ledger)

    def lines(self, what: str) -> list[dict[str, Any]]:
        with self.lock:
            return [line for line in self.ledger if line["what"] == what]

    def note(self, what: str, **facts: Any) -> None:
        with self.lock:
            self.ledger.append({"what": what, **facts})

    def finish(self) -> None:
        """Finish what was asked so far, at once."""
        with self.lock:
            for answer in self.answers.values():
                answer.seconds = 0.0

    def serve(self) -> None:
        self._http.serve_forever(poll_interval=0.05)

    def __enter__(self) -> Self:
        threading.Thread(target=self.serve, daemon=True).start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._http.shutdown()
        self._http.server_close()


class _HttpServer(ThreadingHTTPServer):
    daemon_threads = True
    responses: ResponsesServer


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _HttpServer

    @property
    def _server(self) -> ResponsesServer:
        return self.server.responses

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers.get("content-length") or 0)) or b"{}")
        if self.path.endswith("/cancel"):
            self._cancel(self.path.split("/")[-2])
        elif self.path == "/finish":
            self._server.finish()
            self._send(200, {})
        elif self.path == "/behavior":
            self._server.behavior = Behavior(**body)
            self._send(200, {})
        else:
            self._create(body)

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        if parts.path == "/ledger":
            self._send(200, self._server.ledger)
            return
        query = parse_qs(parts.query)
        self._retrieve(
            parts.path.split("/")[-1], query.get("stream") == ["true"], query.get("starting_after")
        )

    def _create(self, request: dict[str, Any]) -> None:
        server, key = self._server, self.headers.get("Idempotency-Key")
        if request.get("background") and request.get("store") is False:
            self._send(400, {"error": {"message": "Background mode requires store=true.", "code": "invalid"}})
            return
        known = server.by_key.get(key or "") if server.behavior.knows_keys else None
        if known is None:
            answer = Answer(request, server.behavior)
            with server.lock:
                server.answers[answer.id] = answer
                server.by_key[key or answer.id] = answer
            server.note("create", id=answer.id, key=key, path=self.path, model=request["model"])
            time.sleep(server.behavior.begins_after)
        else:
            answer = known
        if request.get("stream"):
            self._stream(answer, -1)
        elif request.get("background") and server.behavior.knows_background:
            self._send(200, answer.body("in_progress"))
        else:
            time.sleep(max(0.0, answer.due(len(answer.events) - 1)))
            self._send(200, answer.body())

    def _retrieve(self, id: str, stream: bool, after: list[str] | None) -> None:
        server = self._server
        server.note("stream" if stream else "retrieve", id=id, after=after[0] if after else None)
        answer = server.answers.get(id)
        if answer is None or answer.status == "gone":
            self._send(404, {"error": {"message": f"Response with id '{id}' not found.", "code": None}})
        elif server.behavior.errors:
            self._send(server.behavior.errors.pop(0), {"error": {"message": "Not now.", "code": None}})
        elif not stream:
            self._send(200, answer.body())
        elif not answer.streamed or not server.behavior.streams_again:
            self._send(400, {"error": {"message": "This response cannot be streamed.", "code": None}})
        else:
            self._stream(answer, int(after[0]) if after else -1)

    def _cancel(self, id: str) -> None:
        self._server.note("cancel", id=id)
        answer = self._server.answers[id]
        answer.canceled.set()
        self._send(200, answer.body())

    def _stream(self, answer: Answer, after: int) -> None:
        breaks = self._server.behavior.breaks
        most = breaks.pop(0) if breaks else len(answer.events)
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("connection", "close")
        self.end_headers()
        self.close_connection = True
        for event in answer.events[after + 1 :][:most]:
            while not answer.canceled.is_set() and (seconds := answer.due(event["sequence_number"])) > 0:
                answer.canceled.wait(min(seconds, 0.1))
            if answer.canceled.is_set():
                return
            try:
                self.wfile.write(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode())
                self.wfile.flush()
            except OSError:
                return

    def _send(self, status: int, body: Any) -> None:
        data = json.dumps(body).encode()
        try:
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)
        except OSError:
            pass


def ledger_of(url: str, what: str) -> list[dict[str, Any]]:
    """Return what a server in another process was asked."""
    with urlopen(f"{url.removesuffix('/v1')}/ledger") as answer:
        return [line for line in json.load(answer) if line["what"] == what]


def set_behavior(url: str, behavior: Behavior) -> None:
    """Change the settings of a server in another process."""
    body = json.dumps(dataclasses.asdict(behavior)).encode()
    urlopen(Request(f"{url.removesuffix('/v1')}/behavior", data=body)).close()


def finish_answers(url: str) -> None:
    """Let a server in another process finish what it was asked, at once."""
    urlopen(Request(f"{url.removesuffix('/v1')}/finish", data=b"{}")).close()


@contextmanager
def responses_process(behavior: Behavior) -> Iterator[str]:
    """Serve in a process of its own within the block; gives its URL."""
    settings = json.dumps(dataclasses.asdict(behavior))
    command = [sys.executable, "-m", "tests.responses_server", settings]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            yield server.stdout.readline().strip()
        finally:
            server.kill()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("settings")
    server = ResponsesServer(Behavior(**json.loads(parser.parse_args().settings)))
    print(server.url, flush=True)
    server.serve()


if __name__ == "__main__":
    main()
