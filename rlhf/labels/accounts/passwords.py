"""Passwords: which are good enough, and their argon2id hashes.

Hashing takes about 80 ms of one core and 46 MiB: never inside a write transaction. Source: RFC 9106, and for the
numbers OWASP's "Password Storage Cheat Sheet"; for the rules NIST SP 800-63B, section 5.1.1.
"""

import unicodedata
from functools import cache

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from rlhf.labels.accounts.users import DISABLED
from sft.core.errors import DataError

SHORTEST, LONGEST = 12, 256
_FEWEST_DIFFERENT = 6
_HASHER = PasswordHasher(time_cost=2, memory_cost=46 * 1024, parallelism=1)
_COMMON = (
    "password passwort motdepasse contrasena qwerty qwertz azerty letmein welcome willkommen administrator admin "
    "iloveyou changeme secret geheim monkey dragon football baseball sunshine princess master login hello test "
    "annotator annotation labels label owner rlhf"
)
_ROWS = ("abcdefghijklmnopqrstuvwxyz", "0123456789", "qwertyuiop", "qwertzuiop", "azertyuiop", "asdfghjkl", "zxcvbnm")
_LOOKALIKES = str.maketrans("013457@$!", "oleastasi")


def check_password(password: str, *known: str) -> None:
    """Raise DataError unless a password is good enough; `known` are words that others know, such as the name."""
    problem = _problem(_plain(password), [word.casefold() for word in known])
    if problem is not None:
        raise DataError(f"this password {problem}; take {SHORTEST} or more characters, such as four words of your own")


def hash_password(password: str) -> str:
    """Return the argon2id hash of a password, with salt and parameters."""
    return _HASHER.hash(_plain(password))


def matches(password: str, stored: str) -> bool:
    """Say whether a password fits a hash; it takes as long where there is none (an unknown name) as where there is."""
    try:
        return _HASHER.verify(stored or _decoy(), _plain(password)) and stored != DISABLED
    except (VerificationError, InvalidHashError):
        return False


@cache
def _decoy() -> str:
    return _HASHER.hash("nobody has this password")


def _plain(password: str) -> str:
    """Return the same text for what different keyboards send for it."""
    return unicodedata.normalize("NFKC", password)


def _problem(password: str, known: list[str]) -> str | None:
    folded = password.casefold()
    if len(password) < SHORTEST:
        return f"has {len(password)} characters"
    if len(password) > LONGEST:
        return f"has more than {LONGEST} characters"
    if len(set(folded)) < _FEWEST_DIFFERENT:
        return f"has fewer than {_FEWEST_DIFFERENT} different characters"
    if _is_easy(folded, known):
        return "is a common word, a row of keys or a name, with little added"
    return None


def _is_easy(folded: str, known: list[str]) -> bool:
    """Say whether less than half a password is left without common words, names, and runs of keys."""
    return min(len(_rest(text, known)) for text in (folded, folded.translate(_LOOKALIKES))) < SHORTEST / 2


def _rest(text: str, known: list[str]) -> str:
    for word in sorted({*_COMMON.split(), *(word for word in known if len(word) > 2)}, key=len, reverse=True):
        text = text.replace(word, "")
    for row in _ROWS:
        for line in (row * 2, row[::-1] * 2):
            for length in range(len(row), 3, -1):
                for start in range(len(row)):
                    text = text.replace(line[start : start + length], "")
    return text
