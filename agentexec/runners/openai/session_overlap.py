"""Warning about a session of the SDK that two running tasks use at once: their items would mix in its history."""

from __future__ import annotations

import hashlib
import logging
import os
import socket
from pathlib import Path
from typing import Any

from agentexec.activity.changes.reports import update
from agentexec.activity.changes.session_use import UsingTask, note_session_use
from agentexec.config import CONF
from agentexec.errors import AgentexecError
from agentexec.journal.recorder import Recorder
from agentexec.redaction import redact
from agentexec.runtime import RUNTIME

log = logging.getLogger("agentexec.runners")

MAX_ID = 200
"""Characters of a session's id in a warning."""

LOCAL_HOSTS = (None, "", "localhost", "127.0.0.1", "::1")

FILES = ("db_path", "_db_path", "path", "_path")
ENGINES = ("engine", "_engine")
NAMES = (
    "sessions_table",
    "messages_table",
    "_key_prefix",
    "key_prefix",
    "url",
    "_url",
    "dsn",
    "database",
    "_database",
)
TABLES = ("_sessions", "_messages")
"""Attributes by which sessions name their store, in the SDK and in sessions like its own."""


async def warn_of_overlap(session: Any, recorder: Recorder) -> None:
    """Log a warning if another running task uses a session; once for each session in an attempt."""
    used = identify(session)
    if used is None or used in recorder.sessions:
        return
    recorder.sessions.add(used)
    agent_id = recorder.lease.agent_id
    digest = hashlib.sha256("\0".join(used).encode("utf-8", "surrogatepass")).hexdigest()
    try:
        others = await RUNTIME.run_in_thread(note_session_use, RUNTIME.engine, agent_id, digest)
    except AgentexecError as error:
        log.debug("Cannot tell if another task uses the session of task %s: %s", agent_id, error)
        return
    if others:
        text = _warning(used[1], others)
        log.warning("Task %s (%s): %s", others[0].asking_task, agent_id, text)
        update(agent_id, text)


def _warning(session_id: str, others: list[UsingTask]) -> str:
    named = ", ".join(f"{task.task_name} ({task.agent_id})" for task in others[:3])
    more = f" and {len(others) - 3} more" if len(others) > 3 else ""
    shown = redact(session_id[:MAX_ID], CONF.secrets)
    return (
        f"The session {shown!r} is also used by {named}{more}, running now; their items may mix in its history. Let one "
        "task at a time use a session: enqueue the next one when the last has ended."
    )


def identify(session: Any) -> tuple[str, str] | None:
    """Return the store of a session and its id there; None if it has no id yet."""
    # Sessions that encrypt or compact have another one inside, which holds the items.
    while (inner := getattr(session, "underlying_session", None)) is not None:
        session = inner
    try:
        session_id = session.session_id
    except Exception:
        # Some get their id from a server, when they are used first.
        return None
    return (_store(session), session_id) if isinstance(session_id, str) and session_id else None


def _store(session: Any) -> str:
    """Return what tells the session's store from others; sessions of unknown classes are told apart by their class."""
    parts = [found for name in NAMES if isinstance(found := getattr(session, name, None), str)]
    tables = [getattr(getattr(session, name, None), "fullname", None) for name in TABLES]
    parts += [name for name in tables if isinstance(name, str)]
    for name in ENGINES:
        engine = getattr(session, name, None)
        if engine is not None and hasattr(engine, "url"):
            return "\0".join([_database(engine), *parts])
    for name in FILES:
        path = getattr(session, name, None)
        if isinstance(path, str | os.PathLike):
            return "\0".join([_file(os.fspath(path), session), *parts])
    kind = type(session)
    return "\0".join([f"{kind.__module__}.{kind.__qualname__}", *parts])


def _database(engine: Any) -> str:
    url = engine.url
    if url.get_backend_name() == "sqlite":
        return _file(url.database or ":memory:", engine)
    host = socket.gethostname() if url.host in LOCAL_HOSTS else url.host
    return f"{url.get_backend_name()}://{host}:{url.port or ''}/{url.database}"


def _file(path: str | bytes, holder: Any) -> str:
    """Return the place of a file. What is in memory belongs to one object of one process."""
    name = os.fsdecode(path)
    place = (
        f"{os.getpid()} {id(holder)}"
        if name in ("", ":memory:") or "mode=memory" in name
        else Path(name).resolve()
    )
    return f"{socket.gethostname()} {place}"
