"""Program that uses a payload store on a server of S3; runs in an environment of its own, see test_s3.py."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

from sqlalchemy import create_engine
from sqlalchemy.orm import Session

import agentexec as ax
from agentexec.payloads.stores import check_store, payload_store

LARGE = "x" * 100_000

pool = ax.Pool()


@pool.task("echo")
def echo(agent_id: UUID, context: dict[str, str]) -> str:
    return context["text"]


def in_child() -> bool:
    """Return True if a forked child can use the store, too."""
    child = os.fork()
    if child == 0:
        try:
            check_store()
        except BaseException:
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def main(database: str, endpoint: str) -> None:
    s3fs: Any = importlib.import_module("s3fs")  # only where this program runs
    system = s3fs.S3FileSystem(endpoint_url=endpoint, use_listings_cache=False)
    try:
        check_store()
    except ax.UnavailableError as error:
        assert "its bucket or folder is missing" in str(error), error
    else:
        raise AssertionError("a bucket that does not exist was made")
    system.mkdir("bucket")
    check_store()
    with ax.testing.harness(pool, engine=create_engine(database)) as harness:
        task = harness.enqueue("echo", {"text": LARGE})
        names = [path.rpartition("/")[2] for path in system.find("bucket/folder")]
        assert [name.partition("-")[0] for name in names] == ["context"], names
        harness.run_all()
        assert harness.task(task).result == LARGE
        assert in_child()
        with Session(ax.get_engine()) as db:
            assert ax.activity.prune(db, timedelta(0)) == 1
        assert system.find("bucket/folder") == []
        store = payload_store()
        assert store is not None
        assert store.names("missing") == []


if __name__ == "__main__":
    address = os.environ["FSSPEC_S3_ENDPOINT_URL"]
    server = subprocess.Popen(
        [Path(sys.executable).with_name("moto_server"), "-H", "127.0.0.1", "-p", address.rpartition(":")[2]],
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert server.stderr is not None
        while "Running on" not in (line := server.stderr.readline()):
            assert line, "the server has ended"
        main(sys.argv[1], address)
    finally:
        server.kill()
        server.wait()
