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
    "tests/chaos/test_chaos.py": 60,
    "tests/integration/docs/test_guides.py": 60,
    "tests/faults/test_crash_matrix.py": 55,
    "tests/faults/test_workflows.py": 40,
    "tests/integration/cli/test_approvals.py": 35,
    "tests/faults/test_poison.py": 35,
    "tests/faults/test_budgets_killed.py": 35,
    "tests/faults/test_ledger.py": 32,
    "tests/integration/examples/test_workflows.py": 32,
    "tests/faults/test_database_away.py": 30,
    "tests/faults/test_fork_killed.py": 25,
    "tests/integration/state/test_forgeries.py": 25,
    "tests/faults/test_rolling_restart.py": 20,
    "tests/integration/cli/test_activities.py": 15,
    "tests/integration/runners/openai/test_stopping_agents.py": 15,
    "tests/faults/test_sandbox_killed.py": 12,
    "tests/integration/runners/openai/test_sandbox.py": 12,
    "tests/integration/worker/test_unknown_tasks.py": 12,
    "tests/integration/client/test_debounce.py": 10,
    "tests/integration/worker/test_follow_ups.py": 10,
    "tests/faults/test_supervisor_killed.py": 10,
    "tests/integration/worker/test_lifecycle.py": 10,
    "tests/integration/cli/test_operator_commands.py": 9,
    "tests/integration/runners/openai/test_limits.py": 8,
    "tests/faults/test_redis_lost.py": 7,
    "tests/integration/test_secrets.py": 7,
    "tests/faults/test_paused.py": 6,
    "tests/faults/test_worker_killed.py": 6,
    "tests/e2e/test_docs.py": 5,
    "tests/e2e/test_monitor.py": 5,
    "tests/e2e/test_reference.py": 5,
    "tests/faults/test_live_events.py": 5,
    "tests/faults/test_producer_killed.py": 5,
    "tests/faults/test_shutdown.py": 5,
    "tests/integration/cli/test_app.py": 5,
    "tests/integration/cli/test_bad_input.py": 4,
    "tests/integration/schema/test_migrate.py": 4,
    "tests/integration/test_imports.py": 4,
    "tests/integration/worker/test_probe.py": 4,
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
