"""Names that the driver and its workers share; the workers' module would register its tasks wherever it is imported."""

from __future__ import annotations

EFFECTS = "chaos_effects"
"""Table of the transactional steps: name of the task, number of the step."""

TICK = "tick"
TICK_SECONDS = 2
"""Name and interval of the schedule."""
