"""Training data that comes in chunks: the next one is made and checked on a thread while the present one trains."""

import queue
import threading
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, Generic, TypeVar

T = TypeVar("T")
POLL = 0.05  # seconds between two looks for Ctrl-C while a chunk is waited for
PATIENCE = 1.0  # seconds to wait for a producer that was told to end


def is_source(value: Any) -> bool:
    """Whether this is a source of chunks rather than rows: a function, an iterator, or a collection of pairs."""
    if any(hasattr(value, name) for name in ("shape", "__array__", "tocsr", "keys")) or isinstance(value, str | bytes):
        return False
    if isinstance(value, list | tuple):
        head = value[0] if value else ((), ())
        return isinstance(head, list | tuple) and len(head) in (2, 3) and not isinstance(head[0], int | float)
    return callable(value) or hasattr(value, "__iter__")


class Chunks(Generic[T]):
    """A source of chunks, passed over once in every epoch.

    source  anything that can be iterated again (a list, a data loader), or a function of no arguments that returns a
            new iterator; a one-shot iterator only for one epoch
    read    makes of chunk number i what the training needs, on the producing thread; its errors come through
    Raises ValueError for a one-shot iterator and several epochs, and for an epoch without chunks.
    """

    def __init__(self, source: Any, epochs: int, read: Callable[[int, Any], T]) -> None:
        if not callable(source) and iter(source) is source and epochs > 1:
            raise ValueError(
                f"chunks: got an iterator, which can be passed over once, and epochs={epochs}; expected a list, an "
                "object that can be iterated again, or a function that returns a new iterator."
            )
        self._source, self._read = source, read
        self._running: _Prefetch[T] | None = None
        self._head: list[T] = []

    def __enter__(self) -> "Chunks[T]":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the producing thread."""
        if self._running is not None:
            self._running.close()

    def first(self) -> T:
        """The first chunk; it is given out again in the first epoch."""
        running = self._begin()
        self._head = running.next(lambda: False)
        if not self._head:
            raise ValueError("chunks: got none, expected at least one.")
        return self._head[0]

    def epoch(self, epoch: int, ended: Callable[[], bool]) -> Iterator[T]:
        """The chunks of an epoch; `ended` is asked while one is waited for, and may end it."""
        running = self._running if epoch == 0 and self._running else self._begin()
        found, self._head = self._head or running.next(ended), []
        if not found and not ended():
            raise ValueError(
                f"chunks: got none in epoch {epoch + 1}, expected at least one; "
                "a function must return a new iterator each time."
            )
        while found:
            yield found.pop()
            found = running.next(ended)

    def _begin(self) -> "_Prefetch[T]":
        if self._running is not None:
            self._running.close()
        self._running = _Prefetch(iter(self._source() if callable(self._source) else self._source), self._read)
        return self._running


class _Prefetch(Generic[T]):
    """Runs an iterator on a thread, one chunk ahead."""

    def __init__(self, items: Iterator[Any], read: Callable[[int, Any], T]) -> None:
        self._items, self._read = items, read
        self._ready: queue.SimpleQueue[tuple[list[T], BaseException | None]] = queue.SimpleQueue()
        self._wanted, self._closed = threading.Semaphore(0), threading.Event()
        self._thread = threading.Thread(target=self._produce, name="hotloop chunks", daemon=True)
        self._thread.start()

    def next(self, ended: Callable[[], bool]) -> list[T]:
        """The next chunk in a list; an empty one at the end, or when `ended` says so."""
        while not ended():
            try:
                found, error = self._ready.get(timeout=POLL)
            except queue.Empty:
                continue
            if error is not None:
                raise error
            self._wanted.release()
            return found
        return []

    def close(self) -> None:
        """Let the thread end; one that still waits for its source is left behind, and ends with it."""
        self._closed.set()
        self._wanted.release()
        self._thread.join(PATIENCE)

    def _produce(self) -> None:
        try:
            for i, item in enumerate(self._items):
                self._ready.put(([self._read(i, item)], None))
                del item
                self._wanted.acquire()
                if self._closed.is_set():
                    break
            self._ready.put(([], None))
        except BaseException as error:  # handed on to the thread that trains
            self._ready.put(([], error))
        finally:
            if hasattr(self._items, "close"):
                self._items.close()
