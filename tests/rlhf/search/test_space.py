"""Hydra's override grammar as axes of a search."""

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from rlhf.search.space import Axis, Scale, axis_of, defaults
from sft.core.errors import ConfigProblem


def parse(word: str) -> Axis | ConfigProblem:
    return axis_of(OverridesParser.create().parse_overrides([word])[0])


@pytest.mark.parametrize(
    ("word", "axis"),
    [
        ("a.b=interval(0.01,0.3)", Axis("a.b", Scale.REAL, 0.01, 0.3)),
        ("a.b=tag(log,interval(0.01,0.3))", Axis("a.b", Scale.REAL, 0.01, 0.3, None, True)),
        ("a=int(interval(2,8))", Axis("a", Scale.STEPS, 2, 8, 1)),
        ("a=int(tag(log,interval(2,64)))", Axis("a", Scale.STEPS, 2, 64, 1, True)),
        ("a=range(16,65,16)", Axis("a", Scale.STEPS, 16, 64, 16)),
        ("a=range(0.1,0.4,0.1)", Axis("a", Scale.STEPS, 0.1, 0.3, 0.1)),
        ("a=range(0.5,2.1,0.5)", Axis("a", Scale.STEPS, 0.5, 2.0, 0.5)),
        ("+a=x,y", Axis("+a", Scale.CHOICE, choices=("x", "y"))),
        ("a=choice(1e-5,1e-4)", Axis("a", Scale.CHOICE, choices=("1e-05", "0.0001"))),
        ("a=[1,2],[3]", Axis("a", Scale.CHOICE, choices=("[1,2]", "[3]"))),
    ],
)
def test_axes(word: str, axis: Axis):
    assert parse(word) == axis


@pytest.mark.parametrize(
    ("word", "rule"),
    [
        ("a=interval(3,2)", "no values between"),
        ("a=tag(log,interval(0,1))", "cannot be logarithmic"),
        ("a=tag(wide,interval(0,1))", "tag wide"),
        ("a=range(3,3)", "has no values"),
        ("a=shuffle(x,y)", "shuffled"),
        ("a=shuffle(range(1,9))", "shuffled"),
        ("a=tag(log,choice(1,2))", "has a tag"),
        ("a=tag(log,range(1,9))", "has a tag"),
    ],
)
def test_what_is_no_axis(word: str, rule: str):
    problem = parse(word)
    assert isinstance(problem, ConfigProblem)
    assert problem.field == "a"
    assert rule in problem.rule


def test_words_set_what_was_chosen():
    assert Axis("a", Scale.REAL, 0.0, 1.0).word(1e-05) == "a=1e-05"
    assert Axis("a", Scale.STEPS, 2, 8, 1).word(3) == "a=3"
    assert Axis("+a", Scale.CHOICE, choices=("x", "y")).word("y") == "+a=y"


def test_ends_are_where_a_configuration_can_be_wrong():
    assert Axis("a", Scale.REAL, 0.0, 1.5).ends == ("a=0.0", "a=1.5")
    assert Axis("a", Scale.STEPS, 3, 3, 1).ends == ("a=3",)
    assert Axis("a", Scale.CHOICE, choices=("x", "y", "z")).ends == ("a=x", "a=y", "a=z")


@pytest.mark.parametrize(
    ("axis", "value", "placed"),
    [
        (Axis("a", Scale.REAL, 0.0, 1.0), 1, 1.0),
        (Axis("a", Scale.REAL, 0.0, 1.0), 1.1, None),
        (Axis("a", Scale.REAL, 0.0, 1.0), True, None),
        (Axis("a", Scale.REAL, 0.0, 1.0), None, None),
        (Axis("a", Scale.STEPS, 16, 64, 16), 48, 48),
        (Axis("a", Scale.STEPS, 16, 64, 16), 40, None),
        (Axis("a", Scale.STEPS, 0.5, 2.0, 0.5), 1.5, 1.5),
        (Axis("a", Scale.CHOICE, choices=("true", "null", "1e-05", "'x y'")), True, "true"),
        (Axis("a", Scale.CHOICE, choices=("true", "null")), None, "null"),
        (Axis("a", Scale.CHOICE, choices=("1e-05",)), 1e-5, "1e-05"),
        (Axis("a", Scale.CHOICE, choices=("'x y'",)), "x y", "'x y'"),
        (Axis("a", Scale.CHOICE, choices=("b",)), "c", None),
    ],
)
def test_places_of_values(axis: Axis, value: object, placed: object):
    assert axis.place(value) == placed
    assert type(axis.place(value)) is type(placed)


@pytest.mark.parametrize(
    ("word", "value", "placed"),
    [("a=true,false", False, "False"), ("a=null,3", None, "null"), ("a=1e-5,1", 1e-5, "1e-05")],
)
def test_a_value_is_found_among_the_choices_as_hydra_spells_them(word: str, value: object, placed: str):
    axis = parse(word)
    assert isinstance(axis, Axis)
    assert axis.place(value) == placed


def test_defaults_are_all_axes_or_none():
    axes = [Axis("a", Scale.REAL, 0.0, 1.0), Axis("+b", Scale.CHOICE, choices=("x", "y"))]
    assert defaults(axes, {"a": 0.5, "b": "y", "c": 3}) == {"a": 0.5, "+b": "y"}
    assert defaults(axes, {"a": 2.0, "b": "y"}) is None
    assert defaults(axes, {"a": 0.5}) is None
