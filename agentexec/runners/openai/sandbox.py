"""Sandboxes of a durable run: their state is recorded, and a resumed run gets the sandbox that the killed one had.

The journal has one path for each sandbox. Its latest fact says where the workspace is: in the sandbox itself, or in the
snapshot that the SDK made at the end of a run. Nothing that may be the only copy is removed before the task has ended.
"""

from __future__ import annotations

import asyncio
import copy
import enum
import json
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from uuid import UUID

from agents.sandbox import Manifest
from agents.sandbox.session.sandbox_session import SandboxSession
from agents.sandbox.session.sandbox_session_state import SandboxSessionState
from agents.sandbox.snapshot import NoopSnapshot
from sqlalchemy import select

from agentexec.activity.models import Activity
from agentexec.db.transactions import reading
from agentexec.errors import LeaseLostError, SandboxLostError
from agentexec.journal.facts import FactKind, dump, fit_path
from agentexec.runners.openai.proxy import SdkProxy
from agentexec.runners.openai.run import DurableRun
from agentexec.runners.sandbox_folders import CONTAINER_LABEL, new_workspace, note_containers
from agentexec.runtime import RUNTIME
from agentexec.task import ACTIVE_STATUSES, Lease, Status

UNIX_LOCAL, DOCKER = "unix_local", "docker"

DEFAULT_ROOT = Manifest().root
"""Root of a manifest that leaves the place of the workspace to the client."""


class Stage(enum.StrEnum):
    """The place of a sandbox's workspace."""

    MADE = "made"
    """Nowhere yet: the sandbox exists, but nothing has run in it."""
    OPEN = "open"
    """In the sandbox."""
    CLOSED = "closed"
    """In the snapshot: the SDK has ended the sandbox."""
    DONE = "done"
    """No longer needed: the run has its final output."""


class Place:
    """A sandbox's path in the journal."""

    def __init__(self, run: DurableRun, path: str) -> None:
        self.run = run
        self.path = path

    @classmethod
    def next(cls, run: DurableRun) -> Place:
        """Return the place of the run's next sandbox."""
        number = run.recorder.next_ordinal(f"{run.path}/sandbox")
        return cls(run, fit_path(f"{run.path}/sandbox#{number}"))

    @classmethod
    def of_session(cls, run: DurableRun, session_id: UUID) -> Place | None:
        """Return the place of a sandbox that the task has used before."""
        for fact in run.recorder.facts_of(FactKind.SANDBOX):
            if json.loads(fact.value)["state"].get("session_id") == str(session_id):
                return cls(run, fact.path)
        return None

    @property
    def last(self) -> dict[str, Any] | None:
        """The latest recorded value; None if there is none."""
        facts = self.run.recorder.facts(self.path)
        return json.loads(facts[-1].value) if facts else None

    @property
    def stopped(self) -> bool:
        """True if this attempt may do nothing more: another worker may be using the sandbox now."""
        return self.run.recorder.fault is not None

    async def may_end(self) -> bool:
        """Return True if this attempt may stop the sandbox: no other worker has the task."""
        return not self.stopped and await RUNTIME.run_patiently(_may_end, self.run.recorder.lease)

    async def note(self, stage: Stage, state: SandboxSessionState) -> None:
        """Record a stage and the state that belongs to it, unless they are recorded already."""
        value = {
            "stage": stage,
            "state": portable(state),
            "host": socket.gethostname(),
            "inode": _inode(state),
        }
        last = self.last
        if last is None or any(last[key] != value[key] for key in ("stage", "state")):
            await self.run.recorder.record(
                self.path, FactKind.SANDBOX, "", dump(value, "The state of a sandbox")
            )

    def lost(self, backend: str, last: dict[str, Any], why: str) -> SandboxLostError:
        """Return the error that stops the attempt."""
        agent_id = self.run.recorder.lease.agent_id
        error = SandboxLostError(
            f"Task {agent_id} cannot resume in its {backend} sandbox, last used on host {last['host']}: {why}; "
            "retry the task where the sandbox is, or enqueue it again.",
            agent_id=agent_id,
        )
        self.run.recorder.stop(error)
        return error


def portable(state: SandboxSessionState) -> dict[str, Any]:
    """Return a state as JSON data, without the manifest: the handler has it, and it may hold credentials."""
    kept = copy.copy(state)
    kept.manifest = Manifest(root=state.manifest.root)
    data = kept.model_dump(mode="json")
    data["manifest"] = {"root": state.manifest.root}
    return data


