from collections.abc import Iterator

import pytest
from entrants import AWAY, HOME, PROJECT, new_store
from sqlalchemy import Connection, func, select

from rlhf.labels.accounts.attempts import (
    BY_ADDRESS,
    BY_NAME,
    BY_NAME_AND_ADDRESS,
    FORGOTTEN_AFTER_S,
    KNOWN_FOR_S,
    MOST_ROWS,
    Limit,
    Origin,
    Wait,
    remember,
)
from rlhf.labels.accounts.attempts import begin as begin_in
from rlhf.labels.accounts.attempts import succeeded as succeeded_in
from rlhf.labels.store import LabelStore, Project
from rlhf.labels.tables import ATTEMPTS

Opened = tuple[Connection, Project]
BO, CY = 7, 8
"""Accounts."""


@pytest.fixture
def store(tmp_path) -> LabelStore:
    return new_store(tmp_path)


@pytest.fixture
def desk(store) -> Iterator[Opened]:
    """Return one transaction for the whole test: a thousand commits take long."""
    with store.changing(PROJECT) as opened:
        yield opened


def begin(desk, name="Bo", origin=HOME, now=0.0):
    """Try; all names but Bo are nobody's."""
    return begin_in(*desk, name, BO if name == "Bo" else 0, origin, now)


def succeeded(desk, attempt):
    succeeded_in(desk[0], attempt)


def wait(found) -> float:
    return found.seconds if isinstance(found, Wait) else 0.0


def tries(desk, seconds: int, name: str = "Bo", origin: Origin = HOME) -> list[int]:
    """Try once a second; return when a password was looked at."""
    return [now for now in range(seconds) if not wait(begin(desk, name, origin, float(now)))]


def test_waits_double():
    limit = Limit(free=3, longest_s=10.0)
    assert [limit.delay(n) for n in range(9)] == [0, 0, 0, 1, 2, 4, 8, 10, 10]
    assert limit.delay(10**9) == 10.0


def test_a_thousand_tries_from_one_address(desk):
    """Five are free, the waits after are 1, 2, 4 ... 512 s: the sum of ten of them is 1,023 s."""
    looked_at = tries(desk, 1000)
    assert looked_at[:9] == [0, 1, 2, 3, 4, 5, 7, 11, 19]
    assert len(looked_at) == 5 + 9


def test_a_thousand_at_once_are_five(desk):
    assert sum(not wait(begin(desk)) for _ in range(1000)) == BY_NAME_AND_ADDRESS.free


def test_a_restart_forgets_nothing(store, tmp_path):
    with store.changing(PROJECT) as desk:
        tries(desk, 20)
        expected = wait(begin(desk, now=20.0))
    with LabelStore(f"sqlite:///{tmp_path / 'labels.sqlite'}").changing(PROJECT) as again:
        assert wait(begin(again, now=20.0)) == expected > 0


def test_another_address_gets_in_meanwhile(desk):
    tries(desk, 1000)
    assert wait(begin(desk, now=1000.0)) > 0
    assert wait(begin(desk, origin=AWAY, now=1000.0)) == 0


def test_another_name_is_tried_from_the_same_address_and_another_project_knows_nothing(store):
    with store.changing(PROJECT) as desk:
        tries(desk, 100)
        assert wait(begin(desk, "Cy", now=100.0)) == 0
    with store.changing("other") as desk:
        assert wait(begin(desk, now=100.0)) == 0


def test_one_address_cannot_try_many_names(desk):
    assert sum(not wait(begin(desk, f"name {n}")) for n in range(1000)) == BY_ADDRESS.free
    assert 0 < wait(begin(desk, "new name")) <= BY_ADDRESS.longest_s
    assert wait(begin(desk, "new name", AWAY)) == 0


def test_many_addresses_slow_each_other_but_lock_nobody_out_for_long(desk):
    assert sum(not wait(begin(desk, origin=Origin(f"10.1.{n}.1"))) for n in range(250)) == BY_NAME.free
    last = 0.0
    for n in range(300):
        last = max(last, wait(begin(desk, origin=Origin(f"10.2.{n % 250}.1"), now=float(n))))
    assert 0 < last <= BY_NAME.longest_s == 60
    assert wait(begin(desk, "Cy", AWAY, now=300.0)) == 0


