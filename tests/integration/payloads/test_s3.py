"""A payload store on S3, with a server that speaks its protocol over HTTP."""

from __future__ import annotations

import os
import socket
import subprocess
from pathlib import Path

import pytest

from tests.guides import Environments
from tests.waiting import patient

PACKAGES = frozenset({"agentexec[payloads] @ git+<this repository>", "s3fs", "moto[server]"})


@pytest.mark.thorough
@pytest.mark.timeout(400)
def test_large_values_on_s3(sqlite_tables: str, tmp_path: Path) -> None:
    venv = Environments(tmp_path).get(PACKAGES)
    program = Path(__file__).with_name("s3_program.py")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = {
        "AGENTEXEC_PAYLOAD_STORE": "s3://bucket/folder",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "FSSPEC_S3_ENDPOINT_URL": f"http://127.0.0.1:{port}",
    }
    done = subprocess.run(
        [venv / "bin" / "python", program, sqlite_tables],
        cwd=tmp_path,
        env={**os.environ, **settings},
        capture_output=True,
        text=True,
        timeout=patient(100),
    )
    assert done.returncode == 0, done.stdout + done.stderr
