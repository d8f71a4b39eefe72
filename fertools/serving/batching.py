"""Requests that are there at the same time go through the network together."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import numpy as np

from fertools.errors import FertoolsError


class FullError(FertoolsError):
    """There is no room for another image now."""


class Batcher:
    """Runs the network on what is waiting, by the rule of `Predictor.predict_stream`, in a thread of its own.

    While the network runs, others come to wait, so that the batches grow with the load.

    Arguments:
        run: uint8 (n, 48, 48) to float32 (n, 7).
        batch_size: at most so many images a run.
        max_delay: seconds that an image waits for others to be run with; 0 for not at all.
        capacity: at most so many images between `admit` and `release`.
        observe: is told the images of each run.
    """

    def __init__(
        self,
        run: Callable[[Any], Any],
        *,
        batch_size: int,
        max_delay: float,
        capacity: int,
        observe: Callable[[int], None] = lambda images: None,
    ) -> None:
        self.capacity = capacity
        #: Images that were admitted and not released yet.
        self.held = 0
        self._run, self._batch_size, self._max_delay, self._observe = run, batch_size, max_delay, observe
        self._waiting: deque[tuple[Any, asyncio.Future[Any], float]] = deque()
        self._images = 0
        self._arrived = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="fertools-network")
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to work, in the running event loop."""
        self._task = asyncio.get_running_loop().create_task(self._work())

    async def close(self) -> None:
        """Stop. What still waits is left without an answer, so close the doors before."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
        self._thread.shutdown()

    def admit(self, images: int = 1) -> None:
        """Take room for images, before their pixels are in memory. Raises FullError if there is none."""
        if self.held + images > self.capacity:
            raise FullError(f"{self.held} images are being worked on already: try again in a second")
        self.held += images

    def release(self, images: int = 1) -> None:
        """Give room back."""
        self.held -= images

    def submit(self, faces: Any) -> asyncio.Future[Any]:
        """Probabilities float32 (n, 7) of uint8 (n, 48, 48), when their turn has come."""
        loop = asyncio.get_running_loop()
        answer = loop.create_future()
        self._waiting.append((faces, answer, loop.time()))
        self._images += len(faces)
        self._arrived.set()
        return answer

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            if not self._waiting:
                self._arrived.clear()
                await self._arrived.wait()
            until = self._waiting[0][2] + self._max_delay
            while self._images < self._batch_size and (left := until - loop.time()) > 0:
                self._arrived.clear()
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._arrived.wait(), left)
            batch = [self._waiting.popleft()]
            size = len(batch[0][0])
            while self._waiting and size + len(self._waiting[0][0]) <= self._batch_size:
                batch.append(self._waiting.popleft())
                size += len(batch[-1][0])
            self._images -= size
            self._observe(size)
            faces = [each[0] for each in batch]
            try:
                rows = await loop.run_in_executor(self._thread, self._rows, faces)
            except FertoolsError as error:
                for _, answer, _ in batch:
                    if not answer.done():
                        answer.set_exception(error)
                continue
            start = 0
            for each, answer, _ in batch:
                if not answer.done():  # the client may have gone
                    answer.set_result(rows[start : start + len(each)])
                start += len(each)

    def _rows(self, faces: list[Any]) -> Any:
        together = faces[0] if len(faces) == 1 else np.concatenate(faces)
        if len(together) <= self._batch_size:
            return self._run(together)
        starts = range(0, len(together), self._batch_size)  # one request with many images
        return np.concatenate([self._run(together[start : start + self._batch_size]) for start in starts])
