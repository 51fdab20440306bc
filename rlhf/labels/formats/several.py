"""Formats with several answers to one prompt in a row, each pair of which is a judgement."""

from collections.abc import Sequence

from rlhf.labels.formats.columns import Fields, column, list_at, list_of, name_in, number, object_of, objects_in
from rlhf.labels.formats.compare import (
    A_WINS,
    B_WINS,
    ORDERED,
    TIE,
    UNORDERED,
    Verdict,
    answer,
    asked,
    by_score,
    compared,
    pairs_of,
    spelled,
)
from rlhf.labels.records import Judgement
from sft.core.rows import Row, RowError
from sft.core.text import Conversation

ASPECTS = ("instruction_following", "honesty", "truthfulness", "helpfulness")
"""What each answer of UltraFeedback is rated on, 1 to 5."""
_QA_CHOICES = {"0": TIE, "1": A_WINS, "2": B_WINS}
_QA_ANSWERS = 4

Ratings = dict[str, float]


def ultrafeedback(row: Row) -> list[Judgement]:
    """Parse `instruction, completions`: of each pair the answer with the higher mean rating is better.

    The mean is over the four aspects, those left out that are "N/A" for either answer; its difference is the
    strength. `overall_score` is not read: it is known to hold 10 for some answers of the lowest quality. Fewer than
    two answers make a row unusable. Source: Cui et al. 2023, arXiv 2310.01377.
    """
    completions = objects_in(column(row.value, "completions"), "completions")
    answers = [answer(column(part, "response"), name_in(part, "model")) for part in completions]
    pairs = list(pairs_of(len(answers)))
    ratings = [_ratings(part) for part in completions]
    verdicts = [_rated(ratings[i], ratings[j]) for i, j in pairs]
    return compared(row, asked(column(row.value, "instruction")), answers, verdicts, UNORDERED)


def _ratings(completion: Fields) -> Ratings:
    annotations = object_of(column(completion, "annotations"), "annotations")
    found = {aspect: object_of(column(annotations, aspect), aspect).get("Rating") for aspect in ASPECTS}
    return {aspect: number(rating, "Rating", 1, 5) for aspect, rating in found.items() if rating != "N/A"}


def _rated(first: Ratings, second: Ratings) -> Verdict:
    both = [aspect for aspect in ASPECTS if aspect in first and aspect in second]
    if not both:
        raise RowError("no rating: two answers are rated on no common aspect")
    verdict = by_score(sum(first[aspect] for aspect in both), sum(second[aspect] for aspect in both))
    return verdict._replace(strength=(verdict.strength or 0.0) / len(both))


def qa_feedback(row: Row) -> list[Judgement]:
    """Parse `question, passages`, `prediction 1` to `prediction 4` and six preferences: 12, 13, 14, 23, 24, 34.

    0 is a tie. The prompt is the question and below it the passages that the answers must rest on.
    Source: Wu et al. 2023, arXiv 2306.01693.
    """
    fields = row.value
    answers = [answer(column(fields, f"prediction {n}")) for n in range(1, _QA_ANSWERS + 1)]
    labels = list_of(column(fields, "preference"), "preference")
    if len(labels) != len(list(pairs_of(_QA_ANSWERS))):
        raise RowError(f"wrong preference: found {len(labels)} labels, needed are 6: 12, 13, 14, 23, 24, 34")
    return compared(row, _grounded(fields), answers, [spelled(label, _QA_CHOICES) for label in labels], ORDERED)


def _grounded(fields: Fields) -> Conversation:
    passages = [list_of(passage, "a passage") for passage in list_at(fields, "passages")]
    return asked(column(fields, "question"), *(_passage(passage) for passage in passages))


def _passage(sentences: Sequence[object]) -> str:
    texts = [answer(sentence).text for sentence in sentences]
    return "\n".join([*texts[:1], " ".join(texts[1:])]).strip()
