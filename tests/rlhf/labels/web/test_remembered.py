from rlhf.labels.web.remembered import remembered


def test_short_texts_are_looked_at_once_and_long_ones_each_time():
    seen = []

    @remembered
    def joined(left: str, right: str) -> str:
        seen.append(left[:1])
        return left + right

    for left in ("a", "b" * 9_999, "c" * 10_000):
        assert [joined(left, "x") for _ in range(3)] == [f"{left}x"] * 3
    assert joined("x", "a") == "xa"
    assert seen == ["a", "b", "c", "c", "c", "x"]
