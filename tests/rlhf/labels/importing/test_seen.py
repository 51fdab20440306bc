import hashlib

from rlhf.labels.importing.seen import Seen


def digests(*numbers: int) -> list[bytes]:
    return [hashlib.sha256(str(number).encode()).digest() for number in numbers]


def test_none_that_was_there_is_forgotten():
    seen = Seen()
    for start in range(0, 20_000, 1000):
        seen.add(digests(*range(start, start + 1000)))
    asked = digests(*range(30_000), 5)
    assert seen.add(asked) == [*asked[:20_000], asked[5]]


def test_neighbours_of_one_call_are_new_to_it():
    """With 10 of 33 million slots in use, chance finds none of 1,000 new digests taken (expected: 1e-16)."""
    seen = Seen()
    assert seen.add([*digests(1, 2, 3), *digests(3)]) == []
    assert seen.add(digests(*range(10, 1010))) == []
    assert seen.add([]) == []


def test_a_new_digest_in_the_slots_of_others_counts_as_seen():
    """Slots come from three numbers of a digest; the fourth does not help to tell it from another."""
    seen = Seen()
    first, other = digests(1, 2)
    seen.add([first])
    assert seen.add([first[:24] + other[24:]]) == [first[:24] + other[24:]]
    assert seen.add([other[:8] + first[8:]]) == []