def test_waiting_is_not_counted(desk):
    last = tries(desk, 20)[-1]
    until = last + wait(begin(desk, now=float(last)))
    for _ in range(50):
        begin(desk, now=until - 0.5)
    assert wait(begin(desk, now=until)) == 0


def test_who_gets_in_starts_anew(desk):
    for _ in range(4):
        begin(desk)
    succeeded(desk, begin(desk, now=1.0))
    assert [wait(begin(desk, now=2.0)) for _ in range(5)] == [0] * 5


def test_getting_in_takes_nothing_off_the_wrong_tries_of_an_address(desk):
    """Else somebody with an account of their own guesses at others' for ever."""
    count = 0
    for n in range(200):
        attempt = begin(desk, "mine", now=1.0)
        if wait(attempt):
            break
        succeeded(desk, attempt)
        count += not wait(begin(desk, f"victim {n}", now=1.0))
    assert count == BY_ADDRESS.free


def test_fifty_of_one_office_log_in_one_after_another(desk):
    for n in range(200):
        succeeded(desk, begin(desk, f"person {n}"))
    assert wait(begin(desk, "person 0")) == 0


def test_a_success_in_between_leaves_a_wait_of_others_from_the_same_address(desk):
    mine = begin(desk, "mine")
    for n in range(BY_ADDRESS.free - 1):
        begin(desk, f"victim {n}")
    assert wait(begin(desk, "mine")) > 0
    succeeded(desk, mine)
    assert wait(begin(desk, "mine")) > 0


def test_a_day_of_quiet_forgets(desk):
    last = tries(desk, 1000)[-1]
    until = last + wait(begin(desk, now=float(last)))
    assert wait(begin(desk, now=until)) == 0
    until += 2**10
    assert wait(begin(desk, now=until + FORGOTTEN_AFTER_S + 1)) == 0
    assert desk[0].scalars(select(ATTEMPTS.c.failures)).all() == [1, 1, 1]


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("2001:db8:1:2::1", "2001:db8:1:2:ffff::9", True),
        ("2001:db8:1:2::1", "2001:db8:1:3::1", False),
        ("::ffff:10.0.0.1", "10.0.0.1", True),
        ("10.0.0.1", "10.0.0.2", False),
        ("unknown", "unknown", True),
    ],
)
def test_which_addresses_are_one(desk, one, other, same):
    tries(desk, 20, origin=Origin(one))
    assert (wait(begin(desk, origin=Origin(other), now=20.0)) > 0) == same


def test_no_name_and_no_address_stand_in_the_table(store, tmp_path):
    with store.changing(PROJECT) as desk:
        begin(desk, "Wilhelmina", Origin("198.51.100.77", "device-of-hers"))
        remember(*desk, BO, Origin("198.51.100.77", "device-of-hers"), 0.0)
        assert desk[0].scalar(select(func.count()).select_from(ATTEMPTS)) == 5
    content = (tmp_path / "labels.sqlite").read_bytes()
    assert b"Wilhelmina" not in content
    assert b"198.51.100.77" not in content
    assert b"device-of-hers" not in content


def under_attack(desk, seconds: int = 600, start: float = 0.0) -> None:
    """Guess at Bo's password from 250 addresses, ten times a second."""
    for n in range(10 * seconds):
        begin(desk, origin=Origin(f"10.3.{n % 250}.1"), now=start + n / 10)


def test_who_has_got_in_before_is_not_slowed_by_others(desk):
    """From the same browser, wherever it is; from the same address in any browser."""
    device = remember(*desk, BO, HOME, 0.0)
    under_attack(desk)
    assert wait(begin(desk, origin=AWAY, now=600.0)) > 0
    assert wait(begin(desk, origin=Origin("198.51.100.1", device), now=600.0)) == 0
    assert wait(begin(desk, origin=HOME, now=600.0)) == 0
    assert wait(begin(desk, origin=Origin("10.3.0.1", device), now=600.0)) == 0, "from an attacker's own address"


