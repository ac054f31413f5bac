"""A connection to Redis that can go bad: a TCP proxy on loopback, in a thread of its own."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from dataclasses import dataclass, field


@dataclass(eq=False)
class _Link:
    """One connection: both ways, and whether what comes is swallowed."""

    tasks: list[asyncio.Task[None]] = field(default_factory=list)
    is_deaf: bool = False


class Proxy:
    """Passes bytes on to a port of this machine until it is told to misbehave."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._links: set[_Link] = set()
        self._thawed = asyncio.Event()
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._serve(),), daemon=True)
        self._thread.start()
        self._ready.wait()

    def half_open(self) -> None:
        """The connections there are stay open, and nothing comes through any more; new ones work."""
        for link in list(self._links):
            link.is_deaf = True

    def freeze(self) -> None:
        """Nothing comes through, and new connections get no answer."""
        self._loop.call_soon_threadsafe(self._thawed.clear)

    def thaw(self) -> None:
        """All is well, but for what is half open."""
        self._loop.call_soon_threadsafe(self._thawed.set)

    def stop(self) -> None:
        """End it, with all connections."""
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join()
        self._loop.close()

    async def _serve(self) -> None:
        self._over = asyncio.Event()
        self._thawed.set()
        server = await asyncio.start_server(self._connect, "127.0.0.1", 0)
        self.port: int = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._over.wait()
        server.close()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        await asyncio.sleep(0.1)

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link = _Link()
        with contextlib.suppress(OSError, asyncio.CancelledError):
            await self._thawed.wait()
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target)
            self._links.add(link)
            await asyncio.gather(self._pump(reader, far_writer, link), self._pump(far_reader, writer, link))
        self._links.discard(link)
        writer.close()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, link: _Link) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                await self._thawed.wait()
                if not link.is_deaf:
                    writer.write(data)
                    await writer.drain()
        writer.close()
