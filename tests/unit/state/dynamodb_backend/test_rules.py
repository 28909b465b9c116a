"""State of a queue made from commands: the same everywhere, also from a snapshot."""

from __future__ import annotations

import json
import random
import threading
from hashlib import sha256
from typing import Any
from uuid import UUID

from agentexec.state.dynamodb_backend.rules import RULES, Command, SharedQueue, packed_entry
from agentexec.task import Entry, Priority, groups_of


def random_command(chance: random.Random, now: float, known: list[str]) -> Command:
    some = chance.sample(known, min(len(known), 3))
    epoch = chance.randint(0, 3)
    match chance.choice(["push", "push", "push", "claim", "claim", "renew", "finish", "release", "other"]):
        case "push":
            entry = Entry(
                UUID(int=chance.getrandbits(128)),
                chance.choice([*Priority]),
                chance.choice([0.0, now + 3]),
                epoch,
                chance.choice([None, "a", "b"]),
                chance.choice([0.5, 1.0, 2.0]),
                groups_of("work", chance.choice([None, "x", "y"]), chance.choice([None, "z"])),
                since=chance.choice([0.0, 0.0, now - 5]),
            )
            known.append(entry.agent_id.hex)
            return ["push", now, [packed_entry(entry)]]
        case "claim":
            return ["claim", now, f"w{epoch}", chance.randint(1, 4), epoch, 5.0, {"work": 2}]
        case "renew":
            return ["renew", now, f"w{epoch}", [[agent_id, epoch] for agent_id in some], 5.0]
        case "finish":
            return ["finish", now, [[agent_id, epoch] for agent_id in some]]
        case "release" if some:
            return ["release", now, some[0], epoch, chance.choice([0.0, 2.0])]
    return [chance.choice(["remove", "advance", "go_on"]), now, some[:1]] if epoch else ["mark", now]


def queue_from(saved: dict[str, Any] | None = None) -> SharedQueue:
    queue = SharedQueue(threading.RLock())
    if saved is not None:
        queue.load(json.loads(json.dumps(saved)))
    return queue


def apply(queue: SharedQueue, command: Command) -> Any:
    with queue.lock:
        return queue.apply(json.loads(json.dumps(command)))


def run(seed: int, *, saves: bool) -> list[str]:
    """Return the answers to random commands, of a queue that is saved and loaded now and then or never."""
    chance, queue, known, answers = random.Random(seed), queue_from(), [], []
    for number in range(400):
        answers.append(repr(apply(queue, random_command(chance, 1000.0 + number, known))))
        if saves and number % 7 == 0:
            queue = queue_from(queue.saved())
    return [*answers, repr(queue.count(1400.0)), repr(queue.expired(1400.0, 100))]


def test_a_queue_from_a_snapshot_goes_on_as_the_queue_itself() -> None:
    for seed in range(20):
        assert run(seed, saves=True) == run(seed, saves=False)


def test_the_effects_of_commands_are_those_of_this_version_of_the_rules() -> None:
    """Processes of two releases share a log: if this fails by intent, raise RULES and write the new digest here."""
    digest = sha256("\n".join(line for seed in range(5) for line in run(seed, saves=False)).encode())
    assert (RULES, digest.hexdigest()[:16]) == (1, "5cf755bb94d50d67")


def test_a_lost_task_gets_its_place_back() -> None:
    queue = queue_from()
    new, old = UUID(int=1), UUID(int=2)
    apply(queue, ["push", 1000.0, [packed_entry(Entry(new))]])
    apply(queue, ["push", 1001.0, [packed_entry(Entry(old, since=990.0))]])
    [lease] = apply(queue, ["claim", 1002.0, "w", 1, 0, 5.0, {}])
    assert lease.agent_id == old


def test_an_incomplete_index_gives_no_lock_away() -> None:
    queue, groups = queue_from(), groups_of("work", "x", None)
    late, early = UUID(int=1), UUID(int=2)
    apply(queue, ["push", 1000.0, [packed_entry(Entry(late, groups=groups))]])
    assert apply(queue, ["claim", 1001.0, "w", 5, 0, 5.0, {}]) == []
    apply(queue, ["push", 1002.0, [packed_entry(Entry(early, groups=groups, since=990.0))]])
    assert apply(queue, ["claim", 1003.0, "w", 5, 0, 5.0, {}]) == []
    apply(queue, ["mark", 1004.0])
    [lease] = apply(queue, ["claim", 1005.0, "w", 5, 0, 5.0, {}])
    assert lease.agent_id == early
