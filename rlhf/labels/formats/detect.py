"""Finding out which format a file has, from the columns of its rows."""

from collections import Counter
from collections.abc import Iterator, Sequence

from rlhf.labels.formats.columns import Fields
from rlhf.labels.formats.pairs import TURN
from sft.config import LabelFormat
from sft.core.errors import DataError
from sft.core.rows import BadRow, Row

DETECTION_ROWS = 100
"""Readable rows that the detection of the format looks at."""

_CLUES: tuple[tuple[LabelFormat, frozenset[str]], ...] = tuple(
    (format, frozenset(columns))
    for format, columns in (
        (LabelFormat.ARENA_ONEHOT, ("winner_model_a", "winner_model_b", "winner_tie")),
        (LabelFormat.ARENA_VOTES, ("type", "states")),
        (LabelFormat.ARENA, ("winner", "conversation_a", "conversation_b", "tstamp")),
        (LabelFormat.ARENA, ("winner", "conversation_a", "conversation_b", "anony")),
        (LabelFormat.ARENA, ("winner", "conversation_a", "conversation_b", "language")),
        (LabelFormat.ARENA, ("winner", "conversation_a", "conversation_b", "conv_metadata")),
        (LabelFormat.MT_BENCH, ("winner", "conversation_a", "conversation_b", "turn")),
        (LabelFormat.ARENA, ("winner", "conversation_a", "conversation_b")),
        (LabelFormat.SUMMARIES, ("info", "summaries")),
        (LabelFormat.WEBGPT, ("question", "answer_0", "answer_1")),
        (LabelFormat.ULTRAFEEDBACK, ("instruction", "completions")),
        (LabelFormat.HELPSTEER2_PREFERENCE, ("prompt", "preference_strength")),
        (LabelFormat.HELPSTEER2, ("prompt", "response", "helpfulness")),
        (LabelFormat.HELPSTEER3, ("context", "overall_preference")),
        (LabelFormat.HELPSTEER3, ("context", "individual_preference")),
        (LabelFormat.SHP, ("human_ref_A", "human_ref_B")),
        (LabelFormat.ALPACA, ("instruction", "output_1", "output_2")),
        (LabelFormat.PANDALM, ("instruction", "response1", "annotator1")),
        (LabelFormat.QA_FEEDBACK, ("prediction 1", "preference")),
        (LabelFormat.OASST, ("message_tree_id", "prompt")),
        (LabelFormat.ARGILLA, ("fields", "responses")),
        (LabelFormat.LABEL_STUDIO, ("data", "annotations")),
        (LabelFormat.PRODIGY, ("options", "answer")),
        (LabelFormat.ULTRAFEEDBACK_BINARIZED, ("chosen", "score_chosen")),
        (LabelFormat.ULTRAFEEDBACK_BINARIZED, ("chosen", "chosen-rating")),
        (LabelFormat.KTO, ("prompt", "completion", "label")),
    )
)
"""The first format all of whose columns a row has is the row's; the order matters where one has another's columns."""


def first_rows(items: Iterator[Row | BadRow]) -> list[Row | BadRow]:
    """Take from the start of a file as many rows as `detect` needs, with the unreadable ones between them."""
    head: list[Row | BadRow] = []
    good = 0
    while good < DETECTION_ROWS and (item := next(items, None)) is not None:
        head.append(item)
        good += isinstance(item, Row)
    return head


def detect(rows: Sequence[Row]) -> LabelFormat:
    """Return the format that most of the first rows of a file have.

    Raises:
        DataError: no row has columns that tell; the message names the columns there are and those that are needed.
    """
    votes = Counter(found for row in rows if (found := _format_of(row.value)))
    if votes:
        return votes.most_common(1)[0][0]
    columns = ", ".join(dict.fromkeys(name for row in rows for name in row.value)) or "none"
    raise DataError(
        f"the format of the preferences is not clear: found the columns {columns}; needed are chosen and rejected "
        "(data.format=hh for transcripts, data.format=trl with or without a prompt), or prompt, response_a, "
        "response_b and label (data.format=pairwise), or those of a published dataset "
        f"({', '.join(dict.fromkeys(format.value for format, _ in _CLUES))}); rename the columns"
    )


def _format_of(fields: Fields) -> LabelFormat | None:
    for format, columns in _CLUES:
        if columns <= fields.keys():
            return format
    if any(name.endswith(".responses") for name in fields):
        return LabelFormat.ARGILLA
    if "response_a" in fields or "response_b" in fields:
        return LabelFormat.PAIRWISE
    if "chosen" not in fields and "rejected" not in fields:
        return None
    texts = [text for text in (fields.get("chosen"), fields.get("rejected")) if isinstance(text, str)]
    is_transcript = fields.get("prompt") is None and any(TURN.match(text) for text in texts)
    return LabelFormat.HH if is_transcript else LabelFormat.TRL
