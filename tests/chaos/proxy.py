"""A TCP proxy between one host and one server, whose connections can be cut or fall silent."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Coroutine
from typing import Any, Self

from tests.servers import HOST

RESET = struct.pack("ii", 1, 0)
"""Value of SO_LINGER with which `close` resets a connection, as the death of a peer's machine does."""

CHUNK = 65_536


class Proxies:
    """Proxies of a run, which share one event loop in a thread."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="chaos-proxies", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.call(_end_all())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def open(self, port: int) -> Proxy:
        """Return a proxy in front of a port of this machine."""
        proxy = Proxy(port, self)
        self.call(proxy.listen())
        return proxy

    def call(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Run a coroutine in the thread of the proxies, and wait for its end."""
        asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(10)


class Proxy:
    """Proxy in front of a server. `port` is its own."""

    def __init__(self, target: int, proxies: Proxies) -> None:
        self.port = 0
        self._target = target
        self._proxies = proxies
        self._refuses = False
        self._flows = asyncio.Event()
        self._writers: set[asyncio.StreamWriter] = set()

    @property
    def connections(self) -> int:
        """Number of open connections of clients."""
        return len(self._writers) // 2

    async def listen(self) -> None:
        """Take connections from now on."""
        self._flows.set()
        server = await asyncio.start_server(self._serve, HOST, 0)
        self.port = server.sockets[0].getsockname()[1]

    def cut(self) -> None:
        """Reset every connection, and refuse new ones."""
        self._proxies.call(self._cut())

    def stall(self) -> None:
        """Keep connections open and pass nothing on, as a network without answers does."""
        self._proxies.call(self._set_flow(False))

    def heal(self) -> None:
        """Pass everything on again."""
        self._proxies.call(self._set_flow(True))

    async def _cut(self) -> None:
        self._refuses = True
        for writer in list(self._writers):
            _reset(writer)

    async def _set_flow(self, flows: bool) -> None:
        if flows:
            self._refuses = False
            self._flows.set()
        else:
            self._flows.clear()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._refuses:
            _reset(writer)
            return
        try:
            server_reader, server_writer = await asyncio.open_connection(HOST, self._target)
        except OSError:
            _reset(writer)
            return
        both = {writer, server_writer}
        self._writers |= both
        try:
            await asyncio.gather(self._pass_on(reader, server_writer), self._pass_on(server_reader, writer))
        finally:
            self._writers -= both

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, RuntimeError):
            while data := await reader.read(CHUNK):
                await self._flows.wait()
                writer.write(data)
                await writer.drain()
        with contextlib.suppress(OSError, RuntimeError):
            writer.close()


async def _end_all() -> None:
    """End every task of the loop but this one, and wait until they have ended."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


def _reset(writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError, AttributeError):
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    writer.transport.abort()