def recorded_state(last: dict[str, Any], manifest: Manifest) -> SandboxSessionState:
    """Return a recorded state with the handler's manifest, at the recorded root."""
    state = SandboxSessionState.parse(copy.deepcopy(last["state"]))
    state.manifest = manifest.model_copy(update={"root": last["state"]["manifest"]["root"]}, deep=True)
    return state


class JournaledSandbox(SandboxSession):
    """A sandbox session that is recorded at `place`.

    `attached` sandboxes continue with the workspace that is in them. A `scratch` one serves the replay of a run that is
    finished, and is not recorded.
    """

    def __init__(
        self, session: SandboxSession, place: Place, *, attached: bool = False, scratch: bool = False
    ) -> None:
        super().__init__(session._inner, instrumentation=session._instrumentation)
        self.place = place
        self.scratch = scratch
        self.persisted = False
        self._attached = attached

    async def start(self) -> None:
        """Start as the SDK does, but without touching the workspace of an attached sandbox."""
        if self._attached:
            await start_in_place(self._inner, super().start)
        else:
            await super().start()
        if not self.scratch:
            await self.place.note(Stage.OPEN, self.state)

    async def stop(self) -> None:
        """Make the snapshot, unless another worker has the task: then the sandbox is its own."""
        if await self.place.may_end():
            await super().stop()
            self.persisted = not isinstance(self.state.snapshot, NoopSnapshot)
        else:
            await self.pty_terminate_all()

    async def shutdown(self) -> None:
        """Stop the sandbox, unless another worker has the task."""
        if await self.place.may_end():
            await super().shutdown()
        else:
            await self.pty_terminate_all()


class JournaledClient(SdkProxy):
    """A sandbox client that records what it creates, and resumes it in later attempts."""

    def __init__(self, client: Any, run: DurableRun) -> None:
        super().__init__(client)
        self._run = run
        self._kept: dict[str, JournaledSandbox] = {}

    async def create(
        self, *, snapshot: Any = None, manifest: Manifest | None = None, options: Any = None
    ) -> Any:
        """Return the run's next sandbox: a new one, or the one that an earlier attempt had."""
        place = Place.next(self._run)
        last = place.last
        manifest = manifest if manifest is not None else Manifest()
        if last is not None and last["stage"] != Stage.DONE:
            state = recorded_state(last, manifest)
            if last["stage"] != Stage.MADE or await self._problem(last, state) is None:
                return await self._reopen(place, last, state)
        return await self._create(
            place, last is not None and last["stage"] == Stage.DONE, snapshot, manifest, options
        )

    async def resume(self, state: SandboxSessionState) -> Any:
        """Return the sandbox of a state that the SDK or the handler has kept."""
        # Every attempt must count this sandbox, so that it numbers the others alike.
        new = Place.next(self._run)
        place = Place.of_session(self._run, state.session_id) or new
        last = place.last
        if last is None or last["stage"] == Stage.DONE:
            return JournaledSandbox(await self._inner.resume(state), place)
        return await self._reopen(place, last, recorded_state(last, state.manifest))

    async def delete(self, session: Any) -> Any:
        """Remove a sandbox whose workspace is in a snapshot; keep one that may be needed again."""
        if type(session) is not JournaledSandbox or session.scratch:
            return await self._inner.delete(session)
        if session.place.stopped:
            return session
        if not session.persisted:
            self._kept[session.place.path] = session
            return session
        await self._remove(session, Stage.CLOSED)
        return session

    async def remove_kept(self) -> None:
        """Remove the sandboxes without a snapshot, because their run is finished."""
        while self._kept:
            await self._remove(self._kept.popitem()[1], Stage.DONE)

    async def _remove(self, session: JournaledSandbox, stage: Stage) -> None:
        try:
            await session.place.note(stage, session.state)
        except LeaseLostError:
            # A canceled task needs it no more. If another worker has the task, that one has the sandbox too.
            if not await RUNTIME.run_patiently(_may_end, session.place.run.recorder.lease):
                raise
        await self._inner.delete(session)

    async def _create(
        self, place: Place, scratch: bool, snapshot: Any, manifest: Manifest, options: Any
    ) -> JournaledSandbox:
        """Create a sandbox at a place where the host finds it even if the worker dies right now."""
        agent_id, owned = self._run.recorder.lease.agent_id, False
        if self._inner.backend_id == UNIX_LOCAL and manifest.root == DEFAULT_ROOT:
            root, owned = await asyncio.to_thread(new_workspace, agent_id), True
            manifest = manifest.model_copy(update={"root": str(root)}, deep=True)
        elif self._inner.backend_id == DOCKER and hasattr(options, "labels"):
            await asyncio.to_thread(note_containers, agent_id)
            labels = {**(options.labels or {}), CONTAINER_LABEL: str(agent_id)}
            options = options.model_copy(update={"labels": labels})
        await self._run.recorder.confirm_lease()
        session = await self._inner.create(snapshot=snapshot, manifest=manifest, options=options)
        if owned:
            session.state.workspace_root_owned = True
        sandbox = JournaledSandbox(session, place, scratch=scratch)
        if not scratch:
            try:
                await place.note(Stage.MADE, session.state)
            except BaseException:
                await self._inner.delete(session)
                raise
        return sandbox

    async def _reopen(
        self, place: Place, last: dict[str, Any], state: SandboxSessionState
    ) -> JournaledSandbox:
        attached = last["stage"] == Stage.OPEN
        if attached and (why := await self._problem(last, state)) is not None:
            raise place.lost(self._inner.backend_id, last, why)
        container = getattr(state, "container_id", None)
        await self._run.recorder.confirm_lease()
        session = await self._inner.resume(state)
        why = None
        if attached and getattr(session.state, "container_id", None) != container:
            why = "the SDK does not attach to containers with mounts that need credentials"
        elif last["stage"] == Stage.CLOSED and not await _is_restorable(session):
            why = "its snapshot is gone"
        if why is not None:
            await self._inner.delete(session)
            raise place.lost(self._inner.backend_id, last, why)
        return JournaledSandbox(session, place, attached=attached)

    async def _problem(self, last: dict[str, Any], state: SandboxSessionState) -> str | None:
        return await attach_problem(last, state, getattr(self._inner, "get_container", None))


