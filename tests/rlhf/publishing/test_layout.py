from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize

from rlhf.publishing.layout import Sizes, columns, crossings, lay_out, spread

SIZES = Sizes(width=100.0, column_gap=40.0, row_gap=10.0, lane=6.0)


def names(count: int) -> list[str]:
    return [f"n{number}" for number in range(count)]


@st.composite
def graphs(draw) -> tuple[dict[str, float], list[tuple[str, str]]]:
    """Draw graphs without cycles: edges lead from a lower to a higher number."""
    count = draw(st.integers(1, 9))
    pairs = [(a, b) for b in range(count) for a in range(b)]
    chosen = draw(st.lists(st.sampled_from(pairs), unique=True, max_size=14)) if pairs else []
    heights = draw(st.lists(st.floats(20, 90), min_size=count, max_size=count))
    order = draw(st.permutations(names(count)))
    tall = dict(zip(names(count), heights, strict=True))
    return {name: tall[name] for name in order}, [(f"n{a}", f"n{b}") for a, b in chosen]


def test_columns_of_a_run():
    edges = [("labels", "comparisons"), ("comparisons", "reward"), ("base", "sft"), ("sft", "reward")]
    edges += [("sft", "policy"), ("reward", "policy"), ("policy", "evaluation"), ("people", "labels")]
    every = ["policy", "evaluation", "labels", "base", "sft", "comparisons", "reward", "people"]
    found = columns(every, edges, {})
    assert found == {
        **{"people": 0, "labels": 1, "comparisons": 2, "reward": 3, "policy": 4, "evaluation": 5},
        **{"base": 1, "sft": 2},
    }


def test_pinned_nodes_stay_at_the_left():
    edges = [("people", "late"), ("late", "end"), ("a", "b"), ("b", "c"), ("c", "d"), ("d", "end")]
    every = ["people", "late", "a", "b", "c", "d", "end"]
    assert columns(every, edges, {})["people"] == 2
    found = columns(every, edges, {"people": 0, "late": 1})
    assert (found["people"], found["late"], found["end"]) == (0, 1, 4)


def test_spread_by_hand():
    assert spread([0, 10, 20], [1, 1]) == [0, 10, 20]
    assert spread([5, 5, 5], [2, 2]) == [3, 5, 7]
    assert spread([0, 0, 100], [4, 4]) == [-2, 2, 100]
    assert spread([10, 0], [2]) == [4, 6]
    assert spread([], []) == []


@given(st.lists(st.tuples(st.floats(-50, 50), st.floats(0, 20)), min_size=1, max_size=5))
def test_spread_is_the_nearest_order(rows):
    wanted, distances = [row[0] for row in rows], [row[1] for row in rows[1:]]
    found = spread(wanted, distances)
    limits = [{"type": "ineq", "fun": lambda x, i=i, d=d: x[i + 1] - x[i] - d} for i, d in enumerate(distances)]
    best = minimize(lambda x: sum((a - b) ** 2 for a, b in zip(x, wanted, strict=True)), found, constraints=limits)
    cost = sum((a - b) ** 2 for a, b in zip(found, wanted, strict=True))
    assert cost <= best.fun + 1e-3 * (1 + abs(best.fun))
    assert all(b - a >= d - 1e-9 for a, b, d in zip(found, found[1:], distances, strict=False))


def test_crossings_by_hand():
    order = [[("a",), ("b",)], [("c",), ("d",)]]
    assert crossings(order, [(("a",), ("d",)), (("b",), ("c",))]) == 1
    assert crossings(order, [(("a",), ("c",)), (("b",), ("d",))]) == 0
    assert crossings(order, [(("a",), ("c",)), (("a",), ("d",)), (("b",), ("c",))]) == 1


def test_a_crossing_that_need_not_be_is_gone():
    heights = dict.fromkeys(["a", "b", "c", "d"], 20.0)
    found = lay_out(heights, [("a", "d"), ("b", "c")], SIZES, {})
    assert (found.boxes["a"].y < found.boxes["b"].y) == (found.boxes["d"].y < found.boxes["c"].y)


def test_an_edge_over_a_column_goes_around_what_stands_there():
    found = lay_out({"a": 20.0, "b": 60.0, "c": 20.0}, [("a", "b"), ("b", "c"), ("a", "c")], SIZES, {})
    middle = found.boxes["b"]
    (x, y), (end, y2) = found.paths[("a", "c")][1:3]
    assert (x, end, y) == (middle.x, middle.x + SIZES.width, y2)
    assert not middle.y - SIZES.row_gap < y < middle.y + middle.height + SIZES.row_gap


@given(graphs())
def test_everything_has_its_place(graph):
    heights, edges = graph
    found = lay_out(heights, edges, SIZES, {})
    boxes = found.boxes
    assert boxes.keys() == heights.keys()
    assert found.paths.keys() == set(edges)
    for (a, b), points in found.paths.items():
        assert boxes[a].x + SIZES.width < boxes[b].x
        assert points[0] == pytest.approx((boxes[a].x + SIZES.width, boxes[a].y + boxes[a].height / 2))
        assert points[-1] == pytest.approx((boxes[b].x, boxes[b].y + boxes[b].height / 2))
        assert all(before[0] < after[0] for before, after in pairwise(points))
    for a in boxes:
        box = boxes[a]
        assert box.x >= 0
        assert box.y >= -1e-6
        assert box.x + SIZES.width <= found.width + 1e-6
        assert box.y + box.height <= found.height + 1e-6
        for b in boxes:
            if a < b and box.x == boxes[b].x:
                upper, lower = sorted((box, boxes[b]), key=lambda each: each.y)
                assert upper.y + upper.height + SIZES.row_gap <= lower.y + 1e-6


def test_nothing_is_an_empty_picture():
    assert lay_out({}, [], SIZES, {}) == ({}, {}, 0.0, 0.0)


def test_many_versions_are_laid_out():
    count = 300
    edges = [(f"n{number - step}", f"n{number}") for number in range(count) for step in (1, 7) if number >= step]
    assert len(lay_out(dict.fromkeys(names(count), 40.0), edges, SIZES, {}).boxes) == count
