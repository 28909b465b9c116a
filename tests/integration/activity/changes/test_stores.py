"""The record store of every database gives the answers of the general store, and leaves its rows."""

from __future__ import annotations

import random
from typing import Any

import pytest
from sqlalchemy.exc import IntegrityError

from agentexec.activity.changes.endings import Ending
from agentexec.activity.changes.progress import Progress
from agentexec.activity.changes.store import Recorded
from agentexec.activity.changes.unknown_tasks import left_message
from agentexec.activity.changes.versions import Versions, waiting_message
from agentexec.config import Settings
from agentexec.errors import JournalConflictError, LeaseLostError
from agentexec.journal.facts import Fact, FactKind, Usage
from agentexec.policy import MAX_EPOCH_LEAD
from agentexec.state import sql_backend
from agentexec.task import Entry, Lease, Priority, Status
from tests.stores import QUEUE, Stores, assert_same, at, lease, new_task, queued, running, set_row, task_id
from tests.tables import copy_database

TTL = 60
DONE = "Done."


@pytest.fixture
def reference_url(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The general store on SQLite is what the others are compared with."""
    return copy_database(
        tmp_path_factory.getbasetemp() / "with_tables.db", tmp_path_factory.mktemp("reference")
    )


def complete(number: int, epoch: int = 1, **changes: Any) -> Ending:
    return Ending(lease(number, epoch), Status.COMPLETE, DONE)._replace(**changes)


def record(stores: Stores, *endings: Ending, progress: Any = (), seconds: float = 5) -> Recorded:
    return stores.record.record(progress, endings, now=at(seconds), result_ttl=TTL)


def single_tasks_are_inserted(stores: Stores) -> object:
    rich = new_task(
        1,
        priority=Priority.HIGH,
        run_at=at(60),
        metadata={"tenant": "a", "n": 1, "flag": True, "list": [1], "none": None, "text": "ä" * 200},
        idempotency_key="key",
        context=None,
    )
    tasks = [new_task(0), rich, new_task(2, parent_id=task_id(1), metadata={}), new_task(3, queue=None)]
    for number, task in enumerate(tasks):
        stores.record.insert([task], at(number))
    with pytest.raises(IntegrityError):
        stores.record.insert([new_task(4, idempotency_key="key")], at(9))
    return None


def several_tasks_are_inserted(stores: Stores) -> object:
    stores.record.insert([new_task(number, metadata={"n": number}) for number in range(5)], at(0))
    with pytest.raises(IntegrityError):
        stores.record.insert([new_task(7, idempotency_key="k"), new_task(8, idempotency_key="k")], at(1))
    return None


def a_push_is_part_of_the_insert(stores: Stores) -> object:
    pushed = []
    stores.record.insert([new_task(0)], at(0), push=lambda connection: pushed.append(True))

    def fail(_connection: Any) -> None:
        raise ValueError("no queue")

    with pytest.raises(ValueError, match="no queue"):
        stores.record.insert([new_task(1)], at(1), push=fail)
    return pushed


def every_kind_of_claim_is_decided(stores: Stores) -> object:
    queued(stores, *range(12))
    for number, values in {
        1: {"status": Status.CANCELED, "finished_at": at(1)},
        2: {"epoch": 1},  # overtaken by a later claim
        3: {"crashes": 1, "crashes_in_row": 1, "attempt": 1},
        4: {"crashes": 2, "crashes_in_row": 0, "attempt": 2},  # a suspect
        5: {"crashes": 2, "crashes_in_row": 1, "attempt": 2},  # another suspect: held
        6: {"crashes": 3, "crashes_in_row": 3},
        7: {"status": Status.RUNNING, "attempt": 1},  # its worker disappeared
        8: {"status": Status.RUNNING, "attempt": 2, "crashes": 2, "crashes_in_row": 2},
        9: {"attempt": 4, "started_at": at(1), "error": "It failed.", "run_at": at(2), "percentage": 40},
        10: {"status": Status.RUNNING, "epoch": 1},
    }.items():
        set_row(stores, number, **values)
    claims = [lease(number) for number in (11, 9, 99, *range(9), 10)]
    return [stores.claim(claims, at(3)), stores.claim(claims, at(4), suspect_running=True)]


def late_claims_expire(stores: Stores) -> object:
    for number, expires in enumerate((None, at(2), at(3), at(4), at(2), at(2), at(2.5))):
        stores.record.insert([new_task(number, expires_at=expires)], at(0))
    set_row(stores, 4, started_at=at(1), attempt=1)  # by a worker of the release before
    set_row(stores, 5, status=Status.RUNNING, started_at=at(1), attempt=1)
    admissions = stores.claim([lease(number) for number in range(7)], at(3))
    return [admissions.started, sorted(admissions.ended), sorted(admissions.expired)]


def debounced_tasks_start_when_the_record_says_so(stores: Stores) -> object:
    for number, due in enumerate((2, 3, 4, 9)):
        stores.record.insert([new_task(number, debounce_key=f"key {number}", run_at=at(due))], at(0))
    stores.record.insert([new_task(4, run_at=at(9))], at(0))  # an answer has come
    set_row(stores, 3, started_at=at(1), attempt=1)
    admissions = stores.claim([lease(number) for number in range(5)], at(3))
    return [admissions.started, sorted(admissions.early)]


def tasks_of_other_names_are_left_and_end_after_a_while(stores: Stores) -> object:
    queued(stores, *range(8))
    for number, values in {
        0: {"agent_type": "known"},
        1: {"agent_type": "other", "error": "It failed.", "attempt": 1, "percentage": 40, "run_at": at(1)},
        2: {"agent_type": "other", "status": Status.RUNNING, "attempt": 1},  # its worker disappeared
        3: {"agent_type": "other", "status": Status.CANCELED, "finished_at": at(1)},
        4: {"agent_type": "other", "epoch": 1},
        5: {"agent_type": "gone", "message": left_message("gone"), "updated_at": at(3 - 600)},
        6: {"agent_type": "gone", "message": left_message("gone"), "updated_at": at(3 - 599)},
        7: {"agent_type": "KNOWN"},  # MariaDB compares texts without regard to case, names are exact
    }.items():
        set_row(stores, number, **values)
    admissions = stores.claim([lease(number) for number in range(8)], at(3), task_names=["known", "else"])
    left = sorted((task.lease, task.task_name) for task in admissions.left)
    return [admissions.started, sorted(admissions.ended), admissions.refused, left]


def tasks_claimed_under_later_epochs_start(stores: Stores) -> object:
    queued(stores, 0, 1, 2)
    set_row(stores, 1, epoch=4, attempt=3)
    return stores.claim([lease(0, 1), lease(1, 7), lease(2, 2)], at(3))


def a_run_keeps_the_version_that_it_began_with(stores: Stores) -> object:
    queued(stores, 0, 1, 2)
    stores.record.insert([new_task(3, task_name="report")], at(0))
    set_row(stores, 1, version="0.9")
    set_row(stores, 2, status=Status.RUNNING, epoch=1)
    own = Versions("2", {"report": 'r-"1"'})
    claims = [lease(0), lease(1), lease(2, 2), lease(3)]
    return sorted(admitted.task_name for admitted in stores.claim(claims, at(1), versions=own).started)


def pinned_workers_leave_what_began_with_other_versions(stores: Stores) -> object:
    queued(stores, *range(7))
    stores.record.insert([new_task(7, task_name="report")], at(0))
    for number, version in ((1, "1"), (2, "2"), (3, "1"), (4, "1"), (6, "1")):
        set_row(stores, number, version=version, started_at=at(0))
    set_row(stores, 3, status=Status.RUNNING, epoch=1)
    set_row(stores, 4, epoch=1)
    set_row(stores, 5, started_at=at(0))  # it began without a version
    set_row(stores, 6, message=waiting_message("1"), updated_at=at(-9000))
    own = Versions("2", {"report": "r"}, is_pinned=True)
    own.outdated = frozenset({"report"})
    claims = [lease(0), lease(1), lease(2), lease(3, 2), lease(4, 6000), lease(5), lease(6, 6000), lease(7)]
    found = stores.claim(claims, at(1), versions=own, task_names=["work", "report"])
    left = sorted(
        (task.lease.agent_id.int - 1, task.waited, task.version, task.is_new) for task in found.left
    )
    return sorted(admitted.lease.agent_id.int - 1 for admitted in found.started), left


def forged_claims_change_nothing(stores: Stores) -> object:
    queued(stores, *range(6))
    set_row(stores, 1, queue="other")
    set_row(stores, 2, queue=None)
    set_row(stores, 3, queue=QUEUE.upper())  # MariaDB compares texts without regard to case
    set_row(stores, 5, epoch=2**31 - 1 - MAX_EPOCH_LEAD)
    epochs = {0: MAX_EPOCH_LEAD, 4: MAX_EPOCH_LEAD + 1, 5: 2**31 - 1}
    admissions = stores.claim([lease(number, epochs.get(number, 1)) for number in range(6)], at(3))
    anything = stores.claim([lease(1), lease(4, 2**31 - 1)], at(4), queue=None)
    return [admissions.started, sorted(admissions.contradicted), admissions.ended, anything.started]


def completions_alike_are_written(stores: Stores) -> object:
    running(stores, *range(5))
    set_row(stores, 4, run_at=at(1), error="old", percentage=10)
    results = ['{"answer": 1}', None, '"two"', '{"answer": 1}', "null"]
    endings = [complete(number, result=result) for number, result in enumerate(results)]
    return [record(stores, *endings), record(stores, *endings, seconds=6)]


def a_single_completion_is_written(stores: Stores) -> object:
    running(stores, 0)
    return record(stores, complete(0, result="1"))


def what_follows_an_ending_is_written_with_it(stores: Stores) -> object:
    for number in range(6):
        stores.record.insert([new_task(number, webhook=None if number % 2 else "https://a.example")], at(0))
    stores.claim([lease(number) for number in range(6)], at(1))
    plain = [complete(number, result="1") for number in (0, 1)]
    failures = [Ending(lease(number), Status.ERROR, "It failed.", error="It failed.") for number in (2, 3)]
    again = [Ending(lease(number), Status.QUEUED, "Again.") for number in (4, 5)]
    return [record(stores, *plain), record(stores, *failures, *again), record(stores, *plain, *failures)]


def lost_completions_are_refused(stores: Stores) -> object:
    running(stores, *range(4))
    set_row(stores, 1, status=Status.CANCELED)
    set_row(stores, 2, epoch=2)
    set_row(stores, 3, status=Status.QUEUED)
    return record(stores, *(complete(number, result="1") for number in (0, 1, 2, 3, 77)))


def nothing_is_written_for_nothing(stores: Stores) -> object:
    running(stores, 0)
    return record(stores)


def endings_of_all_kinds_are_written(stores: Stores) -> object:
    running(stores, *range(8))
    return record(
        stores,
        complete(0, result="1"),
        complete(1, message="Finished."),
        complete(2, status=Status.ERROR, message="Failed.", error="It failed.", result="never kept"),
        complete(3, status=Status.QUEUED, message="Again.", delay=3.5),
        complete(4, status=Status.QUEUED, message="Given back.", counts_as_attempt=False),
        complete(5, status=Status.CANCELED, message="Canceled."),
        complete(6, epoch=2),
    )


def unusual_completions_keep_all_their_values(stores: Stores) -> object:
    running(stores, 0, 1, 2)
    return [
        record(stores, complete(0, error="a warning")),
        record(stores, complete(1, counts_as_attempt=False)),
        record(stores, complete(2, delay=2.0)),
    ]


def completions_are_acknowledged_in_their_transaction(stores: Stores) -> object:
    running(stores, 0, 1)
    acknowledged: list[Any] = []

    def acknowledge(_connection: Any, endings: Any) -> None:
        acknowledged.extend(ending.lease for ending in endings)

    refused = stores.record.record(
        [], [complete(0), complete(1, epoch=2)], now=at(5), result_ttl=TTL, acknowledge=acknowledge
    )
    return refused, acknowledged


def completed_tasks_leave_the_queue_in_their_transaction(stores: Stores) -> object:
    running(stores, 0, 1, 2, 3)
    queue = sql_backend.create(Settings(), stores.engine)
    queue.push(QUEUE, [Entry(task_id(number), epoch=1) for number in range(3)])
    queue.push(QUEUE, [Entry(task_id(3), epoch=1, groups=("limit:a",))])
    # The task of the third was retried meanwhile: the entry is of its next attempt.
    set_row(stores, 2, status=Status.QUEUED)

    def acknowledge(connection: Any, endings: Any) -> None:
        queue.finish(QUEUE, [ending.lease for ending in endings], transaction=connection)

    endings = [complete(0), complete(1, epoch=2), complete(2), complete(3)]
    refused = stores.record.record(
        [], endings, now=at(5), result_ttl=TTL, acknowledge=acknowledge, queue_table=queue.queue_table
    )
    queue.finish(QUEUE, [lease(3)])
    left = [number for number in range(4) if not queue.unknown_tasks(QUEUE, [task_id(number)])]
    queue.remove(QUEUE, [task_id(number) for number in left])
    queue.close()
    return refused, left


def reports_are_written_before_endings(stores: Stores) -> object:
    running(stores, 0, 1, 2)
    stores.record.insert([new_task(3, queue=None), new_task(4)], at(0))
    set_row(stores, 2, status=Status.COMPLETE)
    reports = [
        Progress(task_id(0), 1, "a tenth", 10, at(2)),
        Progress(task_id(0), 1, "still", None, at(3)),
        Progress(task_id(1), 2, "of another worker", 50, at(3)),
        Progress(task_id(2), None, "too late", 50, at(3)),
        Progress(task_id(3), None, "begun", 20, at(3)),
        Progress(task_id(3), None, "more", None, at(4)),
        Progress(task_id(4), None, "not started", 5, at(4)),
        Progress(task_id(88), None, "nothing there", 5, at(4)),
    ]
    return record(stores, complete(0, result="1"), progress=reports)


def reports_alone_are_written(stores: Stores) -> object:
    running(stores, 0)
    report = Progress(task_id(0), 1, "half", 50, at(2))
    return record(stores, progress=[report, report._replace(epoch=7)])


def a_random_life(seed: int) -> Any:
    """Calls of all kinds, in an order that differs for each seed."""

    def scenario(stores: Stores) -> object:
        chance, answers = random.Random(seed), []
        epochs = dict.fromkeys(range(10), 0)
        queued(stores, *range(5))
        stores.record.insert([new_task(9, queue=None)], at(0))
        for number in range(5, 9):
            stores.record.insert([new_task(number, metadata={"n": number})], at(0))
        for step in range(60):
            seconds = 1 + step
            picked = chance.sample(range(10), chance.randint(1, 5))
            match chance.choice(
                ("claim", "claim", "complete", "complete", "end", "report", "append", "crash")
            ):
                case "claim":
                    for number in picked:
                        epochs[number] += chance.choice((0, 1, 1, 1))
                    claims = [lease(number, epochs[number]) for number in picked if number != 9]
                    answers.append(stores.claim(claims, at(seconds)))
                case "complete":
                    # Alike, so that they take the faster way.
                    endings = [complete(n, epochs[n], result=chance.choice(("1", None))) for n in picked[:2]]
                    answers.append(record(stores, *endings, seconds=seconds))
                case "end":
                    status = chance.choice((Status.ERROR, Status.QUEUED))
                    kept = chance.choice((True, False))
                    endings = [
                        complete(
                            n,
                            epochs[n],
                            status=status,
                            counts_as_attempt=kept,
                            error=chance.choice(("e", None)),
                        )
                        for n in picked
                    ]
                    answers.append(record(stores, *endings, seconds=seconds))
                case "report":
                    reports = [
                        Progress(
                            task_id(n),
                            chance.choice((None, epochs[n])),
                            "on",
                            chance.choice((None, step)),
                            at(seconds),
                        )
                        for n in picked
                    ]
                    answers.append(record(stores, progress=reports, seconds=seconds))
                case "append":
                    answers.append(append(stores, lease(picked[0], epochs[picked[0]]), chance, seconds))
                case "crash":
                    crashes = chance.randint(0, 3)
                    in_row = chance.randint(0, crashes)
                    set_row(stores, picked[0], crashes=crashes, crashes_in_row=in_row)
        return answers

    return scenario


def append(stores: Stores, held: Lease, chance: random.Random, seconds: float) -> str:
    kind = chance.choice((FactKind.MODEL, FactKind.INTENT, FactKind.OUTCOME, FactKind.RAISED))
    fact = Fact(f"a/{chance.randint(0, 2)}", 0, kind, "hash", f'"{chance.randint(0, 1)}"')
    usage = chance.choice((None, Usage("small", 1, 10, 5, 3)))
    try:
        stores.journal.append(held, fact, usage, at(seconds))
    except (LeaseLostError, JournalConflictError) as error:
        return type(error).__name__
    return "appended"


SCENARIOS = [
    single_tasks_are_inserted,
    several_tasks_are_inserted,
    a_push_is_part_of_the_insert,
    every_kind_of_claim_is_decided,
    late_claims_expire,
    debounced_tasks_start_when_the_record_says_so,
    tasks_of_other_names_are_left_and_end_after_a_while,
    tasks_claimed_under_later_epochs_start,
    a_run_keeps_the_version_that_it_began_with,
    pinned_workers_leave_what_began_with_other_versions,
    forged_claims_change_nothing,
    completions_alike_are_written,
    a_single_completion_is_written,
    what_follows_an_ending_is_written_with_it,
    lost_completions_are_refused,
    nothing_is_written_for_nothing,
    endings_of_all_kinds_are_written,
    unusual_completions_keep_all_their_values,
    completions_are_acknowledged_in_their_transaction,
    completed_tasks_leave_the_queue_in_their_transaction,
    reports_are_written_before_endings,
    reports_alone_are_written,
]


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_every_store_gives_the_same_answers_and_leaves_the_same_rows(
    scenario: Any, tables_url: str, reference_url: str
) -> None:
    assert_same(scenario, tables_url, reference_url)


@pytest.mark.parametrize("seed", range(5))
def test_every_store_takes_a_random_life_of_tasks_alike(
    seed: int, tables_url: str, reference_url: str
) -> None:
    assert_same(a_random_life(seed), tables_url, reference_url)
