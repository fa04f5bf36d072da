"""What is free goes back to the system, wherever in the heap it lies."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

import pytest

from broker.runtime.memory import give_back

LIBC = ctypes.CDLL(None)
BLOCK_BYTES, BLOCKS = 16_000, 4_000


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(
    not hasattr(LIBC, "malloc_trim"), reason="this C library gives everything back by itself, or nothing"
)
def test_what_is_free_below_something_that_is_not_goes_back() -> None:
    LIBC.malloc.restype, LIBC.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    LIBC.free.restype, LIBC.free.argtypes = None, [ctypes.c_void_p]
    blocks = [LIBC.malloc(BLOCK_BYTES) for _ in range(BLOCKS)]
    for block in blocks:
        ctypes.memset(block, 1, BLOCK_BYTES)
    for block in blocks[:-1]:
        LIBC.free(block)
    before = resident_bytes()
    give_back()
    assert before - resident_bytes() > BLOCK_BYTES * BLOCKS // 2
    LIBC.free(blocks[-1])
