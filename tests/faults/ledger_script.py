"""Script of every agent of the ledger.

It is not in the worker module, which would register its tasks wherever it is imported.
"""

from __future__ import annotations

BOOKING = "ledger_booking"
"""The table of the transactional tool: agent, topic."""

TOPICS = {
    "charge": ("charge1", "charge2", "charge3"),
    "book": ("book1", "book2", "book3"),
    "post": ("post1", "post2", "post3"),
}
"""The calls of each tool; every agent makes them all."""
