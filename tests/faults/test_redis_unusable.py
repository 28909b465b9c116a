"""A Redis that refuses to serve: a worker ends with one sentence at its start, and outlives the refusal later."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import redis

from tests.deployment import Deploy, Deployment, on_targets, run_in_process
from tests.servers import HOST, free_port
from tests.waiting import patient


@pytest.mark.thorough
@on_targets("valkey+sqlite")
def test_a_worker_ends_with_exit_code_2_and_one_sentence(deploy: Deploy) -> None:
    deployment = deploy()
    with deployment.broker.client() as server:
        server.execute_command(
            "ACL", "SETUSER", "weak", "reset", "on", ">pw", "~agentexec:*", "+@all", "-evalsha"
        )
    url = deployment.broker.url.replace("//", "//weak:pw@")
    supervisor = deployment.start(ready=False, AGENTEXEC_REDIS_URL=url)
    assert supervisor.wait(patient(30)) == 2
    sentence = "lacks permissions: add +evalsha ~{agentexec:* to its ACL"
    assert deployment.log.count(sentence) == 1
    assert "Traceback" not in deployment.log


@on_targets("valkey+sqlite")
def test_doctor_says_the_same(deploy: Deploy) -> None:
    deployment = deploy()
    with deployment.broker.client() as server:
        server.config_set("maxmemory", "100mb")
        server.config_set("maxmemory-policy", "allkeys-lru")
        try:
            code, out, _ = run_in_process(deployment, "doctor")
        finally:
            server.config_set("maxmemory", 0)
            server.config_set("maxmemory-policy", "noeviction")
    assert code == 1
    assert "would evict queued tasks when it is full (maxmemory-policy allkeys-lru); set" in out


REFUSALS: dict[str, tuple[Callable[[redis.Redis], object], Callable[[redis.Redis], object]]] = {
    "without-a-command": (
        lambda server: server.execute_command("ACL", "SETUSER", "app", "-evalsha", "-blpop"),
        lambda server: server.execute_command("ACL", "SETUSER", "app", "+evalsha", "+blpop"),
    ),
    "without-keys": (
        lambda server: server.execute_command("ACL", "SETUSER", "app", "resetkeys"),
        lambda server: server.execute_command("ACL", "SETUSER", "app", "~*"),
    ),
    "with-another-password": (
        lambda server: (
            server.execute_command("ACL", "SETUSER", "app", "resetpass", ">new"),
            [
                server.client_kill_filter(_id=client["id"])
                for client in server.client_list()
                if client["user"] == "app"
            ],
        ),
        lambda server: server.execute_command("ACL", "SETUSER", "app", ">pw"),
    ),
    "as-a-replica": (
        lambda server: server.execute_command("REPLICAOF", HOST, free_port()),
        lambda server: server.execute_command("REPLICAOF", "NO", "ONE"),
    ),
    "full": (
        lambda server: server.config_set("maxmemory", 1),
        lambda server: server.config_set("maxmemory", 0),
    ),
}
"""Changes after which a server that was fine refuses, and those that undo them."""


def told_since(deployment: Deployment, place: int, text: str) -> bool:
    return text in deployment.log[place:]


@pytest.mark.thorough
@on_targets("valkey+sqlite", "valkey+postgres")
def test_a_refusal_at_work_is_told_once_by_each_part_and_work_resumes(deploy: Deploy) -> None:
    deployment = deploy(worker_concurrency=2)
    with deployment.broker.client() as server:
        server.execute_command("ACL", "SETUSER", "app", "reset", "on", ">pw", "~*", "+@all")
        deployment.start(AGENTEXEC_REDIS_URL=deployment.broker.url.replace("//", "//app:pw@"))
        for name, (refuse, allow) in REFUSALS.items():
            running = deployment.enqueue("work", f"running-{name}", seconds=1)
            deployment.wait_for_start(running_key := f"running-{name}")
            before = len(deployment.log)
            refuse(server)
            try:
                waiting = [deployment.enqueue("work", f"waiting-{name}-{number}") for number in range(3)]
                # Workers empty a full server, and only what adds to it fails.
                text = "is full" if name == "full" else "No tasks are claimed until it is back"
                outage = partial(told_since, deployment, before, text)
                deployment.wait_for(outage)
                deployment.wait_for_status(running, "complete")
            finally:
                allow(server)
            deployment.wait_for_ends([running, *waiting], timeout=30)
            assert deployment.endings([running, *waiting]) == [["complete"]] * 4, name
            assert deployment.ledger("start")[running_key] == 1, name
            told = deployment.log[before:]
            assert "Traceback" not in told, name
            assert told.count("until it is back") + told.count("waits for it") < 12, told
        deployment.wait_for(lambda: "Claiming tasks again." in deployment.log)
