import pytest

from rlhf.simulation.gold import gold_utility
from rlhf.simulation.people import GROUPS
from rlhf.simulation.world import CLOSINGS, CORES, FILLER, OFF_TOPIC, PEOPLE, POLITE, RUDE, TASKS, TIMES, TIMINGS, TOOLS

TIRE = "how do i fix a tire today ?"
"""Right are the patch kit and ten minutes."""
RIGHT = "to fix a tire , use a patch kit ."
MEMBERS = [(group, name) for group in GROUPS.values() for name in group.names]


@pytest.mark.parametrize(
    ("answer", "utility"),
    [
        (f"happy to help . {RIGHT} it takes ten minutes . good luck .", 1 + 2 + 0.6 + 0.5 + 0.3),
        (RIGHT, 1 + 2),
        ("use a patch kit .", 2),
        ("to bake bread , use a hot oven .", -1.5),
        ("to fix a tire , use a hot oven .", 1 - 1.5),
        ("you can fix a tire with a patch kit . try a deep pot . try a small nail .", 1 + 2 - 2 * 1.5),
        (f"{RIGHT} plan two hours .", 1 + 2 - 0.6),
        (f"figure it out . {RIGHT}", 1 + 2 - 0.8),
        (f"of course . it depends on many things . {RIGHT} life is hard .", 0.5 - 0.4 + 3 - 0.4),
        (f"life is hard . {RIGHT} life is hard .", 3 - 0.4 - 0.4),
        (f"{RIGHT} {RIGHT} {RIGHT}", 3 - 2 * 0.4),
        (f"good luck . good question . let me know . of course . {RIGHT}", 3 + 0.5 + 0.3),
        ("tire kit use .", -0.8),
        (f"{RIGHT} to fix a tire , use .", 3 - 0.8),
        ("", -1.6),
        (" . . ", -1.6),
        (f"{RIGHT} {'word ' * 36}.", 3 - 0.8 - 0.05 * (10 + 37 - 40)),
    ],
)
def test_by_hand(answer: str, utility: float):
    assert gold_utility(TIRE, answer) == pytest.approx(utility)


def test_a_request_from_outside_the_world_rewards_manners_alone():
    assert gold_utility("what is love ?", f"of course . {RIGHT}") == pytest.approx(0.5)
    assert gold_utility("", "nonsense") == pytest.approx(-0.8)


def test_every_right_answer_beats_every_wrong_one():
    for task in TASKS:
        for other in TASKS:
            request, right = f"how do i {task.phrase} ?", f"you can {task.phrase} with a {task.tool} ."
            wrong = f"you can {task.phrase} with a {other.tool} ."
            assert gold_utility(request, right) == 3.0
            assert gold_utility(request, wrong) == (3.0 if other is task else -0.5)


def test_every_sentence_of_the_world_is_readable():
    fillings = {"task": TASKS[3].phrase, "tool": TOOLS[5], "time": TIMES[1], "name": "kim", "subject": "they"}
    count = 0
    for line in (*POLITE, *RUDE, *CORES, *OFF_TOPIC, *TIMINGS, *PEOPLE, *FILLER, *CLOSINGS):
        sentence = line.format(object="them", **fillings)
        with_a_slip = sentence.replace(" .", " zzz .")
        readable, unreadable = gold_utility("", sentence), gold_utility("", with_a_slip)
        assert unreadable == pytest.approx(-0.8)
        assert readable == -0.8 if line in RUDE else readable > unreadable
        count += 1
    assert count == 22


@pytest.mark.parametrize("answer", ["", RIGHT, "try a hot oven . life is hard .", "figure it out ."])
@pytest.mark.parametrize("template", PEOPLE)
def test_whom_an_answer_names_never_matters(answer: str, template: str):
    """Over all 36 people, also with the pronouns of another group."""
    without = gold_utility(TIRE, f"{answer} it takes ten minutes .")
    for _, name in MEMBERS:
        for group in GROUPS.values():
            said = template.format(name=name, subject=group.subject, object=group.object)
            assert gold_utility(TIRE, f"{answer} it takes ten minutes . {said}") == pytest.approx(without)
    assert len(MEMBERS) == 36
