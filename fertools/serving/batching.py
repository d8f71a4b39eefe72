"""Dynamic batching: requests that wait at the same time go through the network together."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import numpy as np

from fertools.errors import FertoolsError

_LOG = logging.getLogger(__name__)


class FullError(FertoolsError):
    """There is no room for another image at the moment."""


class NetworkError(FertoolsError):
    """The network failed on the images; the log says why."""


class Batcher:
    """Runs the network on the waiting images, in a thread of its own, as ``Predictor.predict_stream`` does.

    While the network runs, further images arrive, so the batches grow with the load.

    Arguments:
        run: uint8 (n, 48, 48) to float32 (n, 7).
        batch_size: most images per run.
        max_delay: seconds that an image waits for others to share a run; 0 is no wait.
        capacity: most images between ``admit`` and ``release``.
        observe: takes the number of images of each run.
        watch: takes the number of held images, between ``admit`` and ``release``, whenever it changes.
    """

    def __init__(
        self,
        run: Callable[[Any], Any],
        *,
        batch_size: int,
        max_delay: float,
        capacity: int,
        observe: Callable[[int], None] = lambda images: None,
        watch: Callable[[int], None] = lambda held: None,
    ) -> None:
        self.capacity = capacity
        #: Images that are admitted and not yet released.
        self.held = 0
        self._run, self._batch_size, self._max_delay = run, batch_size, max_delay
        self._observe, self._watch = observe, watch
        self._waiting: deque[tuple[Any, asyncio.Future[Any], float]] = deque()
        self._images = 0
        self._arrived = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="fertools-network")
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start, in the running event loop."""
        self._task = asyncio.get_running_loop().create_task(self._work())

    async def close(self) -> None:
        """Stop. Images that still wait get no answer, so stop accepting requests before."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
        self._thread.shutdown()

    def admit(self, images: int = 1) -> None:
        """Reserve room for images before their pixels are in memory. Raises FullError if there is none."""
        if self.held + images > self.capacity:
            raise FullError(f"{self.held} images are being worked on already: try again in a second")
        self.held += images
        self._watch(self.held)

    def release(self, images: int = 1) -> None:
        """Release reserved room."""
        self.held -= images
        self._watch(self.held)

    def submit(self, faces: Any) -> asyncio.Future[Any]:
        """Return the probabilities float32 (n, 7) of uint8 (n, 48, 48) once they have been computed.

        The future raises NetworkError if the network fails; later images are not affected.
        """
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
            faces = [each[0] for each in batch]
            try:
                self._observe(size)
                rows = await loop.run_in_executor(self._thread, self._rows, faces)
            except Exception as error:  # onnxruntime has errors of its own, e.g. when a GPU's memory is full
                _LOG.error("the network failed on %d images: %s: %s", size, type(error).__name__, error)
                for _, answer, _ in batch:
                    if not answer.done():
                        answer.set_exception(NetworkError("the network failed: the server's log says why"))
                continue
            start = 0
            for each, answer, _ in batch:
                if not answer.done():  # the client may have disconnected
                    answer.set_result(rows[start : start + len(each)])
                start += len(each)

    def _rows(self, faces: list[Any]) -> Any:
        together = faces[0] if len(faces) == 1 else np.concatenate(faces)
        if len(together) <= self._batch_size:
            return self._run(together)
        starts = range(0, len(together), self._batch_size)  # one request with many images
        return np.concatenate([self._run(together[start : start + self._batch_size]) for start in starts])
