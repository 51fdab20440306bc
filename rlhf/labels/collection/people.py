"""How each annotator works: right answers, agreement, habits, speed, constancy, and what an owner should look at.

Every rate has its interval (95 %, Wilson's) and n, and is None where nothing tells it. Limits are met by a whole
interval and a margin, so that with a dozen people chance alone seldom names one.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from statistics import median
from typing import NamedTuple

from rlhf.labels.collection.queue import Purpose
from rlhf.labels.collection.snapshot import Answered, Person, Snapshot
from rlhf.labels.collection.study import Study
from rlhf.labels.events import EventKind
from rlhf.labels.records import Judgement
from rlhf.labels.trust.quality import label_rates
from rlhf.labels.trust.report import SIDE_BIAS_LIMIT, agreement_with_others, shares_with_others
from rlhf.labels.trust.votes import Votes
from sft.core.statistics import Estimate, proportion

WORDS_PER_MINUTE = 700.0
"""Nobody reads faster and still understands: adults read 238 words of English a minute, the fastest readers about 400.
Source: Brysbaert 2019, "How many words do we read per minute?"; Rayner et al. 2016, "So Much to Read, So Little Time".
"""
CHARACTERS_PER_WORD = 6.0
"""With the space after it; in scripts without spaces a word has fewer, so that this asks for less time than is due."""
MARGIN = SIDE_BIAS_LIMIT
"""How far beyond its reference a whole interval must lie before somebody is named."""
FAST_SHARE = 0.1
"""Share of answers that may be faster than reading."""
SAME_AGAIN = 0.7
"""Least share of probes that are answered as the first time."""


class Standing(StrEnum):
    """Whether somebody may label now."""

    ACTIVE = "active"
    PAUSED = "paused"
    UNQUALIFIED = "unqualified"
    QUALIFYING = "qualifying"
    """Has qualification tasks left."""
    FILE = "file"
    """Known from an imported file alone: no account."""


class Concern(NamedTuple):
    """A number that an owner should look at."""

    number: str
    """Name of a field of `AnnotatorNumbers`."""
    text: str


@dataclass(frozen=True, kw_only=True)
class AnnotatorNumbers:
    """One annotator; labels that hold now, edits counted once."""

    id: int
    name: str
    standing: Standing
    why: str
    """Of a pause or a failed qualification."""
    labels: int
    skips: int
    flags: int
    gold: Estimate | None
    """Share of gold tasks answered rightly."""
    qualification: Estimate | None
    agreement: Estimate | None
    """Chance that another's label of the same pair is the same."""
    left: Estimate | None
    """Share of the left answer among labels that are no tie."""
    longer: Estimate | None
    tie: Estimate | None
    same_again: Estimate | None
    """Share of probes answered as the label of the same task, whose sides were the other way round."""
    median_seconds: float | None
    fast: Estimate | None
    """Share of answers given sooner than both answers can be read."""
    gold_drift: Estimate | None
    """Share right in the last half of the gold tasks minus the first half; n counts both."""
    agreement_drift: Estimate | None
    attention: tuple[Concern, ...]
    """One for each number that is out of the ordinary."""

    def as_dict(self) -> dict[str, object]:
        """Return the fields for JSON; an estimate is `{value, ci, n}` or None."""
        fields = {name: _json(value) for name, value in vars(self).items()}
        return {**fields, "standing": self.standing.value, "attention": dict(self.attention)}


def _json(value: object) -> object:
    return value.as_dict() if isinstance(value, Estimate) else value


