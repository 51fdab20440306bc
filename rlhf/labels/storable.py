"""Which texts a database can hold: PostgreSQL refuses U+0000, and lone surrogates have no UTF-8."""

import re

from sft.core.errors import DataError

_UNSTORABLE = re.compile("[\0\ud800-\udfff]")


def check_storable(*texts: str) -> None:
    """Raise DataError, with what to do next, where a text that somebody wrote cannot be stored."""
    found = next((match[0] for match in map(_UNSTORABLE.search, texts) if match), None)
    if found is not None:
        raise DataError(f"a text holds the character U+{ord(found):04X}, which cannot be stored; write it without that")
