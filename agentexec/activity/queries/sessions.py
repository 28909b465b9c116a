"""Queries for either kind of session: a Session, or an AsyncSession (the call is then awaited)."""

from __future__ import annotations

import functools
from collections.abc import Callable, Coroutine, Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Protocol, TypeVar, overload

from sqlalchemy import func, select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from agentexec.db.round_trips import INDEX_ORDER_SETTINGS

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

P = ParamSpec("P")
R = TypeVar("R", covariant=True)

# Columns are evaluated in their order: each value is read before it is changed.
_READ_AND_SET = select(
    *(func.current_setting(name) for name in INDEX_ORDER_SETTINGS),
    *(func.set_config(name, "off", True) for name in INDEX_ORDER_SETTINGS),
)


class _Query(Protocol[P, R]):
    @overload
    def __call__(self, db: Session, *args: P.args, **kwargs: P.kwargs) -> R: ...
    @overload
    def __call__(self, db: AsyncSession, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R]: ...


def sync_or_async(query: Callable[Concatenate[Session, P], R]) -> _Query[P, R]:
    """Let a query take either kind of session: an AsyncSession runs the same function beside its event loop.

    The session may also be given as `session=`, its name in earlier releases.
    """

    @functools.wraps(query)
    def call(*args: Any, **kwargs: Any) -> Any:
        if not args and "db" not in kwargs and "session" in kwargs:
            kwargs["db"] = kwargs.pop("session")
        db, args = (args[0], args[1:]) if args else (kwargs.pop("db", None), ())
        if db is None:
            raise TypeError("A query of activities needs a session: a Session or an AsyncSession.")
        run_sync = getattr(db, "run_sync", None)
        if run_sync is not None:
            return run_sync(query, *args, **kwargs)
        return query(db, *args, **kwargs)

    return call


@contextmanager
def in_index_order(db: Session) -> Generator[None]:
    """Have PostgreSQL read the rows of the block's queries in the order of an index, whatever it knows of the tables.

    The settings of the caller's transaction are as before after the block.
    """
    if db.get_bind().dialect.name != "postgresql":
        yield
        return
    before = db.execute(_READ_AND_SET).one()[: len(INDEX_ORDER_SETTINGS)]
    try:
        yield
    except DBAPIError:
        raise  # the transaction can only be rolled back, which restores its settings
    except BaseException:
        _restore(db, before)
        raise
    _restore(db, before)


def _restore(db: Session, values: tuple[str, ...]) -> None:
    names_and_values = zip(INDEX_ORDER_SETTINGS, values, strict=True)
    db.execute(select(*(func.set_config(name, value, True) for name, value in names_and_values)))
