"""Sandbox sessions that a handler passes to a run: after a restart, its new session continues in the recorded sandbox.

The handler makes such a session in every attempt, uses it before and after the run, and removes it. So the session's
object stays, and what it stands for is exchanged.
"""

from __future__ import annotations

import asyncio
import copy
import os
import shutil
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from agents.sandbox.session.sandbox_session import SandboxSession

from agentexec.journal.scopes import SCOPE
from agentexec.runners.openai.run import DurableRun
from agentexec.runners.openai.sandbox import (
    DOCKER,
    UNIX_LOCAL,
    JournaledClient,
    Place,
    Stage,
    attach_problem,
    recorded_state,
    start_in_place,
)

FILE_CLOCK_SECONDS = 0.02
"""Seconds by which the kernel's clock for files may be behind the process's."""


class HandlerSandbox:
    """A session of the handler's within one run."""

    def __init__(self, session: Any, run: DurableRun) -> None:
        self._session = session
        self._place = Place.next(run)
        self._finished = False
        """True if an earlier attempt recorded the run's end, so that nothing more happens in the sandbox."""

    async def attach(self) -> None:
        """Let the session continue in the sandbox that an earlier attempt used here. Raises SandboxLostError."""
        last, session = self._place.last, self._session
        if last is None:
            return
        self._finished = last["stage"] == Stage.DONE
        if last["state"]["session_id"] == str(session.state.session_id):
            # The handler has resumed it by itself.
            return
        old = getattr(session, "_inner", None)
        state = recorded_state(last, session.state.manifest)
        why: str | None = "it is not a session of the kind that the SDK's clients make"
        if isinstance(session, SandboxSession) and old is not None and old.state.type == state.type:
            client = getattr(old, "_docker_client", None)
            why = await attach_problem(last, state, client and _container_getter(client))
        if why is None:
            await self._exchange(old, state)
        elif not self._finished:
            # If the run is finished, the handler may have removed the sandbox, and nothing needs it any more.
            raise self._place.lost(state.type, last, why)

    async def note_open(self) -> None:
        """Record the sandbox, before anything runs in it."""
        if not self._finished:
            await self._place.note(Stage.OPEN, self._session.state)

    async def remove_kept(self) -> None:
        """Record that the run needs the sandbox no more; the handler removes it."""
        if not self._finished:
            self._finished = True
            await self._place.note(Stage.DONE, self._session.state)

    async def _exchange(self, old: Any, state: Any) -> None:
        if state.type == DOCKER:
            new = type(old).from_state(
                state,
                container=await asyncio.to_thread(old._docker_client.containers.get, state.container_id),
                docker_client=old._docker_client,
                removal_service=getattr(old, "_removal_service", None),
            )
        else:
            new = type(old).from_state(state)
            new._host_environment_allowlist = old._host_environment_allowlist
        new.set_dependencies(old._dependencies)
        await start_in_place(new, new.start)
        self._session._inner = new
        self._session._bind_session_to_sinks()
        await old.pty_terminate_all()
        await asyncio.to_thread(_discard, old, self._place.run.recorder.started)


def _container_getter(client: Any) -> Any:
    def get(container_id: str) -> Any:
        try:
            return client.containers.get(container_id)
        except Exception as error:
            # The class is that of an optional package.
            if type(error).__name__ == "NotFound":
                return None
            raise

    return get


def _discard(old: Any, since: float) -> None:
    """Remove a sandbox that nobody holds any more, if all that is in it was made in this attempt.

    The handler may have taken it from elsewhere instead of creating it: what is older is not ours to remove.
    """
    if old.state.type == UNIX_LOCAL:
        root = Path(old.state.manifest.root)
        since -= FILE_CLOCK_SECONDS
        if old.state.workspace_root_owned and all(changed >= since for changed in _change_times(root)):
            shutil.rmtree(root, ignore_errors=True)
    elif datetime.fromisoformat(old._container.attrs["Created"]) >= datetime.fromtimestamp(since, UTC):
        old._container.remove(force=True)


def _change_times(root: Path) -> Iterator[float]:
    yield root.lstat().st_ctime
    for folder, folders, files in os.walk(root):
        for name in (*folders, *files):
            yield Path(folder, name).lstat().st_ctime


async def ensure_session(manager: Any, ensure: Callable[..., Awaitable[Any]], **options: Any) -> Any:
    """Give an agent its sandbox as the SDK does; inside a durable run, the one that the journal names."""
    scope, config = SCOPE.get(), manager._sandbox_config
    if scope is None or not isinstance(scope.run, DurableRun) or config is None:
        return await ensure(manager, **options)
    sandboxes = scope.run.sandboxes
    if config.session is not None:
        handlers = sandboxes.get(id(config.session))
        if handlers is None:
            handlers = sandboxes[id(config.session)] = HandlerSandbox(config.session, scope.run)
            await handlers.attach()
        session = await ensure(manager, **options)
        await handlers.note_open()
        return session
    if config.client is not None and type(config.client) is not JournaledClient:
        client = sandboxes.setdefault(id(config.client), JournaledClient(config.client, scope.run))
        manager._sandbox_config = copy.copy(config)
        manager._sandbox_config.client = client
    return await ensure(manager, **options)


async def finish_sandboxes(run: DurableRun) -> None:
    """Remove what a run has kept for a resume, because it has its final output."""
    for sandbox in list(run.sandboxes.values()):
        await sandbox.remove_kept()
