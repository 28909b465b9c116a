"""A Redis that refuses to serve: a worker ends with one sentence at its start, and outlives the refusal later."""

from __future__ import annotations

from tests.deployment import Deploy, on_targets, run_in_process


@on_targets("valkey+sqlite")
def test_a_worker_ends_with_exit_code_2_and_one_sentence(deploy: Deploy) -> None:
    deployment = deploy()
    with deployment.broker.client() as server:
        server.execute_command(
            "ACL", "SETUSER", "weak", "reset", "on", ">pw", "~agentexec:*", "+@all", "-evalsha"
        )
    url = deployment.broker.url.replace("//", "//weak:pw@")
    supervisor = deployment.start(ready=False, AGENTEXEC_REDIS_URL=url)
    assert supervisor.wait(30) == 2
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
