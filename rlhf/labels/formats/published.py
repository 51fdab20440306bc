"""Published comparisons of two answers, each with columns of its own: summaries, WebGPT, SHP, Alpaca, PandaLM."""

from rlhf.labels.formats.columns import Fields, column, name_in, number, number_in, object_of, objects_in
from rlhf.labels.formats.compare import (
    A_WINS,
    B_WINS,
    TIE,
    UNORDERED,
    About,
    Verdict,
    answer,
    asked,
    by_score,
    judged,
    spelled,
)
from rlhf.labels.records import Choice, Judgement
from sft.core.rows import Row, RowError
from sft.core.text import Conversation

_FIRST_OR_SECOND = {"0": A_WINS, "1": B_WINS}
_PANDALM = {"0": TIE, "1": A_WINS, "2": B_WINS}
_SHP = {"1": A_WINS, "0": B_WINS}
_DELETED = {"[deleted]", "[removed]"}
_MIDDLE_CONFIDENCE = 5


def summaries(row: Row) -> list[Judgement]:
    """Parse `info, summaries, choice` (0 or 1), `worker, split` and `extra.confidence`.

    Confidence runs from 1 (sure of the first) over 5 to 9 (sure of the second): its distance from 5 is the strength,
    and a row in which it contradicts the choice is unusable. Forum posts and news articles are both read.
    Source: Stiennon et al. 2020, arXiv 2009.01325, appendix.
    """
    fields = row.value
    found = objects_in(column(fields, "summaries"), "summaries")
    if len(found) != 2:
        raise RowError(f"wrong summaries: found {len(found)}, a comparison is of 2")
    a, b = (answer(column(summary, "text"), name_in(summary, "policy")) for summary in found)
    verdict = spelled(column(fields, "choice"), _FIRST_OR_SECOND)
    verdict = verdict._replace(strength=_confidence(fields, verdict))
    about = About(annotator=name_in(fields, "worker"), split=name_in(fields, "split"))
    return [judged(row, _source(object_of(column(fields, "info"), "info")), a, b, verdict, about)]


def _source(info: Fields) -> Conversation:
    if info.get("post") is None:
        return asked(column(info, "article"), "TL;DR:")
    lines = [(name.upper(), name_in(info, name)) for name in ("subreddit", "title")]
    heading = [f"{name}: {text}" for name, text in lines if text]
    return asked("\n\n".join([*heading, f"POST: {answer(info['post']).text}", "TL;DR:"]))


def _confidence(fields: Fields, verdict: Verdict) -> float | None:
    extra = {} if fields.get("extra") is None else object_of(fields["extra"], "extra")
    if extra.get("confidence") is None:
        return None
    lean = number(extra["confidence"], "confidence", 1, 9) - _MIDDLE_CONFIDENCE
    if lean and (lean > 0) is (verdict.choice is Choice.A):
        raise RowError("contradictory row: the confidence prefers the summary that was not chosen")
    return abs(lean)


def webgpt(row: Row) -> list[Judgement]:
    """Parse `question.full_text`, `answer_0, score_0, answer_1, score_1`; the scores are -1 to 1 and opposite.

    0 is a tie, the strength the size of the score. Answers keep their citations ([1]); the quotes, which differ from
    side to side, are no part of the prompt. Source: Nakano et al. 2021, arXiv 2112.09332.
    """
    fields = row.value
    prompt = asked(column(object_of(column(fields, "question"), "question"), "full_text"))
    a, b = (answer(column(fields, f"answer_{side}")) for side in "01")
    first, second = (number_in(fields, f"score_{side}", -1, 1) for side in "01")
    if abs(first + second) > 1e-6:
        raise RowError(f"contradictory row: score_0 is {first:g} and score_1 {second:g}, they must be opposite")
    return [judged(row, prompt, a, b, by_score(first, 0.0))]


def shp(row: Row) -> list[Judgement]:
    """Parse `history, human_ref_A, human_ref_B, labels` (1: A, 0: B), whose votes are `score_A, score_B`.

    The strength is `score_ratio`: its authors advise to train where it is 2 or more, and on at most 5 pairs of a
    post. Nobody saw the two side by side, so left and right are unknown. Reddit's entities (&amp; &lt; &gt;) are
    decoded; a deleted text makes the row unusable. Source: Ethayarajh et al. 2022, stanfordnlp/SHP.
    """
    fields = row.value
    prompt = asked(_reddit(fields, "history"))
    a, b = (answer(_reddit(fields, f"human_ref_{side}")) for side in "AB")
    verdict = spelled(column(fields, "labels"), _SHP)
    if fields.get("score_A") is not None and fields.get("score_B") is not None:
        votes = by_score(*(number(fields[f"score_{side}"], f"score_{side}", -1e9, 1e9) for side in "AB"))
        if votes.choice is not verdict.choice:
            raise RowError("contradictory row: the preferred comment has not the higher score")
    ratio = fields.get("score_ratio")
    strength = None if ratio is None else number(ratio, "score_ratio", 0, float("inf"))
    return [judged(row, prompt, a, b, verdict._replace(strength=strength), UNORDERED)]


def _reddit(fields: Fields, name: str) -> str:
    text = column(fields, name)
    if not isinstance(text, str):
        raise RowError(f"wrong type: {name!r} must be a text")
    if text.strip().lower() in _DELETED:
        raise RowError(f"deleted text: {name!r} is {text.strip()}")
    return text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")


def alpaca(row: Row) -> list[Judgement]:
    """Parse `instruction, input, output_1, output_2, preference`, `annotator, generator_1, generator_2`.

    The preference is 1 to 2, between them when it is soft: its distance from the tie 1.5, doubled, is the strength
    (1: certain). 0 is a tie as well. Nothing or NaN means that the annotator gave no usable reply: unusable.
    Source: Dubois et al. 2023, arXiv 2305.14387.
    """
    fields = row.value
    prompt = asked(column(fields, "instruction"), fields.get("input"))
    a, b = (answer(column(fields, f"output_{n}"), name_in(fields, f"generator_{n}")) for n in "12")
    return [judged(row, prompt, a, b, _soft(fields), About(annotator=name_in(fields, "annotator")))]


def _soft(fields: Fields) -> Verdict:
    preference = number_in(fields, "preference", 0, 2)
    if 0 < preference < 1:
        raise RowError(f"wrong preference: found {preference:g}, it must be 0 or a number from 1 to 2")
    return by_score(2 * (1.5 - (preference or 1.5)), 0.0)


def pandalm(row: Row) -> list[Judgement]:
    """Parse `instruction, input, response1, response2` and `annotator1` to `annotator3` (0 tie, 1, 2).

    Models stand in `cmp_key`, joined by an underscore; where there is not exactly one they are unknown. Answers that
    are no texts (JSON true) make the row unusable: what was written is lost. Source: Wang et al. 2023, arXiv
    2306.05087; its labels were filtered to high agreement before publication.
    """
    fields = row.value
    models = (name_in(fields, "cmp_key") or "").split("_")
    known = len(models) == 2 and all(models)
    a, b = (
        answer(column(fields, f"response{n}"), model if known else None)
        for n, model in zip("12", models if known else ("", ""), strict=True)
    )
    prompt = asked(column(fields, "instruction"), fields.get("input"))
    people = [f"annotator{n}" for n in "123"]
    verdicts = [spelled(column(fields, person), _PANDALM) for person in people]
    return [judged(row, prompt, a, b, v, About(annotator=p)) for v, p in zip(verdicts, people, strict=True)]
