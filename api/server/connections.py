"""Limits on connections, below the application: heads that do not come, answers that are not read, and their number.

uvicorn by itself waits for ever for a head that was begun, or for a first one.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import resource

from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

HEAD_SECONDS = 10.0
"""How long a connection may take to send the whole head of its next request."""
UNREAD_SECONDS = 30.0
"""How long none of an answer may be read by the other side."""
CLOSE_SECONDS = 5.0
"""How long the other side may take to close a connection that is being closed."""
MOST_CONNECTIONS = 2000
"""Of one process. The one that has waited longest for a head goes when there are more."""
_OTHER_FILES = 256
"""Files and connections that the process needs beside them."""


def open_files() -> int:
    """Allow this process as many open files as the system lets it; returns how many connections there may be."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST_CONNECTIONS + _OTHER_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        wanted = wanted if hard == resource.RLIM_INFINITY else min(hard, wanted)
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MOST_CONNECTIONS if soft == resource.RLIM_INFINITY else max(16, min(MOST_CONNECTIONS, soft - _OTHER_FILES))


_turns = itertools.count(1)


class BoundedProtocol(H11Protocol):
    """A connection that waits for nothing for ever: `uvicorn.Config(http=BoundedProtocol)`."""

    most_connections = MOST_CONNECTIONS
    _head_timer: asyncio.TimerHandle | None = None
    _unread_timer: asyncio.TimerHandle | None = None
    _close_timer: asyncio.TimerHandle | None = None
    _unread = 0
    waits_since = 0
    """Its turn among those that wait for a head, the longest first; 0 while a request is being answered."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """See asyncio.Protocol."""
        super().connection_made(transport)
        self._wait_for_head()
        if len(self.connections) > self.most_connections:
            waiting = [each for each in self.connections if isinstance(each, BoundedProtocol) and each.waits_since]
            min(waiting, key=lambda each: each.waits_since).transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.Protocol."""
        for timer in (self._head_timer, self._unread_timer, self._close_timer):
            if timer:
                timer.cancel()
        super().connection_lost(exc)

    def handle_events(self) -> None:
        """See H11Protocol: what has come in is looked at."""
        super().handle_events()
        cycle: RequestResponseCycle | None = self.cycle  # there is none before the first request
        if self._head_timer and cycle is not None and not cycle.response_complete:
            self._head_timer.cancel()
            self._head_timer, self.waits_since = None, 0

    def on_response_complete(self) -> None:
        """See H11Protocol."""
        super().on_response_complete()
        if self.cycle.response_complete and not self.transport.is_closing():  # no other request came with this one
            self._wait_for_head()

    def pause_writing(self) -> None:
        """See asyncio.Protocol: more is to be sent than the other side has read."""
        super().pause_writing()
        self._unread = self.transport.get_write_buffer_size()
        self._unread_timer = self.loop.call_later(UNREAD_SECONDS, self._check_unread)

    def resume_writing(self) -> None:
        """See asyncio.Protocol."""
        super().resume_writing()
        if self._unread_timer:
            self._unread_timer.cancel()

    def _wait_for_head(self) -> None:
        if self._head_timer:
            self._head_timer.cancel()
        self.waits_since = next(_turns)
        self._head_timer = self.loop.call_later(HEAD_SECONDS, self._close)

    def _close(self) -> None:
        self.transport.close()
        self._close_timer = self.loop.call_later(CLOSE_SECONDS, self.transport.abort)

    def _check_unread(self) -> None:
        before, self._unread = self._unread, self.transport.get_write_buffer_size()
        if self._unread >= before:
            self.transport.abort()
        else:
            self._unread_timer = self.loop.call_later(UNREAD_SECONDS, self._check_unread)
