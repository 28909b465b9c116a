"""The order of the tests: those that take longest start first, so that none of them is left for the end.

`SECONDS` says how long the longest test of a file takes. A file that is not named has quick tests only,
or tests that share a worker: split, each part would start its own. To measure again:
`./dev test --durations=100`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

T = TypeVar("T")

SECONDS: dict[str, float] = {
    "tests/faults/test_crash_matrix.py": 155,
    "tests/integration/docs/test_guides.py": 122,
    "tests/faults/test_conversations_killed.py": 88,
    "tests/chaos/test_chaos.py": 83,
    "tests/faults/test_database_away.py": 70,
    "tests/integration/state/test_forgeries.py": 61,
    "tests/integration/worker/test_pinned_workers.py": 55,
    "tests/faults/test_budgets_killed.py": 43,
    "tests/faults/test_ledger.py": 37,
    "tests/integration/worker/test_host_telemetry.py": 37,
    "tests/integration/cli/test_operator_commands.py": 34,
    "tests/integration/examples/test_replay_example.py": 30,
    "tests/faults/test_supervisor_killed.py": 29,
    "tests/faults/test_front_ends.py": 28,
    "tests/faults/test_rolling_restart.py": 25,
    "tests/integration/worker/test_pooled_workers.py": 25,
    "tests/faults/test_sandbox_killed.py": 24,
    "tests/faults/test_redis_failover.py": 40,
    "tests/faults/test_redis_lost.py": 24,
    "tests/integration/cli/test_approvals.py": 23,
    "tests/faults/test_poison.py": 23,
    "tests/faults/test_paused.py": 23,
    "tests/faults/test_workflows.py": 21,
    "tests/integration/runners/openai/test_stopping_agents.py": 21,
    "tests/integration/runners/openai/test_limits.py": 21,
    "tests/integration/runners/openai/test_sandbox.py": 20,
    "tests/integration/examples/test_fastapi_example.py": 20,
    "tests/integration/state/test_forged_chaos.py": 19,
    "tests/integration/journal/test_canonical.py": 18,
    "tests/integration/examples/test_workflows.py": 17,
    "tests/faults/test_redis_unusable.py": 17,
    "tests/integration/worker/test_unknown_tasks.py": 15,
    "tests/integration/cli/test_activities.py": 13,
    "tests/integration/client/test_debounce.py": 13,
    "tests/integration/worker/test_lifecycle.py": 13,
    "tests/integration/worker/test_probe.py": 13,
    "tests/faults/test_live_events.py": 12,
    "tests/integration/cli/test_app.py": 12,
    "tests/integration/worker/test_follow_ups.py": 11,
    "tests/faults/test_producer_killed.py": 11,
    "tests/faults/test_shutdown.py": 11,
    "tests/integration/test_imports.py": 11,
    "tests/faults/test_worker_killed.py": 10,
    "tests/integration/schema/test_migrate.py": 10,
    "tests/integration/cli/test_bad_input.py": 8,
    "tests/faults/test_restart_killed.py": 12,
    "tests/faults/test_fork_killed.py": 7,
    "tests/integration/test_secrets.py": 7,
    "tests/e2e/test_docs.py": 5,
    "tests/e2e/test_monitor.py": 5,
    "tests/e2e/test_reference.py": 5,
}


def longest_first(tests: Sequence[T], workers: int, file_of: Callable[[T], str]) -> list[T]:
    """Return the tests in the order in which xdist's `worksteal` starts the longest ones first.

    It cuts the list into one run of tests for each worker, so each run begins with its share of the long tests. The
    others keep their order: the tests of a file share what they set up.
    """
    long = sorted(
        (test for test in tests if file_of(test) in SECONDS), key=lambda test: -SECONDS[file_of(test)]
    )
    quick = [test for test in tests if file_of(test) not in SECONDS]
    sizes = [
        len(tests) * (worker + 1) // workers - len(tests) * worker // workers for worker in range(workers)
    ]
    runs: list[list[T]] = [[] for _ in sizes]
    for test in long:
        _, worker = min((len(run), worker) for worker, run in enumerate(runs) if len(run) < sizes[worker])
        runs[worker].append(test)
    for run, size in zip(runs, sizes, strict=True):
        missing = size - len(run)
        run += quick[:missing]
        del quick[:missing]
    return [test for run in runs for test in run]
