"""Reading files of prompts with two or more answers, which are to be compared or whose choice is known."""

import random
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import NamedTuple

from rlhf.labels.collection.tasks import Pair
from rlhf.labels.formats.columns import Fields, column, first_of, is_absent, list_at, list_of, listed, name_in
from rlhf.labels.formats.compare import SPELLINGS, check_prompts, pairs_of, spelled
from sft.core.errors import DataError
from sft.core.rows import BadRow, Row, RowError, read_rows
from sft.core.text import Conversation
from sft.data import answered, prompt_from


class PairFile(NamedTuple):
    """What a file gave; `rows_in` = rows that gave pairs + bad rows."""

    pairs: list[Pair]
    rows_in: int
    bad: list[tuple[BadRow, bytes | None]]
    """Rows that were not used, with the sha256 of those that could be read."""


def read_pairs(path: Path, *, seed: int, pairs_per_prompt: int | None = None, needs_gold: bool = False) -> PairFile:
    """Read the pairs of a file.

    A row has `prompt` (text or messages; `messages` is another name) and `answers` (a list) or `response_a,
    response_b`; optionally `models` (a list as long) or `model_a, model_b`; with two answers optionally `gold`: a, b
    or tie. An answer without text is kept, so that `enqueue` counts it.

    Args:
        path: JSON lines, JSON array, CSV or TSV, plain or gzip.
        seed: of the draw where not all pairs are taken.
        pairs_per_prompt: of more than two answers, take this many pairs, drawn at random; None: all.
        needs_gold: whether a row without `gold` is a bad row.

    Raises:
        DataError: the file cannot be read, or no row of it can be used.
    """
    pairs: list[Pair] = []
    bad: list[tuple[BadRow, bytes | None]] = []
    rows_in = 0
    for item in read_rows(path):
        rows_in += 1
        if isinstance(item, BadRow):
            bad.append((item, None))
            continue
        try:
            found = list(_pairs(item, needs_gold))
        except RowError as error:
            bad.append((item.rejected(str(error)), bytes.fromhex(item.digest)))
            continue
        pairs += _drawn(found, pairs_per_prompt, random.Random(f"pairs-{seed}-{item.digest}"))
    if not pairs:
        shown = "; ".join(f"line {row.line}: {row.reason}" for row, _ in bad[:3])
        raise DataError(f"{path}: none of its {rows_in} rows gives a pair of answers; the first: {shown}; repair it")
    return PairFile(pairs, rows_in, bad)


def _drawn(pairs: list[Pair], wanted: int | None, generator: random.Random) -> list[Pair]:
    if wanted is None or len(pairs) <= wanted:
        return pairs
    return [pairs[i] for i in sorted(generator.sample(range(len(pairs)), wanted))]


def _pairs(row: Row, needs_gold: bool) -> Iterator[Pair]:
    fields = row.value
    prompt = prompt_from(first_of(fields, ("prompt", "messages")))
    answers, models = _answers(fields), _models(fields)
    places = list(pairs_of(len(answers)))
    if models and len(models) != len(answers):
        raise RowError(f"wrong models: found {len(models)} of them for {len(answers)} answers")
    prompts, texts = zip(*(_text(prompt, value) for value in answers), strict=True)
    for other in prompts[1:]:
        check_prompts(prompts[0], other)
    gold = None
    if needs_gold or not is_absent(fields.get("gold")):
        if len(answers) != 2:
            raise RowError(f"gold of several pairs: a known choice needs two answers, found {len(answers)}")
        gold = spelled(_known(fields), SPELLINGS).choice
    named = models or [None] * len(answers)
    for i, j in places:
        yield Pair(prompts[0], texts[i], texts[j], named[i], named[j], gold=gold)


def _known(fields: Fields) -> object:
    """Return the known choice that a row must have."""
    if is_absent(fields.get("gold")):
        meant = [name for name in fields if name != "gold" and _resembles_gold(name.strip().lower())]
        remedy = f"name {meant[0]!r} gold" if meant else "give the column gold to every row"
        raise RowError(f"missing column: 'gold', a, b or tie (found {listed(fields)}); {remedy}")
    return fields["gold"]


def _resembles_gold(name: str) -> bool:
    return "gold" in name or bool(get_close_matches("gold", [name]))


def _answers(fields: Fields) -> Sequence[object]:
    if fields.get("answers") is not None:
        return list_of(fields["answers"], "answers")
    return column(fields, "response_a"), column(fields, "response_b")


def _models(fields: Fields) -> list[str | None]:
    """Return what wrote the answers; empty where nothing is said."""
    if fields.get("models") is not None:
        return [name_in({"models": name}, "models") for name in list_at(fields, "models")]
    names = [name_in(fields, "model_a"), name_in(fields, "model_b")]
    return names if any(names) else []


def _text(prompt: Conversation, value: object) -> tuple[Conversation, str]:
    is_blank = isinstance(value, str) and not value.strip()
    return (prompt, "") if is_blank else answered(prompt, value)
