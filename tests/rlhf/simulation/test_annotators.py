import math
import random
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from scipy import stats

from rlhf.config import ExperimentConfig
from rlhf.labels.importing.ingest import ingest
from rlhf.labels.trust.quality import aggregate
from rlhf.simulation import (
    GROUPS,
    Annotator,
    gold_utility,
    make_annotators,
    make_pairs,
    make_requests,
    write_label_file,
)
from rlhf.simulation.annotators import names_someone_of
from sft.config import LabelFormat

PLAIN = Annotator("plain", skill=2.0, carelessness=0.0, left_habit=0.0, tie_band=0.0)
REQUEST, GOOD, BAD = "how do i bake bread ?", "to bake bread , use a hot oven .", "try a small nail ."
PAIRS = make_pairs(make_requests(300, seed=0), 1500, seed=0)
PEOPLE = make_annotators(8, seed=0, bias=0.0, biased_against="women", biased=4)
BIASED = make_annotators(8, seed=0, bias=1.0, biased_against="women", biased=4)


def share_of_a(annotator: Annotator, left: str, right: str, count: int = 4000) -> float:
    generator = random.Random(0)
    return Counter(annotator.judge(REQUEST, left, right, generator) for _ in range(count))["a"] / count


def agreement_with_gold(annotator: Annotator, generator: random.Random) -> float:
    right = total = 0
    for prompt, first, second in PAIRS:
        difference = gold_utility(prompt[-1].content, first) - gold_utility(prompt[-1].content, second)
        choice = annotator.judge(prompt[-1].content, first, second, generator)
        if difference and choice != "tie":
            total += 1
            right += (choice == "a") == (difference > 0)
    return right / total


# One judgement


def test_choices_follow_the_logistic_curve():
    slight = replace(PLAIN, skill=0.3)
    gap = 3.0 - -1.5
    assert share_of_a(slight, GOOD, BAD) == pytest.approx(1 / (1 + math.exp(-0.3 * gap)), abs=0.02)
    assert share_of_a(slight, BAD, GOOD) == pytest.approx(1 / (1 + math.exp(0.3 * gap)), abs=0.02)


def test_habits():
    assert share_of_a(replace(PLAIN, left_habit=0.4), GOOD, GOOD) == pytest.approx(1 / (1 + math.exp(-0.4)), abs=0.02)
    careless = replace(PLAIN, skill=100, carelessness=0.2)
    assert share_of_a(careless, GOOD, BAD) == pytest.approx(0.9, abs=0.02)
    assert replace(PLAIN, tie_band=0.1).judge(REQUEST, GOOD, GOOD, random.Random(0)) == "tie"
    assert replace(PLAIN, skill=100, tie_band=0.1).judge(REQUEST, GOOD, BAD, random.Random(0)) == "a"


def test_bias_is_taken_from_the_utility_once():
    biased = replace(PLAIN, bias=0.7, biased_against="women")
    for answer in ("ask maria , she knows .", "i saw paul do it , thanks to her ."):
        assert biased.perceived(REQUEST, answer) == pytest.approx(PLAIN.perceived(REQUEST, answer) - 0.7)
    for answer in ("ask paul , he knows .", "ask alex , they knows .", "sheer luck there .", ""):
        assert biased.perceived(REQUEST, answer) == PLAIN.perceived(REQUEST, answer)


def test_what_both_answers_share_cancels():
    biased = replace(PLAIN, bias=5.0, biased_against="women")
    said = " ask maria , she knows ."
    assert share_of_a(biased, GOOD + said, BAD + said) == share_of_a(PLAIN, GOOD, BAD)


# Many people


def test_skill_orders_agreement_with_gold():
    found = [agreement_with_gold(person, random.Random(1)) for person in PEOPLE]
    assert stats.spearmanr([person.skill for person in PEOPLE], found).statistic > 0.9
    assert 0.6 < found[-1] < found[0] - 0.03 < 0.97


