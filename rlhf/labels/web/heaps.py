"""How many heaps the server's threads share, so that its memory stays flat over the labels.

glibc gives its threads up to eight heaps a core. What a page needs (SQLite's pages, texts) and gives back leaves holes
in each of them, which fill up for thousands of labels although nothing is kept (experiments/label_page). Source:
mallopt(3), M_ARENA_MAX.
"""

import ctypes
import os
import platform

HEAPS = 2
_ARENA_MAX = -8
"""glibc's M_ARENA_MAX."""
_OF_THE_USER = "MALLOC_ARENA_MAX"
"""The variable by which glibc takes another number from whoever starts the program."""


def share_heaps() -> bool:
    """Let all threads that this process starts from now on share few heaps; say whether that was done.

    Left as it is where another allocator than glibc's works, and where the environment says how many.
    """
    if platform.libc_ver()[0] != "glibc" or _OF_THE_USER in os.environ:
        return False
    is_done: int = ctypes.CDLL(None).mallopt(_ARENA_MAX, HEAPS)
    return is_done == 1