def test_a_known_browser_has_the_few_tries_of_one_address(desk):
    """So much is a stolen token worth; another person's browser and a made-up one are worth nothing."""
    known = Origin("10.9.9.9", remember(*desk, BO, HOME, 0.0))
    theirs = Origin("10.9.9.9", remember(*desk, CY, AWAY, 0.0))
    assert tries(desk, 1000, origin=known)[:9] == [0, 1, 2, 3, 4, 5, 7, 11, 19]
    assert wait(begin(desk, origin=theirs, now=1000.0)) == 0
    under_attack(desk)
    for origin in (theirs, Origin("10.9.9.9", "A" * 43), Origin("10.9.9.9")):
        assert wait(begin(desk, origin=origin, now=600.0)) > 0


def test_a_known_address_has_few_tries_too(desk):
    remember(*desk, BO, HOME, 0.0)
    assert len(tries(desk, 1000)) == 5 + 9
    for n in range(BY_ADDRESS.free):
        begin(desk, f"name {n}", AWAY)
    remember(*desk, BO, AWAY, 0.0)
    assert wait(begin(desk, origin=AWAY)) > 0


def test_the_wrong_tries_of_others_stay_when_a_known_one_gets_in(desk):
    known = Origin("10.9.9.9", remember(*desk, BO, HOME, 0.0))
    under_attack(desk)
    for origin in (known, HOME):
        for _ in range(6):
            succeeded(desk, begin(desk, origin=origin, now=600.0))
    assert wait(begin(desk, origin=AWAY, now=600.0)) > 0


def test_a_name_that_nobody_has_is_never_known(desk):
    device = remember(*desk, BO, HOME, 0.0)
    for n in range(BY_NAME.free):
        begin(desk, "nobody", Origin(f"10.1.{n}.1"))
    assert wait(begin(desk, "nobody", Origin(HOME.address, device))) > 0


def test_a_browser_gets_a_token_that_nobody_chose_and_keeps_it(desk):
    first = remember(*desk, BO, Origin(HOME.address, "planted"), 0.0)
    assert len(first) == 43
    assert remember(*desk, BO, Origin(AWAY.address, first), 10.0) == first
    assert remember(*desk, CY, Origin(HOME.address, first), 10.0) != first


def test_after_three_months_nobody_is_known(desk):
    known = Origin("10.9.9.9", remember(*desk, BO, HOME, 0.0))
    start = KNOWN_FOR_S - 100
    under_attack(desk, 200, start)
    assert [wait(begin(desk, origin=one, now=start + 99)) for one in (known, HOME)] == [0, 0]
    assert min(wait(begin(desk, origin=one, now=start + 199)) for one in (known, HOME)) > 0
    begin(desk, now=start + 3 * FORGOTTEN_AFTER_S)
    assert desk[0].scalar(select(func.count()).select_from(ATTEMPTS)) == 3, "nothing of it is kept"


def fill(desk, failures: int, until: float) -> None:
    """Store as many rows of one kind as there may be; their times rise to `until`."""
    values = [
        {"key": f"{failures}/{n}".encode(), "failures": failures, "blocked_until": until - (MOST_ROWS - n) / 10}
        for n in range(MOST_ROWS)
    ]
    desk[0].execute(ATTEMPTS.insert(), values)


def rows(desk) -> int:
    return desk[0].scalar(select(func.count()).select_from(ATTEMPTS))


def test_tries_for_a_hundred_thousand_names_from_everywhere_fill_no_table(desk):
    device = remember(*desk, BO, HOME, 0.0)
    now = float(tries(desk, 1000, origin=AWAY)[-1])
    waiting = wait(begin(desk, origin=AWAY, now=now))
    fill(desk, 1, now)
    begin(desk, "a name", Origin("10.9.9.9"), now)
    assert rows(desk) == pytest.approx(0.9 * MOST_ROWS, abs=20)
    assert wait(begin(desk, origin=AWAY, now=now)) == waiting > 0
    assert remember(*desk, BO, Origin("198.51.100.1", device), now) == device


def test_log_ins_of_a_program_push_out_no_count_of_wrong_tries(desk):
    for _ in range(BY_NAME_AND_ADDRESS.free):
        begin(desk)
    device = remember(*desk, BO, HOME, 0.0)
    fill(desk, 0, KNOWN_FOR_S - 1)
    assert wait(begin(desk)) > 0
    assert rows(desk) == pytest.approx(0.9 * MOST_ROWS, abs=20)
    assert remember(*desk, BO, Origin("198.51.100.1", device), 1.0) == device
