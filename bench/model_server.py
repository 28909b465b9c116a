"""Model server that answers at once: `model_server.py` prints its port and serves OpenAI's Responses API until it is killed.

A request with fewer outputs of tools than the first argument says (5) is answered with the next call, any other with a text.
Each answer adds a byte to the file that the second argument names, so that repeated calls can be counted.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

TOOL_CALLS = int(sys.argv[1]) if len(sys.argv) > 1 else 5
COUNTED = Path(sys.argv[2]) if len(sys.argv) > 2 else None
OUTPUT = b'"type":"function_call_output"'


def _answer(turn: int) -> bytes:
    """Return the response of a turn, from 0."""
    item: dict[str, object] = {
        "type": "function_call",
        "id": f"fc_{turn}",
        "call_id": f"call_{turn}",
        "name": "look_up",
        "arguments": json.dumps({"table": "orders", "row": turn}),
        "status": "completed",
    }
    if turn >= TOOL_CALLS:
        text = "Supplier B delivers a week earlier than A and C. Orders 3 and 4 are late by two days."
        content = [{"type": "output_text", "text": text, "annotations": []}]
        item = {
            "type": "message",
            "id": "msg_1",
            "role": "assistant",
            "status": "completed",
            "content": content,
        }
    body = json.dumps(
        {
            "id": f"resp_{turn}",
            "object": "response",
            "created_at": 1_770_000_000,
            "model": "bench",
            "status": "completed",
            "output": [item],
            "parallel_tool_calls": True,
            "tool_choice": "auto",
            "tools": [],
            "usage": {
                "input_tokens": 200 + 90 * turn,
                "input_tokens_details": {"cached_tokens": 100},
                "output_tokens": 30,
                "output_tokens_details": {"reasoning_tokens": 0},
                "total_tokens": 230 + 90 * turn,
            },
        }
    ).encode()
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


ANSWERS = [_answer(turn) for turn in range(TOOL_CALLS + 1)]


class _Server(asyncio.Protocol):
    """One connection, on which requests come one after another."""

    def __init__(self) -> None:
        self._received = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        end = self._received.find(b"\r\n\r\n")
        if end < 0:
            return
        head = bytes(self._received[:end]).lower()
        length = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0])
        if len(self._received) >= end + 4 + length:
            body = bytes(self._received[end + 4 :])
            self._received.clear()
            if COUNTED is not None:
                with COUNTED.open("ab") as counted:
                    counted.write(b".")
            turn = body.replace(b": ", b":").count(OUTPUT)
            self._transport.write(ANSWERS[min(turn, TOOL_CALLS)])


async def _serve() -> None:
    server = await asyncio.get_running_loop().create_server(_Server, "127.0.0.1", 0, backlog=1_000)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_serve())
