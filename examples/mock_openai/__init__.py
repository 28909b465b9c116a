"""Stand-in for the API of OpenAI on loopback, which answers from a script.

    from mock_openai import MockOpenAI, call, say

    script = [
        call("report_status", message="Gathering financials", percentage=40),
        call("report_status", message="Comparing competitors", percentage=75),
        say("All good."),
    ]
    with MockOpenAI(script, latency=0.4) as openai:
        os.environ["OPENAI_BASE_URL"] = openai.base_url
        ...

The server is llmock (https://pypi.org/project/llmock), which speaks the Responses API and Chat Completions, streamed
or not. It runs as a process in its own environment; `conversation.py` picks the next step of a script.
"""

from __future__ import annotations

import json
import os
import subprocess
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from .conversation import Script, Step, call, say, together
from .environment import llmock_python

__all__ = ["MockOpenAI", "Script", "Step", "call", "say", "together"]

Behavior = Mapping[str, Any]


class MockOpenAI:
    """Mock server; runs while the context manager is open.

    Args:
        script: Answers of the model. Without them llmock makes up its own: a call of the tool that fits best, then text.
        latency: Duration of each model call in seconds.
        chunk_delay: Pause between streamed events in seconds.
        port: Port to listen on; 0 picks a free one.
    """

    def __init__(
        self, script: Sequence[Step] = (), *, latency: float = 0.0, chunk_delay: float = 0.0, port: int = 0
    ) -> None:
        self._scripts = [Script(tuple(script))] if script else []
        self._settings = {"latency": latency, "chunk_delay": chunk_delay, "port": port}
        self._process: subprocess.Popen[str] | None = None
        self._url = ""

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def base_url(self) -> str:
        """Value for OPENAI_BASE_URL."""
        return f"{self._url}/v1"

    def start(self) -> None:
        self._process = subprocess.Popen(
            [llmock_python(), "-m", "mock_openai.server"],
            env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])},
            stdin=subprocess.PIPE,  # the server ends when this pipe closes, so it cannot outlive this process
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C goes to this process alone
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(self._settings) + "\n")
        self._process.stdin.flush()
        self._url = self._process.stdout.readline().strip()
        if not self._url:
            self.stop()
            raise RuntimeError("the mock model server did not start; its error is printed above")
        # Stop and start keep the port, to try what happens while a model is away.
        self._settings["port"] = int(self._url.rpartition(":")[2])
        self.reset()

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def script(self, steps: Sequence[Step], *, when: str = "") -> None:
        """Add a script. With `when`, it serves the conversations that contain this text, ahead of scripts without `when`."""
        self._send_scripts([*self._fetch("GET", "/scripts"), Script(tuple(steps), when=when).to_json()])

    def inject(self, *behaviors: Behavior) -> None:
        """Queue faults for the next requests, in the terms of llmock: `{"type": "fail", "status": 429, "times": 2}`."""
        self._fetch("POST", "/scenario", {"behaviors": behaviors})

    def requests(self) -> list[dict[str, Any]]:
        """Return the requests so far, oldest first: `body`, `status`, `stream`, `fault`, `duration` and more."""
        return self._fetch("GET", "/requests")["requests"]

    def delayed(self) -> int:
        """Return the number of requests that arrived at a step with a delay since the scripts were set."""
        return self._fetch("GET", "/delayed")

    def reset(self) -> None:
        """Remove requests, faults and added scripts; the script given at the start stays."""
        self._fetch("POST", "/reset")
        self._send_scripts([script.to_json() for script in self._scripts])

    def _send_scripts(self, scripts: list[dict[str, Any]]) -> None:
        self._fetch("PUT", "/scripts", scripts)

    def _fetch(self, method: str, path: str, body: object = None) -> Any:
        request = urllib.request.Request(
            f"{self._url}/_llmock{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        # Loopback bypasses any proxy of the environment.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=10) as response:
            return json.load(response)
