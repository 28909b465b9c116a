"""Queries for either kind of session: a Session, or an AsyncSession (the call is then awaited)."""

from __future__ import annotations

import functools
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Protocol, TypeVar, overload

from sqlalchemy.orm import Session

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

P = ParamSpec("P")
R = TypeVar("R", covariant=True)


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