async def attach_problem(
    last: dict[str, Any], state: SandboxSessionState, get_container: Callable[[str], Any] | None
) -> str | None:
    """Return why nobody can attach to a sandbox that was open; None if it is there."""
    if state.type == UNIX_LOCAL:
        inode = await asyncio.to_thread(_inode, state)
        if inode is None:
            return f"its workspace {state.manifest.root} is not on host {socket.gethostname()}"
        # A folder that the client made has a name of its own. Another host may have some folder of the given name.
        if not getattr(state, "workspace_root_owned", False) and inode != last["inode"]:
            return f"{state.manifest.root} on host {socket.gethostname()} is another folder"
        return None
    if state.type == DOCKER and get_container is not None:
        container = await asyncio.to_thread(get_container, getattr(state, "container_id", ""))
        return None if container is not None else "its container is gone"
    return "only Unix-local and Docker sandboxes can be attached to after a crash"


async def start_in_place(inner: Any, start: Callable[[], Awaitable[None]]) -> None:
    """Start a sandbox that has its workspace, without restoring a snapshot or the manifest's files over it."""
    snapshot = inner.state.snapshot
    inner._set_start_state_preserved(True)
    inner.state.snapshot = NoopSnapshot(id=snapshot.id)
    if not inner.state.manifest.ephemeral_mount_targets():
        inner._reapply_ephemeral_manifest_on_resume = _do_nothing
    try:
        await start()
    finally:
        inner.state.snapshot = snapshot
        vars(inner).pop("_reapply_ephemeral_manifest_on_resume", None)


async def _do_nothing() -> None:
    """Replace the step that writes the manifest's temporary files: they are there, and may have been changed."""


async def _is_restorable(session: Any) -> bool:
    return bool(await session.state.snapshot.restorable(dependencies=session.dependencies))


def _inode(state: SandboxSessionState) -> int | None:
    """Return what tells a workspace on this host from another folder of its name; None if it is not here."""
    if state.type != UNIX_LOCAL:
        return None
    try:
        return Path(state.manifest.root).stat().st_ino
    except OSError:
        return None


def _may_end(lease: Lease) -> bool:
    """Return True if a lease still holds its task, or the task has ended."""
    query = select(Activity.status, Activity.epoch).where(Activity.agent_id == lease.agent_id)
    with reading(RUNTIME.engine) as connection:
        row = connection.execute(query).one_or_none()
    return (
        row is None
        or row.status not in ACTIVE_STATUSES
        or (row.status, row.epoch) == (Status.RUNNING, lease.epoch)
    )
