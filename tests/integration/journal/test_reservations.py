"""Reservations of budgets on every database: all accounts or none, and each released or settled once."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, select

from agentexec.activity.changes.stores import open_record_store
from agentexec.arguments.budgets import Limit
from agentexec.db.engine import open_engine
from agentexec.errors import LeaseLostError
from agentexec.journal.facts import Fact, FactKind, Usage
from agentexec.journal.ledger import BUDGET, HOLD, Charge
from agentexec.journal.reservations import (
    KEPT_DAYS,
    Account,
    Claim,
    Hold,
    Refusal,
    account_of_task,
    release,
    reserve,
)
from agentexec.journal.stores import open_journal_store
from agentexec.task import Lease, Status
from tests.stores import Stores, at, lease, new_task, running, set_row, task_id

TENANT = Account(
    "tenant=a/tokens/day/x",
    "tenant=a",
    Limit("tokens", 100),
    period="day",
    starts_at=at(0),
    ends_at=at(86_400),
)


@pytest.fixture
def stores(tables_url: str) -> Iterator[Stores]:
    engine = open_engine(tables_url)
    yield Stores(engine, open_record_store(engine), open_journal_store(engine))
    engine.dispose()


def own(number: int, tokens: int = 50) -> Account:
    return account_of_task(task_id(number), Limit("tokens", tokens), own=True)


def claim(tokens: int, path: str = "run", seq: int = 1, **options: Any) -> Claim:
    return Claim(path, seq, tokens * 10, tokens, **options)


def hold(engine: Engine, task: Lease, accounts: list[Account], wanted: Claim) -> Hold:
    outcome = reserve(engine, task, accounts, wanted, at(2))
    assert isinstance(outcome, Hold)
    return outcome


def refusal(engine: Engine, task: Lease, accounts: list[Account], wanted: Claim) -> Refusal:
    outcome = reserve(engine, task, accounts, wanted, at(2))
    assert isinstance(outcome, Refusal)
    return outcome


def spent(engine: Engine) -> dict[str, tuple[int, int]]:
    with engine.connect() as connection:
        return {row.title: (row.spent_tokens, row.spent_nanos) for row in connection.execute(select(BUDGET))}


def held(engine: Engine) -> list[tuple[str, int]]:
    with engine.connect() as connection:
        query = select(HOLD.c.budget, HOLD.c.tokens).order_by(HOLD.c.budget, HOLD.c.tokens)
        return [(row.budget, row.tokens) for row in connection.execute(query)]


def respond(stores: Stores, task: Lease, held: Hold, tokens: int, seq: int = 1) -> None:
    usage = Usage("small", 1, tokens, 0, 0, Charge(*held, tokens * 10, tokens))
    stores.journal.append(task, Fact("run", seq, FactKind.MODEL, "hash", "{}"), usage, at(3))


def test_a_response_settles_what_its_call_has_reserved_once(stores: Stores) -> None:
    running(stores, 0)
    reserved = hold(stores.engine, lease(0), [TENANT, own(0)], claim(40))
    assert held(stores.engine) == sorted([(TENANT.name, 40), (own(0).name, 40)])
    for _ in range(2):  # the commit of the first try was not confirmed
        respond(stores, lease(0), reserved, 25)
    assert spent(stores.engine) == {"tenant=a": (25, 250), "task": (25, 250)}
    assert held(stores.engine) == []
    release(stores.engine, reserved)
    assert spent(stores.engine)["task"] == (25, 250)


def test_a_call_that_does_not_fit_into_one_account_reserves_nothing(stores: Stores) -> None:
    running(stores, 0, 1)
    hold(stores.engine, lease(0), [TENANT, own(0)], claim(40))
    refused = refusal(stores.engine, lease(0), [TENANT, own(0)], claim(20, seq=2))
    assert (refused.account.title, refused.limit, refused.spent, refused.reserved) == ("task", 50, 0, 40)
    assert refused.may_pass
    refused = refusal(stores.engine, lease(1), [TENANT, own(1, 500)], claim(101))
    assert refused.account.title == "tenant=a"
    assert not refused.may_pass
    assert len(held(stores.engine)) == 2
    hold(stores.engine, lease(1), [TENANT, own(1, 500)], claim(101, is_forced=True))


def test_what_a_call_has_reserved_is_replaced_when_it_is_made_again(stores: Stores) -> None:
    running(stores, 0)
    for _ in range(3):
        hold(stores.engine, lease(0), [TENANT, own(0)], claim(40))
    set_row(stores, 0, epoch=2)  # killed, and taken over by another worker
    hold(stores.engine, lease(0, epoch=2), [TENANT, own(0)], claim(45, seq=2))
    assert [tokens for _, tokens in held(stores.engine)] == [45, 45]
    with pytest.raises(LeaseLostError):
        reserve(stores.engine, lease(0), [TENANT], claim(1), at(2))


@pytest.mark.parametrize("change", [{"epoch": 2}, {"status": Status.COMPLETE}, {"status": Status.QUEUED}])
def test_what_an_attempt_that_is_over_has_reserved_refuses_nobody(stores: Stores, change: Any) -> None:
    running(stores, 0, 1)
    hold(stores.engine, lease(0), [TENANT, own(0, 100)], claim(90))
    set_row(stores, 0, **change)
    hold(stores.engine, lease(1), [TENANT], claim(90))
    assert held(stores.engine) == sorted([(TENANT.name, 90), (own(0).name, 90)])


def test_the_newest_limit_counts_and_an_approval_raises_it_once(stores: Stores) -> None:
    running(stores, 0)
    assert refusal(stores.engine, lease(0), [own(0)], claim(60)).limit == 50
    approved = claim(60, raises={"run#1": (own(0).name, 15)})
    for _ in range(2):
        hold(stores.engine, lease(0), [own(0)], approved)
    assert refusal(stores.engine, lease(0), [own(0)], claim(70)).limit == 65
    assert refusal(stores.engine, lease(0), [own(0, 20)], claim(70)).limit == 35
    dollars = account_of_task(task_id(0), Limit("dollars", 500), own=True)
    assert refusal(stores.engine, lease(0), [dollars], claim(70)).limit == 500


def test_a_child_does_not_change_the_limit_of_its_parent(stores: Stores) -> None:
    running(stores, 0, 1)
    hold(stores.engine, lease(0), [own(0, 80)], claim(10))
    of_parent = account_of_task(task_id(0), Limit("tokens", 5), own=False)
    assert refusal(stores.engine, lease(1), [of_parent], claim(71)).limit == 80
    gone = account_of_task(task_id(9), Limit("tokens", 5), own=False)
    assert hold(stores.engine, lease(1), [of_parent, gone], claim(70)).accounts == (of_parent.name,)


def test_accounts_of_windows_that_are_long_over_are_removed(stores: Stores) -> None:
    running(stores, 0)
    hold(stores.engine, lease(0), [TENANT], claim(10))
    later = TENANT._replace(name="tenant=a/tokens/day/y")
    reserve(stores.engine, lease(0), [later], claim(10), at(86_401) + timedelta(days=KEPT_DAYS))
    with stores.engine.connect() as connection:
        assert [row.name for row in connection.execute(select(BUDGET))] == [later.name]


def test_tasks_that_reserve_at_the_same_time_do_not_exceed_the_limit(stores: Stores) -> None:
    numbers = range(8)
    running(stores, *numbers)
    outcomes: list[Hold | Refusal] = []

    def run(number: int) -> None:
        accounts = [TENANT, own(number)]
        outcome = reserve(stores.engine, lease(number), accounts, claim(30), at(2))
        outcomes.append(outcome)
        if isinstance(outcome, Hold):
            respond(stores, lease(number), outcome, 30)

    threads = [threading.Thread(target=run, args=(number,)) for number in numbers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(outcomes) == 8
    assert sum(isinstance(outcome, Hold) for outcome in outcomes) == 3
    assert spent(stores.engine)["tenant=a"] == (90, 900)


def test_a_worker_gets_the_budget_with_its_task(stores: Stores) -> None:
    stores.record.insert([new_task(0, budget='{"limit":["tokens",5]}'), new_task(1)], at(0))
    started = stores.claim([lease(0), lease(1)], at(1)).started
    assert [admitted.budget for admitted in started] == ['{"limit":["tokens",5]}', None]
    set_row(stores, 0, status=Status.QUEUED, crashes=1)
    assert stores.claim([lease(0, epoch=2)], at(2)).started[0].budget == '{"limit":["tokens",5]}'
