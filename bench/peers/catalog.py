"""The queues that are compared: their packages, their commands, and what each promises by its documentation."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Peer:
    """One queue in one configuration.

    `program`: module under `programs/`. `workers`: commands of its workers, without the environment's `bin/`, of about 20
    slots in all, as its documentation starts them. `database`: `postgres`, `sqlite` or none.
    """

    name: str
    program: str
    packages: str
    workers: tuple[str, ...]
    redis: bool
    database: str
    promise: str
    prepare: str = ""


_OURS = "agentexec worker agentexec_program.py -w 2 -c 10"
_RECORD = "durable record of each task before enqueue returns; fenced endings; runs again after a crash"

PEERS = (
    Peer("agentexec Redis+PG", "agentexec_program", "", (_OURS,), True, "postgres", _RECORD),
    Peer("agentexec Redis+SQLite", "agentexec_program", "", (_OURS,), True, "sqlite", _RECORD),
    Peer("agentexec SQLite", "agentexec_program", "", (_OURS,), False, "sqlite", _RECORD),
    Peer("agentexec PG", "agentexec_program", "", (_OURS,), False, "postgres", _RECORD),
    Peer(
        "dramatiq",
        "dramatiq_program",
        "dramatiq[redis]==2.2.1",
        ("dramatiq dramatiq_program --processes 2 --threads 10",),
        True,
        "",
        "acknowledged after the task; runs again after a minute's silence of its worker",
    ),
    Peer(
        "huey",
        "huey_program",
        "huey==3.5.4 redis==8.1.0",
        ("huey_consumer huey_program.huey -w 20",),
        True,
        "",
        "popped before the task: one under way is lost with its worker",
    ),
    Peer(
        "taskiq",
        "taskiq_program",
        "taskiq==0.13.0 taskiq-redis==1.2.4",
        ("taskiq worker taskiq_program:broker --workers 2 --max-async-tasks 10",),
        True,
        "",
        "acknowledged after the task; runs again after ten minutes",
    ),
    Peer(
        "saq",
        "saq_program",
        "saq[redis]==0.26.4 typing_extensions",
        ("saq saq_program.settings", "saq saq_program.settings"),
        True,
        "",
        "swept and retried when its job has timed out",
    ),
    Peer(
        "docket",
        "docket_program",
        "pydocket==0.27.0",
        ("python docket_program.py", "python docket_program.py"),
        True,
        "",
        "acknowledged after the task; runs again after five minutes",
    ),
    Peer(
        "celery",
        "celery_program",
        "celery[redis]==5.7.0",
        ("celery -A celery_program worker --concurrency 2 --loglevel WARNING",),
        True,
        "",
        "acknowledged after the task; runs again after an hour",
    ),
    Peer(
        "procrastinate",
        "procrastinate_program",
        "procrastinate==3.10.0 psycopg[binary]",
        (
            "procrastinate --app=procrastinate_program.app worker --concurrency=10",
            "procrastinate --app=procrastinate_program.app worker --concurrency=10",
        ),
        False,
        "postgres",
        "durable row of each task before defer returns; stalled ones are retried by the user's own task",
        prepare="procrastinate --app=procrastinate_program.app schema --apply",
    ),
    Peer(
        "DBOS PG",
        "dbos_program",
        "dbos==3.4.0",
        ("python dbos_program.py", "python dbos_program.py"),
        False,
        "postgres",
        "durable record of each workflow before enqueue returns; recovered when its executor starts again",
    ),
    Peer(
        "DBOS SQLite",
        "dbos_program",
        "dbos==3.4.0",
        ("python dbos_program.py", "python dbos_program.py"),
        False,
        "sqlite",
        "as on PostgreSQL",
    ),
)
