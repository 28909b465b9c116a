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
    """Let a query take either kind of session: an AsyncSession runs the same function beside its event loop."""

    @functools.wraps(query)
    def call(db: Any, *args: P.args, **kwargs: P.kwargs) -> Any:
        run_sync = getattr(db, "run_sync", None)
        if run_sync is not None:
            return run_sync(query, *args, **kwargs)
        return query(db, *args, **kwargs)

    return call