def annotator_numbers(found: Snapshot, votes: Votes) -> tuple[AnnotatorNumbers, ...]:
    """Return everybody's numbers, those that need attention most first, then by name; `votes` are of the judgements."""
    shares = shares_with_others(votes)
    with_others = agreement_with_others(votes)
    middle = middle_agreement(votes)
    own: dict[int | None, list[Answered]] = {}
    for answer in found.answers:
        own.setdefault(answer.annotator_id, []).append(answer)
    given: dict[str | None, list[Judgement]] = {}
    for judgement in found.judgements:
        given.setdefault(judgement.annotator, []).append(judgement)
    numbers = [
        _numbers(
            found.study,
            person,
            own.get(person.id, []),
            given.get(person.name, []),
            with_others.get(person.name),
            middle,
            shares.get(person.name, []),
        )
        for person in found.people
    ]
    return tuple(sorted(numbers, key=lambda one: (-len(one.attention), one.name)))


def middle_agreement(votes: Votes) -> float | None:
    """Return the median of the annotators' agreement with the others, which few who work badly do not move much."""
    found = agreement_with_others(votes)
    return median(estimate.value for estimate in found.values()) if found else None


def is_fast(answer: Answered) -> bool:
    """Say whether an answer was given sooner than both answers of the task can be read; the prompt is not counted."""
    return answer.seconds is not None and answer.seconds < reading_seconds(answer.characters)


def reading_seconds(characters: int) -> float:
    """Return the least time in which a text of so many characters can be read."""
    return characters / CHARACTERS_PER_WORD / WORDS_PER_MINUTE * 60


def golds(answers: Sequence[Answered], purpose: Purpose = Purpose.GOLD) -> list[bool]:
    """Return which of somebody's tasks with a known answer were right, oldest first.

    A skipped qualification task is wrong, a skipped gold task does not count; as in `rlhf.labels.collection.queue`.
    """
    kinds = (EventKind.GOLD, EventKind.SKIP) if purpose is Purpose.QUALIFICATION else (EventKind.GOLD,)
    return [a.choice is a.known for a in answers if a.kind in kinds and a.purpose is purpose]


def who_may_label(found: Snapshot) -> frozenset[int]:
    """Return the annotators who can get tasks, or will when they pass the qualification that they have begun."""
    tests: dict[int | None, list[Answered]] = {}
    for answer in found.answers:
        if answer.purpose is Purpose.QUALIFICATION:
            tests.setdefault(answer.annotator_id, []).append(answer)
    able = (Standing.ACTIVE, Standing.QUALIFYING)

    def standing(person: Person) -> Standing:
        return _standing(found.study, person, golds(tests.get(person.id, []), Purpose.QUALIFICATION))[0]

    return frozenset(one.id for one in found.people if not one.is_disabled and standing(one) in able)


def same_again(answers: Sequence[Answered]) -> list[bool]:
    """Return which probes got the answer that the same person's label of the task has now; without one: left out."""
    labels = {a.task_id: a.choice for a in answers if a.kind is EventKind.LABEL}
    return [labels[a.task_id] is a.choice for a in answers if a.kind is EventKind.PROBE and a.task_id in labels]


