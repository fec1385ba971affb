"""What a process is seen to do while it works: its memory, its requests, where its time goes."""

from __future__ import annotations

import cProfile
import os
import pstats
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import httpx


class Memory:
    """Looks at the memory of this process after each quarter of the partitions."""

    def __init__(self, partitions: int) -> None:
        self._at = [partitions * quarter // 4 for quarter in range(1, 5)]
        self._done = 0
        self._turn = threading.Lock()
        self.quarters: tuple[int, ...] = ()

    def planned(self, dataset: str, partitions: int) -> None:
        """Nothing is done yet."""

    def advanced(self, _dataset: str, partitions: int, _rows: int) -> None:
        """Look, if a quarter is full."""
        with self._turn:
            self._done += partitions
            if self._done in self._at:
                resident = int(Path("/proc/self/statm").read_text().split()[1])
                megabytes = resident * os.sysconf("SC_PAGE_SIZE") >> 20
                self.quarters = (*self.quarters, megabytes)


@contextmanager
def counted_requests() -> Iterator[Counter[str]]:
    """Count the requests of this process."""
    counts: Counter[str] = Counter()

    def count(request: httpx.Request) -> None:
        words = [word for word in request.url.path.split("/") if not any(map(str.isdigit, word))]
        counts[f"{request.method} {'/'.join(words)}"] += 1

    send, send_async = httpx.Client.send, httpx.AsyncClient.send

    def sent(self: httpx.Client, request: httpx.Request, **options: Any) -> httpx.Response:
        count(request)
        return send(self, request, **options)

    async def sent_async(
        self: httpx.AsyncClient, request: httpx.Request, **options: Any
    ) -> httpx.Response:
        count(request)
        return await send_async(self, request, **options)

    with (
        mock.patch.object(httpx.Client, "send", sent),
        mock.patch.object(httpx.AsyncClient, "send", sent_async),
    ):
        yield counts


@contextmanager
def profiled(path: Path | None) -> Iterator[None]:
    """Profile every thread that begins meanwhile, and print what takes long."""
    if path is None:
        yield
        return
    profiles: list[cProfile.Profile] = []
    run: Callable[[threading.Thread], None] = threading.Thread.run

    def profiled_run(self: threading.Thread) -> None:
        if self.name != "partition":
            return run(self)
        profile = cProfile.Profile()
        profiles.append(profile)
        return profile.runcall(run, self)

    with mock.patch.object(threading.Thread, "run", profiled_run):
        yield
    stats = pstats.Stats(*profiles)
    stats.dump_stats(path)
    stats.sort_stats("cumulative").print_stats(60)
