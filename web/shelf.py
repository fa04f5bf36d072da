"""Files lately fetched, in memory for a short while: one fetch for all who ask at once, none for whoever asks soon.

When a picture is done, every browser that watches wants it within a second. A file never changes under its digest, so
what is kept is never old; it is kept for less time than the broker keeps what no job names. Knows no socket: it is told
how to fetch.
"""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Callable, Iterator
from typing import Final

import gevent
from gevent.event import Event

#: Larger files are passed through: a slow reader must not hold much.
MAX_FILE_BYTES: Final = 4 << 20
#: Of all files that are whole; the longest unused goes first.
MAX_KEPT_BYTES: Final = 64 << 20
KEPT_S: Final = 60.0

#: (the size of the whole file, the next bytes), at least once.
Parts = Iterator[tuple[int, bytes]]


class Shelf:
    def __init__(self, fetch: Callable[[str], Parts], raises: tuple[type[Exception], ...]) -> None:
        """fetch: the parts of a file by its digest. raises: what may be wrong with it; all who asked are told."""
        self._fetch = fetch
        self._raises = raises
        #: In the order of their last use.
        self._books: dict[str, _Book] = {}
        #: Of those among them that are kept.
        self._kept_bytes = 0

    def open(self, sha256: str) -> tuple[int, Iterator[bytes]]:
        """The size and the bytes, as they come. Raises what the fetch does, also in the middle."""
        book = self._books.pop(sha256, None)
        if book is None:
            return self._begun(sha256)
        self._books[sha256] = book
        book.begun.wait()
        if book.failure is not None:
            raise book.failure
        if book.size_bytes > MAX_FILE_BYTES:
            return _straight(self._fetch(sha256))
        return book.size_bytes, book.read()

    def whole(self, sha256: str) -> bytes | None:
        """All of the file, if it is here."""
        book = self._books.get(sha256)
        return b"".join(book.parts) if book is not None and book.is_whole else None

    def _begun(self, sha256: str) -> tuple[int, Iterator[bytes]]:
        book = self._books[sha256] = _Book()
        parts = self._fetch(sha256)
        try:
            book.size_bytes, first = next(parts)
        except Exception as e:
            self._drop(sha256, book)
            book.fail(e)
            raise
        if book.size_bytes > MAX_FILE_BYTES:
            self._drop(sha256, book)
            book.begun.set()
            return _straight(itertools.chain(((book.size_bytes, first),), parts))
        book.add(first)
        gevent.spawn(self._fill, sha256, book, parts)
        return book.size_bytes, book.read()

    def _fill(self, sha256: str, book: _Book, parts: Parts) -> None:
        failure: Exception = EOFError("a file ended early")
        try:
            for _, data in parts:
                book.add(data)
        except self._raises as e:
            failure = e
        finally:
            if not book.is_whole:
                self._drop(sha256, book)
                book.fail(failure)
        if book.is_whole:
            # What has made room for others does not stay in memory until its time has come.
            gevent.spawn_later(KEPT_S, self._expire, sha256, weakref.ref(book))
            self._keep(book)

    def _keep(self, book: _Book) -> None:
        book.kept = True
        self._kept_bytes += book.size_bytes
        while self._kept_bytes > MAX_KEPT_BYTES:
            self._drop(*next((name, each) for name, each in self._books.items() if each.kept))

    def _expire(self, sha256: str, kept: weakref.ref[_Book]) -> None:
        book = kept()
        if book is not None:
            self._drop(sha256, book)

    def _drop(self, sha256: str, book: _Book) -> None:
        if self._books.get(sha256) is book:
            del self._books[sha256]
            if book.kept:
                self._kept_bytes -= book.size_bytes


class _Book:
    """One file, as far as it has come."""

    def __init__(self) -> None:
        #: Set once its size is known, or that it cannot be had.
        self.begun = Event()
        self.size_bytes = 0
        self.parts: list[bytes] = []
        self.failure: Exception | None = None
        #: It is whole and takes room.
        self.kept = False
        self._have_bytes = 0
        #: Set at the next part; then there is another one.
        self._news = Event()

    @property
    def is_whole(self) -> bool:
        return self.begun.is_set() and self.failure is None and self._have_bytes == self.size_bytes

    def add(self, data: bytes) -> None:
        self.parts.append(data)
        self._have_bytes += len(data)
        self._tell()

    def fail(self, why: Exception) -> None:
        self.failure = why
        self._tell()

    def read(self) -> Iterator[bytes]:
        for at in itertools.count():
            while at == len(self.parts):
                if self.is_whole:
                    return
                if self.failure is not None:
                    raise self.failure
                self._news.wait()
            yield self.parts[at]

    def _tell(self) -> None:
        self.begun.set()
        news, self._news = self._news, Event()
        news.set()


def _straight(parts: Parts) -> tuple[int, Iterator[bytes]]:
    size_bytes, first = next(parts)
    return size_bytes, itertools.chain((first,), (data for _, data in parts))
