"""Proxies of the SDK's objects, which change what a durable run must change."""

from __future__ import annotations

from typing import Any


class SdkProxy:
    """Proxy of an object of the SDK, also for `isinstance`, because the SDK distinguishes classes of objects.

    A subclass overrides methods; every other attribute is the one of `_inner`.
    """

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    @property
    def __class__(self) -> Any:
        return type(self._inner)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)
