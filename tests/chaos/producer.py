"""A producer of the chaos runs: enqueues tasks, cancels some, answers approvals, sends events, waits for results.

`python -m tests.chaos.producer SEED NUMBER RATE [KIND…]` runs until it is killed, and leaves the named kinds out. What it offers is in the ledger before it calls agentexec, and
what was answered after it: a producer that is killed in between leaves a task that may exist or not.
"""

from __future__ import annotations

import itertools
import os
import random
import sys
import threading
import time
from collections.abc import Callable, Collection, Sequence
from typing import Any

from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.orm import Session

import agentexec as ax
from agentexec.runtime import RUNTIME
from agentexec.task import Entry
from tests.chaos.answers import GO, answer_approvals
from tests.chaos.ledger import write_line
from tests.chaos.names import SIDE

MIX = {
    "plain": 24,
    "in_thread": 8,
    "flaky": 8,
    "hopeless": 3,
    "poison": 1,
    "steps": 10,
    "audit": 4,
    "locked": 10,
    "parent": 5,
    "sleeper": 4,
    "listener": 4,
    "asks": 4,
    "Line": 5,
    "keyed": 4,
    "committed": 4,
    "rolled_back": 3,
    "canceled": 4,
    "expiring": 4,
    "many": 2,
    "side": 6,
    "notified": 5,
    "burst": 4,
}
"""Operations, each with its weight."""

LOCKS = 3
"""Number of locks."""

RESULT_PATIENCE = 300.0


class Producer:
    """Producer with a number of its own in a run."""

    def __init__(self, seed: int, number: int, rate: float, without: Collection[str] = ()) -> None:
        self._mix = {kind: weight for kind, weight in MIX.items() if kind not in without}
        self._chance = random.Random(f"{seed} {number}")
        self._prefix = f"p{number}-{os.getpid()}"
        self._rate = rate
        self._numbers = itertools.count()
        self._later: list[tuple[float, Callable[[], None]]] = []

    def run(self) -> None:
        """Act until the process ends."""
        while True:
            time.sleep(self._chance.expovariate(self._rate))
            [kind] = self._chance.choices(list(self._mix), list(self._mix.values()))
            attempt(lambda kind=kind: self._offer(kind))
            now = time.monotonic()
            due, self._later = (
                [call for at, call in self._later if at <= now],
                [item for item in self._later if item[0] > now],
            )
            for call in due:
                attempt(call)

    def _offer(self, kind: str) -> None:
        key = f"{self._prefix}-{next(self._numbers)}"
        job: dict[str, Any] = {"key": key, "seconds": round(self._chance.uniform(0, 0.8), 2)}
        special = getattr(self, f"_offer_{kind}", None)
        if special is not None:
            special(key, job)
            return
        if kind == "audit":
            job = {"key": key, "times": next(self._numbers)}
        elif kind in ("steps", "parent"):
            job |= {"number": self._chance.randint(1, 4), "seconds": round(self._chance.uniform(0, 0.3), 2)}
        elif kind == "sleeper":
            job["seconds"] = self._chance.uniform(1, 9)
        task = self._enqueue(kind, key, job)
        if kind == "listener":
            self._after(self._chance.uniform(0, 8), lambda: ax.send_event_sync(GO, key, key))
        if kind in ("plain", "in_thread", "Line") and self._chance.random() < 0.3:
            threading.Thread(target=await_result, args=(task, key), daemon=True).start()

    def _enqueue(self, kind: str, key: str, job: dict[str, Any], **options: Any) -> ax.Task:
        high = self._chance.random() < 0.2
        delay = self._chance.uniform(0, 6) if self._chance.random() < 0.15 else None
        write_line(event="offered", kind=kind, key=key)
        if self._chance.random() < 0.5:
            options["fairness_key"] = f"tenant-{self._chance.randrange(3)}"
        priority = ax.Priority.HIGH if high else ax.Priority.LOW
        task = ax.enqueue_sync(kind, job, priority=priority, delay=delay, **options)
        write_line(event="accepted", kind=kind, key=key, id=task.agent_id.hex)
        return task

    def _offer_keyed(self, key: str, job: dict[str, Any]) -> None:
        """Enqueue twice under one idempotency key: one task."""
        for _ in range(2):
            self._enqueue("plain", key, job, idempotency_key=key)

    def _offer_committed(self, key: str, job: dict[str, Any]) -> None:
        self._in_session(key, job, commit=True)

    def _offer_rolled_back(self, key: str, job: dict[str, Any]) -> None:
        self._in_session(key, job, commit=False)

    def _in_session(self, key: str, job: dict[str, Any], *, commit: bool) -> None:
        with Session(RUNTIME.engine) as session:
            write_line(event="offered" if commit else "taken-back", kind="plain", key=key)
            task = ax.enqueue_sync("plain", job, session=session)
            if commit:
                session.commit()
                write_line(event="accepted", kind="plain", key=key, id=task.agent_id.hex)
            else:
                session.rollback()

    def _offer_locked(self, key: str, job: dict[str, Any]) -> None:
        job |= {"number": self._chance.randint(1, 3), "seconds": round(self._chance.uniform(0, 0.2), 2)}
        job["lock"] = str(self._chance.randrange(LOCKS))
        write_line(event="offered", kind="locked", key=key, lock=job["lock"])
        task = ax.enqueue_sync("locked", job, lock_key=f"lock-{job['lock']}")
        write_line(event="accepted", kind="locked", key=key, id=task.agent_id.hex, lock=job["lock"])

    def _offer_expiring(self, key: str, job: dict[str, Any]) -> None:
        write_line(event="expires", key=key)  # first, as it may expire although this process is killed
        self._enqueue("plain", key, job, expires=self._chance.uniform(6, 9))

    def _offer_side(self, key: str, job: dict[str, Any]) -> None:
        self._enqueue("plain", key, job, queue_name=SIDE)

    def _offer_notified(self, key: str, job: dict[str, Any]) -> None:
        kind = self._chance.choice(["plain", "hopeless"])
        task = self._enqueue(kind, key, job, webhook=os.environ["CHAOS_WEBHOOK"])
        write_line(event="notifies", key=key, id=task.agent_id.hex)

    def _offer_burst(self, key: str, job: dict[str, Any]) -> None:
        """Enqueue several times under one key: one task, with the last context, if it has not started meanwhile."""
        write_line(event="offered", kind="burst", key=key)
        for number in range(3):
            ax.enqueue_sync("burst", {**job, "number": number}, debounce=2.0, debounce_key=key)
            write_line(event="merged", key=key, number=number)

    def _offer_many(self, key: str, job: dict[str, Any]) -> None:
        jobs = [{**job, "key": f"{key}.{number}"} for number in range(20)]
        for each in jobs:
            write_line(event="offered", kind="plain", key=each["key"])
        for each, task in zip(jobs, ax.enqueue_many_sync("plain", jobs), strict=True):
            write_line(event="accepted", kind="plain", key=each["key"], id=task.agent_id.hex)

    def _offer_canceled(self, key: str, job: dict[str, Any]) -> None:
        kind = self._chance.choice(["plain", "sleeper", "parent", "steps", "listener"])
        task = self._enqueue(kind, key, {**job, "number": 3})
        write_line(event="cancels", key=key, id=task.agent_id.hex)

        def cancel() -> None:
            is_canceled = ax.cancel_sync(task)
            write_line(event="canceled" if is_canceled else "not-canceled", key=key, id=task.agent_id.hex)
            if kind == "listener" and not is_canceled:
                ax.send_event_sync(GO, key, key)

        self._after(self._chance.uniform(0, 3), cancel)

    def _after(self, seconds: float, call: Callable[[], None]) -> None:
        self._later.append((time.monotonic() + seconds, call))


