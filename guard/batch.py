"""Many responses judged side by side, their verdicts in the order of the responses.

This module does not know how a response is judged.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from typing import TYPE_CHECKING

from guard.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from guard.exchange import Exchange
    from guard.verdict import Verdict


class Verdicts:
    """An iterator over verdicts, in the order of the responses.

    A response that cannot be judged raises in its place, and `next` goes on behind it. An
    error of the responses' source raises behind the verdicts of what came before it, and
    ends the iteration.

    Args:
        check: judges one response; called from several threads.
        responses: read lazily, two per worker ahead of the verdicts.
        workers: how many are judged at a time; the number of cores by default.

    Raises:
        InputError: `responses` is one text or not iterable, or there is no worker.
    """

    def __init__(
        self,
        check: Callable[[str | Exchange], Verdict],
        responses: Iterable[str | Exchange],
        workers: int | None = None,
    ) -> None:
        """Read nothing from `responses` yet."""
        if isinstance(responses, str | Mapping) or not hasattr(responses, "__iter__"):
            kind = type(responses).__name__
            raise InputError(f"`responses` must hold several, not be one {kind}: use `check`")
        if workers is not None and (not isinstance(workers, int) or workers < 1):
            raise InputError(f"`workers` must be at least 1 and a whole number, not {workers!r}")
        count = workers or os.cpu_count() or 1
        self._check = check
        self._responses = iter(responses)
        self._ahead = 2 * count
        self._waiting: deque[Future[Verdict]] = deque()
        self._pool = ThreadPoolExecutor(count, thread_name_prefix="guard-check")

    def close(self) -> None:
        """Read no more responses and wait for those that are being judged."""
        self._responses = iter(())
        self._waiting.clear()
        self._pool.shutdown(cancel_futures=True)

    def __iter__(self) -> Iterator[Verdict]:
        return self

    def __next__(self) -> Verdict:
        while len(self._waiting) <= self._ahead and (future := self._submitted()) is not None:
            self._waiting.append(future)
        if not self._waiting:
            self.close()
            raise StopIteration
        return self._waiting.popleft().result()

    def _submitted(self) -> Future[Verdict] | None:
        """Return the next response's verdict to be, or the source's error in its place."""
        try:
            response = next(self._responses)
        except StopIteration:
            return None
        except Exception as error:  # noqa: BLE001  # raised again in its turn
            self._responses = iter(())
            failed: Future[Verdict] = Future()
            failed.set_exception(error)
            return failed
        return self._pool.submit(copy_context().run, self._check, response)
