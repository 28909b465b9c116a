"""@copilotkit/aimock, a mock of OpenAI's API by others, as a server of the tests.

It breaks off streams, drops connections and refuses requests. It is one package of npm without dependencies, put into
`.dev/aimock` on first use; only tests with AGENTEXEC_TEST_SERVERS=all need it.
"""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.npm import install
from tests.servers import HOST, Server

HERE = Path(__file__).parent


class AIMock(Server):
    """Server that answers by fixtures: what a request must match, and the response to it."""

    def __init__(self, fixtures: Sequence[Mapping[str, Any]]) -> None:
        super().__init__()
        self._fixtures = fixtures

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}/v1"

    def ping(self) -> None:
        self._fetch("GET", "/__aimock/chaos")

    @contextmanager
    def chaos(self, **rates: float) -> Generator[None]:
        """Inject faults into the requests made during the block: `rateLimitRate`, `dropRate`, `disconnectRate`."""
        self._fetch("POST", "/__aimock/chaos", rates)
        try:
            yield
        finally:
            self._fetch("DELETE", "/__aimock/chaos")

    def requests(self) -> list[dict[str, Any]]:
        """Requests so far, oldest first."""
        return self._fetch("GET", "/__aimock/journal")

    def _fetch(self, method: str, path: str, body: object = None) -> Any:
        request = urllib.request.Request(
            f"http://{HOST}:{self.port}{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=10) as response:
            return json.load(response)

    def _prepare(self) -> None:
        (self.folder / "fixtures.json").write_text(json.dumps({"fixtures": self._fixtures}))

    def _command(self) -> Sequence[str]:
        options = {"-p": self.port, "-h": HOST, "-f": self.folder / "fixtures.json", "--log-level": "warn"}
        words = [str(word) for option in options.items() for word in option]
        return [
            "node",
            str(install(HERE) / "node_modules" / "@copilotkit" / "aimock" / "dist" / "cli.js"),
            "--strict",
            *words,
        ]
