"""The quickstart's worker on the embedded default, in a folder of its own, with a scripted model server."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
sys.path[:0] = [str(EXAMPLES), str(EXAMPLES / "quickstart")]

from mock_openai import MockOpenAI  # noqa: E402 - found in the examples
from scenario import company_names, script  # noqa: E402

__all__ = ["Site", "company_names", "script", "site"]

MODULE = EXAMPLES / "quickstart" / "worker.py"


class Site:
    """A folder with a database, and workers that may be killed."""

    def __init__(self, folder: Path, model: MockOpenAI) -> None:
        self.folder = folder
        self.model = model
        self.database_url = f"sqlite:///{folder / 'agentexec.db'}"
        self._environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith("AGENTEXEC_") and name not in ("DATABASE_URL", "REDIS_URL")
        } | {
            "AGENTEXEC_DATABASE_URL": self.database_url,
            "OPENAI_BASE_URL": model.base_url,
            "OPENAI_API_KEY": "none",
            "OPENAI_AGENTS_DISABLE_TRACING": "1",
        }
        self._log = folder / "worker.log"
        self._worker: subprocess.Popen[str] | None = None
        self.start("migrate").communicate()

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start a command of agentexec; its standard output also gets what it says on standard error."""
        return subprocess.Popen(
            [sys.executable, "-m", "agentexec", *arguments],
            cwd=self.folder,
            env=self._environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def start_worker(self, processes: int = 1, slots: int = 10) -> None:
        """Start `agentexec worker`, and wait until it takes tasks."""
        command = [sys.executable, "-m", "agentexec", "worker", str(MODULE)]
        command += ["-w", str(processes), "-c", str(slots)]
        with self._log.open("w") as log:
            self._worker = subprocess.Popen(
                command,
                cwd=self.folder,
                env=self._environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        while f"Starting {processes} worker" not in self._log.read_text():
            time.sleep(0.1)

    def stop_worker(self, number: int = signal.SIGTERM) -> None:
        """Send all processes of the worker a signal, and wait for their end."""
        if self._worker is not None:
            os.killpg(self._worker.pid, number)
            self._worker.wait()
            self._worker = None


@contextmanager
def site() -> Generator[Site]:
    """Yield a site; stop its worker at the end."""
    with (
        tempfile.TemporaryDirectory(prefix="agentexec-pictures-") as folder,
        MockOpenAI(latency=0.3) as model,
    ):
        made = Site(Path(folder), model)
        try:
            yield made
        finally:
            made.stop_worker()
