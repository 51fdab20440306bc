from typing import Literal

import pytest

pytest.importorskip("argon2")

from argon2 import PasswordHasher

from rlhf.labels.accounts import passwords
from rlhf.labels.accounts.passwords import LONGEST, check_password, hash_password, matches
from rlhf.labels.accounts.users import DISABLED
from sft.core.errors import DataError


@pytest.mark.parametrize(
    ("password", "problem"),
    [
        ("", "has 0 characters"),
        ("k3Jf9!s0dLq", "has 11 characters"),
        ("ab" * LONGEST, "has more than 256 characters"),
        ("abababababab", "has fewer than 6 different"),
        ("hello hello hello", "has fewer than 6 different"),
        ("password1234", "is a common word"),
        ("P@ssw0rd1234!", "is a common word"),
        ("123456789012", "is a common word"),
        ("210987654321", "is a common word"),
        ("abcdefghijkl", "is a common word"),
        ("qwertyuiop12", "is a common word"),
        ("Annabella2024", "is a common word"),
        ("annotator-label-1", "is a common word"),
        ("pilotstudy-1-x", "is a common word"),
    ],
)
def test_weak_passwords(password, problem):
    with pytest.raises(DataError, match=f"this password {problem}.*take 12 or more characters, such as four words"):
        check_password(password, "Annabella", "pilotstudy")


@pytest.mark.parametrize(
    "password", ["correct horse battery", "k3Jf9!s0dLq2", "mein hund heißt bello", "пароль из слов", "Tr0ub4dor&3xyz"]
)
def test_good_passwords(password):
    check_password(password, "Annabella", "pilotstudy", "")


def test_hashes_are_argon2id_and_salted():
    one, other = hash_password("four words of mine"), hash_password("four words of mine")
    assert one != other
    assert one.startswith("$argon2id$v=19$m=47104,t=2,p=1$")
    assert matches("four words of mine", one)
    assert not matches("four words of mine ", one)


def test_one_spelling_of_accents():
    assert matches("cafe\u0301 am Eck \ufb01n", hash_password("caf\u00e9 am Eck fin"))


@pytest.mark.parametrize("stored", [DISABLED, "no hash", "$argon2id$v=19$m=8,t=1,p=1$broken"])
@pytest.mark.parametrize("password", ["", "nobody has this password", "four words of mine"])
def test_nothing_fits_where_there_is_no_hash(password, stored):
    assert not matches(password, stored)


def test_a_name_without_a_hash_costs_a_whole_comparison(monkeypatch):
    compared: list[str] = []

    class Counting(PasswordHasher):
        def verify(self, hash: str | bytes, password: str | bytes) -> Literal[True]:
            compared.append(str(hash))
            return super().verify(hash, password)

    monkeypatch.setattr(passwords, "_HASHER", Counting(time_cost=2, memory_cost=46 * 1024, parallelism=1))
    known = hash_password("four words of mine")
    assert [matches("another password", stored) for stored in (known, DISABLED)] == [False, False]
    assert [found.rpartition("p=1$")[0] for found in compared] == [known.rpartition("p=1$")[0]] * 2