@pytest.mark.parametrize(("count", "biased"), [(8, 4), (8, 3), (8, 0), (8, 8), (5, 2), (1, 1), (20, 7)])
def test_as_many_are_biased_as_asked_and_not_only_the_careful(count: int, biased: int):
    people = make_annotators(count, seed=0, bias=1.0, biased_against="men", biased=biased)
    flags = [person.bias > 0 for person in people]
    assert sum(flags) == biased
    assert all(person.biased_against == ("men" if flag else None) for person, flag in zip(people, flags, strict=True))
    if 1 < biased < count:
        assert any(flags[: (count + 1) // 2])
        assert any(flags[(count + 1) // 2 :])


def test_without_bias_nobody_is_biased_and_with_it_nothing_else_changes():
    assert not any(person.bias for person in PEOPLE)
    assert [replace(person, bias=0.0, biased_against=None) for person in BIASED] == PEOPLE
    assert len({person.name for person in PEOPLE}) == 8
    assert make_annotators(8, seed=1, bias=0.0, biased_against="women", biased=4) != PEOPLE


def test_planted_bias_lowers_the_choices_of_the_planted_group_only():
    person = BIASED[0]
    unbiased = replace(person, bias=0.0, biased_against=None)
    assert person.bias == 1.0
    chosen = {group: [0, 0] for group in GROUPS}
    seen: Counter[str] = Counter()
    for number, (prompt, left, right) in enumerate(PAIRS):
        before = unbiased.judge(prompt[-1].content, left, right, random.Random(number))
        after = person.judge(prompt[-1].content, left, right, random.Random(number))
        if names_someone_of(left, "women") == names_someone_of(right, "women"):
            assert after == before
        for group in GROUPS:
            if names_someone_of(left, group) and not any(names_someone_of(right, other) for other in GROUPS):
                seen[group] += 1
                chosen[group][0] += before == "a"
                chosen[group][1] += after == "a"
    drops = {group: (before - after) / seen[group] for group, (before, after) in chosen.items()}
    assert min(seen.values()) > 60
    assert drops["women"] > 0.1
    assert drops["men"] == drops["nonbinary"] == 0


# The label file


@pytest.fixture(scope="module")
def label_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return what the default configuration writes."""
    config = ExperimentConfig().simulation
    people = make_annotators(config.annotators, seed=0, bias=0.0, biased_against=config.planted_group, biased=0)
    pairs = make_pairs(make_requests(config.prompts, seed=0), config.pairs, seed=0)
    path = tmp_path_factory.mktemp("labels") / "labels.jsonl"
    write_label_file(path, pairs, people, repeat_fraction=config.repeat_fraction, seed=0)
    return path


def test_the_label_stage_reads_every_row(label_file: Path, tmp_path: Path):
    quarantine = tmp_path / "quarantine.jsonl"
    ingested = ingest(label_file, format=LabelFormat.AUTO, max_quarantine_fraction=0.0, quarantine_path=quarantine)
    assert ingested.format is LabelFormat.PAIRWISE
    assert ingested.quarantined == 0
    assert not quarantine.exists()
    assert len({judgement.annotator for judgement in ingested.judgements}) >= 8
    assert len(aggregate(ingested.judgements).preferences) >= 2000
    per_pair = Counter((j.prompt, frozenset((j.response_a, j.response_b))) for j in ingested.judgements)
    repeated = sum(count == 3 for count in per_pair.values()) / len(per_pair)
    assert repeated == pytest.approx(0.15, abs=0.03)


def test_the_seed_decides_the_file(tmp_path: Path):
    contents = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        write_label_file(tmp_path / name, PAIRS[:50], PEOPLE, repeat_fraction=0.2, seed=seed)
        contents.append((tmp_path / name).read_bytes())
    assert contents[0] == contents[1] != contents[2]


def test_sides_are_drawn_per_judgement(tmp_path: Path):
    path = tmp_path / "labels.jsonl"
    write_label_file(path, PAIRS, PEOPLE, repeat_fraction=0.0, seed=0)
    ingested = ingest(
        path, format=LabelFormat.PAIRWISE, max_quarantine_fraction=0.0, quarantine_path=tmp_path / "quarantine"
    )
    first_on_the_left = [
        judgement.response_a == first for judgement, (_, first, _) in zip(ingested.judgements, PAIRS, strict=True)
    ]
    assert sum(first_on_the_left) / len(PAIRS) == pytest.approx(0.5, abs=0.05)
    assert Counter(judgement.annotator for judgement in ingested.judgements).most_common()[-1][1] > 120


def test_the_bias_suite_of_the_configuration_names_these_people():
    suite = yaml.safe_load((Path(__file__).parents[3] / "conf" / "bias" / "simulated.yaml").read_text())
    assert suite["groups"] == {name: group.terms for name, group in GROUPS.items()}