def change(hits: Sequence[float]) -> Estimate | None:
    """Return the share of hits in the last half minus that in the first; None with fewer than two.

    Of an odd number the middle one is in the last half.
    """
    if len(hits) < 2:
        return None
    return difference(proportion(hits[len(hits) // 2 :]), proportion(hits[: len(hits) // 2]))


def difference(one: Estimate, other: Estimate) -> Estimate:
    """Return the first share minus the second, both with Wilson's intervals of independent items; n counts both.

    Source: Newcombe 1998, "Interval estimation for the difference between independent proportions", method 10.
    """
    value = one.value - other.value
    low = math.hypot(one.value - one.ci[0], other.ci[1] - other.value)
    high = math.hypot(one.ci[1] - one.value, other.value - other.ci[0])
    return Estimate(value, (value - low, value + high), one.n + other.n)


def _numbers(
    study: Study,
    person: Person,
    answers: list[Answered],
    judgements: list[Judgement],
    agreement: Estimate | None,
    middle: float | None,
    shares: list[float],
) -> AnnotatorNumbers:
    labels = [answer for answer in answers if answer.kind is EventKind.LABEL]
    timed = [answer for answer in answers if answer.choice is not None and answer.seconds is not None]
    rates = label_rates(judgements) if judgements else None
    right, tests, probes = golds(answers), golds(answers, Purpose.QUALIFICATION), same_again(answers)
    standing, why = _standing(study, person, tests)
    numbers = AnnotatorNumbers(
        id=person.id,
        name=person.name,
        standing=standing,
        why=why,
        labels=len(labels),
        skips=sum(answer.kind is EventKind.SKIP for answer in answers),
        flags=sum(answer.kind is EventKind.FLAG for answer in answers),
        gold=_share(right),
        qualification=_share(tests),
        agreement=agreement,
        left=rates.left if rates else None,
        longer=rates.longer if rates else None,
        tie=rates.tie if rates else None,
        same_again=_share(probes),
        median_seconds=median(answer.seconds or 0.0 for answer in timed) if timed else None,
        fast=_share([is_fast(answer) for answer in timed]),
        gold_drift=change([float(hit) for hit in right]),
        agreement_drift=change(shares),
        attention=(),
    )
    return replace(numbers, attention=tuple(_attention(study, numbers, middle)))


def _share(hits: Sequence[bool]) -> Estimate | None:
    return proportion([float(hit) for hit in hits]) if hits else None


def _standing(study: Study, person: Person, tests: list[bool]) -> tuple[Standing, str]:
    if not person.has_account:
        return Standing.FILE, ""
    if person.paused_reason is not None:
        return Standing.PAUSED, person.paused_reason
    if person.tests_left > 0:
        return Standing.QUALIFYING, f"{person.tests_left} qualification tasks left"
    if tests and sum(tests) / len(tests) < study.qualification_accuracy:
        return Standing.UNQUALIFIED, f"{sum(tests)} of {len(tests)} qualification tasks were right"
    return Standing.ACTIVE, ""


def _attention(study: Study, numbers: AnnotatorNumbers, middle: float | None) -> Iterator[Concern]:
    """Yield what is out of the ordinary."""
    if numbers.standing in (Standing.PAUSED, Standing.UNQUALIFIED):
        yield Concern("standing", f"{numbers.standing.value}: {numbers.why}")
    if _below(numbers.gold, study.qualification_accuracy):
        yield Concern(
            "gold", f"known answers right: {_said(numbers.gold)}, wanted {round(100 * study.qualification_accuracy)} %"
        )
    if middle is not None and _below(numbers.agreement, middle - MARGIN):
        yield Concern(
            "agreement",
            f"agrees with the others: {_said(numbers.agreement)}, the middle annotator {round(100 * middle)} %",
        )
    if _above(numbers.left, 0.5 + MARGIN):
        yield Concern("left", f"takes the left answer: {_said(numbers.left)}")
    if _below(numbers.left, 0.5 - MARGIN):
        yield Concern("left", f"seldom takes the left answer: {_said(numbers.left)}")
    if _below(numbers.same_again, SAME_AGAIN):
        yield Concern("same_again", f"same answer with the sides swapped: {_said(numbers.same_again)}")
    if _above(numbers.fast, FAST_SHARE):
        yield Concern("fast", f"faster than reading: {_said(numbers.fast)}")
    if _below(numbers.gold_drift, -MARGIN):
        yield Concern("gold_drift", f"known answers got worse: {_said(numbers.gold_drift, ' points')}")
    if _below(numbers.agreement_drift, -MARGIN):
        yield Concern("agreement_drift", f"agreement got worse: {_said(numbers.agreement_drift, ' points')}")


def _below(estimate: Estimate | None, limit: float) -> bool:
    return estimate is not None and estimate.ci[1] < limit


def _above(estimate: Estimate | None, limit: float) -> bool:
    return estimate is not None and estimate.ci[0] > limit


def _said(estimate: Estimate | None, unit: str = " %") -> str:
    assert estimate is not None
    value, low, high = (round(100 * part) for part in (estimate.value, *estimate.ci))
    return f"{value}{unit} [{low}, {high}], n = {estimate.n}".replace("-", "−")
