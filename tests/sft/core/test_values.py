import pytest

from sft.core.values import Quantity, duration, plain, quantity, shown_value


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.0, "0"), (2600.0, "2\u202f600"), (0.12345, "0.1235"), (12345.6, "12346"), (3.1e-7, "3.10e-07"), (-0.5, "-0.5")],
)
def test_plain_numbers(value: float, shown: str):
    assert plain(value) == shown


@pytest.mark.parametrize(
    ("value", "low", "high", "shown"),
    [
        (-0.0012345, -0.00432, 0.00617, "-0.00123"),
        (4.04, 3.9, 4.1, "4.0"),
        (4.0, 4.0, 4.0, "4"),
        (-0.04, -0.3, 0.3, "0.0"),  # no -0.0
        (12345.6, 12300.0, 12400.0, "12346"),
        (2e-9, 1e-9, 3e-9, "2.00e-09"),
        (0.12345, None, None, "0.1235"),
    ],
)
def test_a_number_is_as_precise_as_its_interval(value: float, low: float | None, high: float | None, shown: str):
    assert shown_value(Quantity(value, low, high)) == shown


def test_durations_round_to_whole_minutes():
    assert [duration(s) for s in (0.44, 59.6, 65, 3725)] == ["0.4 s", "1 min 00 s", "1 min 05 s", "1 h 02 min"]


def test_quantity_reads_estimates_and_refuses_the_rest():
    assert quantity({"value": 0.5, "ci": [0.4, 0.6], "n": 10}) == (0.5, 0.4, 0.6, 10)
    assert quantity(2) == (2.0, None, None, None)
    assert quantity({"value": 0.5, "ci": [0.4, None], "n": None}) == (0.5, None, None, None)
    assert [quantity(v) for v in (True, None, "0.5", float("nan"), {"value": None})] == [None] * 5
