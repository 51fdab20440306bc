"""Which rows an import has certainly not had yet, in memory that does not grow with the file."""

from collections.abc import Sequence

import numpy as np

_SLOTS = 2**25
_WORDS = 3
"""So many numbers of a digest name its slots. After 2 million rows 0.5 % of new ones find all of theirs taken."""


class Seen:
    """A Bloom filter of sha256 digests, a byte a slot: it may take a digest for seen, never a seen one for new.

    Source: Bloom 1970, doi 10.1145/362686.362692.
    """

    def __init__(self) -> None:
        self._taken = np.zeros(_SLOTS, dtype=np.bool_)

    def add(self, digests: Sequence[bytes]) -> list[bytes]:
        """Remember digests; return those that earlier calls may have had."""
        if not digests:
            return []
        slots = np.frombuffer(b"".join(digests), dtype=np.uint64).reshape(len(digests), 4)[:, :_WORDS] % _SLOTS
        is_taken = np.logical_and.reduce(self._taken[slots], axis=1).tolist()
        self._taken[slots] = True
        return [digest for digest, may_be_there in zip(digests, is_taken, strict=True) if may_be_there]
