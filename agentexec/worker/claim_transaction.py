"""Company of a claim in its transaction, where the database has a single writer: endings that wait, and starts.

A worker with more tasks than slots would else commit twice for each batch: for its endings, and for the claim in their place.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sqlalchemy import Connection

from agentexec.activity.changes.writer import Writer
from agentexec.task import Lease

StartClaimed = Callable[[str, Connection, Sequence[Lease]], object]
"""Function that starts tasks that were claimed from a queue, within the transaction that claims them."""


class ClaimTransaction:
    """Company of the claims of one process, in their transactions.

    From `open` on, endings wait for the next claim. Threads: the thread that claims calls everything.

    Args:
        start: Starts claimed tasks, within the transaction.
    """

    def __init__(self, writer: Writer, start: StartClaimed) -> None:
        self._writer = writer
        self.start = start

    def open(self, wake: Callable[[], object]) -> None:
        """Have endings wait for a claim; `wake` is called, from any thread, when the first one does."""
        self._writer.await_claim(wake)

    @property
    def waits(self) -> bool:
        """True if endings wait for a claim."""
        return self._writer.lends

    def begin(self, connection: Connection) -> None:
        """Write the endings that wait; to be called when a claim's transaction has the write lock."""
        self._writer.write_within(connection)

    def note_commit(self) -> None:
        """Note that the transaction is committed."""
        self._writer.settle_lent()

    def close(self) -> None:
        """Leave endings to the writer again, with those of a transaction that was not committed."""
        self._writer.stop_lending()