def keep_pausing(chance: random.Random) -> None:
    """Pause the second queue now and then for some seconds, until the process ends."""
    while True:
        time.sleep(chance.uniform(2, 12))
        attempt(lambda: ax.queues.pause_sync(SIDE, by="chaos"))
        time.sleep(chance.uniform(0.5, 6))
        attempt(lambda: ax.queues.resume_sync(SIDE, by="chaos"))


def note_failed_pushes() -> None:
    """Write down which accepted tasks the queue does not get, so that the reconciler must push them."""
    backend: Any = RUNTIME.backend
    push = backend.push

    def noting_push(queue: str, entries: Sequence[Entry], **more: Any) -> None:
        try:
            push(queue, entries, **more)
        except Exception:
            write_line(event="unpushed", key="-", ids=[entry.agent_id.hex for entry in entries])
            raise

    backend.push = noting_push


def keep_answering(chance: random.Random) -> None:
    """Answer approvals now and then, until the process ends."""
    while True:
        time.sleep(1)
        attempt(lambda: answer_approvals(chance))


def await_result(task: ax.Task, key: str) -> None:
    """Wait for a result as a web application does, and write down how the wait ended."""
    try:
        write_line(event="waits", key=key, id=task.agent_id.hex)
        value = ax.get_result_sync(task, timeout=RESULT_PATIENCE)
        write_line(event="got", key=key, id=task.agent_id.hex, value=str(value))
    except ax.UnavailableError:
        write_line(event="waits-no-more", key=key, id=task.agent_id.hex)
    except Exception as error:
        write_line(event="got-error", key=key, id=task.agent_id.hex, error=repr(error))


def attempt(call: Callable[[], Any]) -> None:
    """Call; an outage is part of the game, also in the application's own session. Other errors go to the ledger."""
    try:
        call()
    except (ax.UnavailableError, ax.ApprovalNotFoundError, OperationalError, InterfaceError):
        return
    except Exception as error:
        write_line(event="producer-error", key="-", error=repr(error)[:500])


def main() -> None:
    seed, number, rate = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    note_failed_pushes()
    chance = random.Random(f"answers {seed} {number}")
    threading.Thread(target=keep_answering, args=(chance,), daemon=True).start()
    threading.Thread(target=keep_pausing, args=(chance,), daemon=True).start()
    Producer(seed, number, rate, sys.argv[4:]).run()


if __name__ == "__main__":
    main()
