"""File formats of preferences: which one a file has, and one parser for each, row -> judgements.

A new format is a parser in one of these modules, its line in `PARSERS`, a clue in `detect.py`, and a name in
`LabelFormat`. A parser uses a row whole or not at all, unless its docstring says what it leaves out.
"""

from collections.abc import Callable

from rlhf.labels.formats import arena, helpsteer, pairs, published, several, tools, trees, unpaired
from rlhf.labels.formats.detect import detect, first_rows
from rlhf.labels.formats.joining import Items, join_pairs, join_prompts, rejected, rows_behind
from rlhf.labels.formats.pairs import ColumnMapping, check_spellings, label_spelling, mapped
from rlhf.labels.records import Judgement
from sft.config import LabelFormat
from sft.core.rows import Row

__all__ = [
    "JOINERS",
    "PARSERS",
    "ColumnMapping",
    "Joiner",
    "Parser",
    "check_spellings",
    "detect",
    "first_rows",
    "label_spelling",
    "mapped",
    "rejected",
    "rows_behind",
]

Parser = Callable[[Row], list[Judgement]]
Joiner = Callable[[Items], Items]

PARSERS: dict[LabelFormat, Parser] = {
    LabelFormat.HH: pairs.hh,
    LabelFormat.TRL: pairs.trl,
    LabelFormat.PAIRWISE: pairs.pairwise,
    LabelFormat.KTO: unpaired.kto,
    LabelFormat.SUMMARIES: published.summaries,
    LabelFormat.WEBGPT: published.webgpt,
    LabelFormat.ULTRAFEEDBACK: several.ultrafeedback,
    LabelFormat.ULTRAFEEDBACK_BINARIZED: pairs.ultrafeedback_binarized,
    LabelFormat.ARENA: arena.arena,
    LabelFormat.ARENA_VOTES: arena.arena_votes,
    LabelFormat.ARENA_ONEHOT: arena.arena_onehot,
    LabelFormat.MT_BENCH: arena.mt_bench,
    LabelFormat.HELPSTEER2: helpsteer.helpsteer2,
    LabelFormat.HELPSTEER2_PREFERENCE: helpsteer.helpsteer2_preference,
    LabelFormat.HELPSTEER3: helpsteer.helpsteer3,
    LabelFormat.SHP: published.shp,
    LabelFormat.ALPACA: published.alpaca,
    LabelFormat.PANDALM: published.pandalm,
    LabelFormat.QA_FEEDBACK: several.qa_feedback,
    LabelFormat.OASST: trees.oasst,
    LabelFormat.ARGILLA: tools.argilla,
    LabelFormat.LABEL_STUDIO: tools.label_studio,
    LabelFormat.PRODIGY: tools.prodigy,
}
"""Format -> parser: one judgement or more, or RowError for a row it cannot use."""

JOINERS: dict[LabelFormat, Joiner] = {
    LabelFormat.KTO: join_prompts,
    LabelFormat.HELPSTEER2: join_pairs,
}
"""Format -> what joins adjacent rows into the rows that its parser takes; other formats need nothing.

`rows_behind` says how many rows of the file a joined row stands for, `rejected` gives each of them to the quarantine.
"""
