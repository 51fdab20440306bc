"""What the fields of the label page hold, how they become an answer, and an answer fields again."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from rlhf.labels.collection.verdicts import Answer, Side, Verdict
from rlhf.labels.storable import check_storable
from sft.core.errors import DataError

LONGEST_TEXT = 10_000
"""Of what a person writes into one field, in characters."""
ATTRIBUTE = "attribute:"
"""What the name of an attribute's field begins with."""
SKIPS = ("I cannot judge this", "I would rather not read this", "The task makes no sense", "The language is not mine")
FLAGS = ("Unsafe or harmful", "Private data of a person", "Broken or cut off", "Something else")


class Option(NamedTuple):
    """One of the verdicts as the page offers it."""

    verdict: Verdict
    key: str
    side: Side
    words: str
    """What stands after the side's name."""


OPTIONS = (
    Option(Verdict.LEFT_CLEARLY, "1", Side.LEFT, "clearly better"),
    Option(Verdict.LEFT_SLIGHTLY, "2", Side.LEFT, "slightly better"),
    Option(Verdict.TIE, "3", Side.EQUAL, "Equally good"),
    Option(Verdict.RIGHT_SLIGHTLY, "4", Side.RIGHT, "slightly better"),
    Option(Verdict.RIGHT_CLEARLY, "5", Side.RIGHT, "clearly better"),
    Option(Verdict.BOTH_BAD, "0", Side.EQUAL, "Both bad"),
)


@dataclass(frozen=True)
class Fields:
    """The fields of one page, as its form sends them; empty: not chosen."""

    verdict: str = ""
    attributes: Mapping[str, str] = field(default_factory=dict)
    reason: str = ""
    skip: str | None = None
    """Of a skipped task one of SKIPS, or empty where only `reason` says why; None: not skipped."""
    flag: str = ""
    """One of FLAGS."""
    flag_note: str = ""
    guideline_version: int = 0
    revision: int = 0


def sent(form: Mapping[str, object]) -> Fields:
    """Return the fields of a form. Raises DataError where a hidden number of the page is not one."""

    def text(name: str) -> str:
        value = form.get(name, "")
        return value.replace("\r\n", "\n").strip() if isinstance(value, str) else ""

    chosen = {name.removeprefix(ATTRIBUTE): text(name) for name in form if name.startswith(ATTRIBUTE)}
    return Fields(
        verdict=text("verdict"),
        attributes={name: value for name, value in chosen.items() if value},
        reason=text("reason"),
        skip=text("skip") if "skip" in form else None,
        flag=text("flag"),
        flag_note=text("flag_note"),
        guideline_version=_number(text("guideline_version")),
        revision=_number(text("revision")),
    )


def answer(fields: Fields) -> Answer:
    """Return what was chosen. Raises DataError, with what to do next, where that is nothing or cannot be stored."""
    for written in (fields.reason, fields.flag_note, fields.flag, fields.skip or ""):
        _check(written)
    flag = _joined(fields.flag or (fields.flag_note and FLAGS[-1]), fields.flag_note)
    if fields.skip is not None:
        reason = _joined(fields.skip, fields.reason)
        if not reason:
            raise DataError("Please choose why you skip this task, or write it into the field for your reason.")
        return Answer(None, reason=reason, flag=flag, guideline_version=fields.guideline_version)
    if not fields.verdict:
        raise DataError("Nothing is chosen yet: say which answer is better, or skip the task.")
    try:
        verdict = Verdict(fields.verdict)
        attributes = {name: Side(value) for name, value in fields.attributes.items()}
    except ValueError as error:
        raise DataError(f"This page does not know what was chosen ({error}); please choose again.") from error
    return Answer(verdict, attributes, fields.reason, flag, fields.guideline_version)


def fields_of(given: Answer | None, revision: int, guideline_version: int) -> Fields:
    """Return the fields of a page that shows an answer again; None: nothing is chosen."""
    page = Fields(revision=revision, guideline_version=guideline_version)
    if given is None:
        return page
    flag, flag_note = _parted(given.flag, FLAGS, FLAGS[-1])
    page = replace(page, flag=flag, flag_note=flag_note)
    if given.verdict is None:
        skip, reason = _parted(given.reason, SKIPS, "")
        return replace(page, skip=skip, reason=reason)
    attributes = {name: side.value for name, side in given.attributes.items()}
    return replace(page, verdict=given.verdict.value, attributes=attributes, reason=given.reason)


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise DataError(f"The form was sent without its number ({text!r}); go back, reload the page and send it again.")
    return int(text)


def _check(written: str) -> None:
    if len(written) > LONGEST_TEXT:
        raise DataError(f"A text has {len(written)} characters, the field holds {LONGEST_TEXT}; please shorten it.")
    check_storable(written)


def _joined(choice: str, note: str) -> str:
    return ": ".join(filter(None, (choice, note)))


def _parted(stored: str, choices: tuple[str, ...], otherwise: str) -> tuple[str, str]:
    """Undo `_joined`; a text that begins with none of the choices is all note."""
    choice, _, note = stored.partition(": ")
    if choice in choices:
        return choice, note
    return (otherwise, stored) if stored else ("", "")
