"""The shared core of all formats: a prompt, two or more answers, and a verdict spelled or scored in some way."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import NamedTuple

from rlhf.labels.formats.columns import number, shown
from rlhf.labels.records import Choice, Judgement, TieKind
from sft.core.rows import Row, RowError
from sft.core.text import Conversation, user
from sft.data import answered, text_from

MAX_ANSWERS = 32
"""More answers to one prompt make a row unusable: their pairs grow with the square."""


class Verdict(NamedTuple):
    """Which answer is better; `strength` 0 or more in the file's own unit."""

    choice: Choice
    strength: float | None = None
    tie_kind: TieKind | None = None


class Answer(NamedTuple):
    """An answer, and what wrote it."""

    text: str
    model: str | None = None


class About(NamedTuple):
    """What else a row says of a judgement; see `Judgement`."""

    annotator: str | None = None
    time: float | None = None
    attribute: str | None = None
    split: str | None = None
    order_known: bool = True


A_WINS, B_WINS, TIE = Verdict(Choice.A), Verdict(Choice.B), Verdict(Choice.TIE)
BOTH_GOOD = Verdict(Choice.TIE, tie_kind=TieKind.BOTH_GOOD)
BOTH_BAD = Verdict(Choice.TIE, tie_kind=TieKind.BOTH_BAD)
ORDERED, UNORDERED = About(), About(order_known=False)

SPELLINGS: Mapping[str, Verdict] = {
    **dict.fromkeys(["a", "1", "left"], A_WINS),
    **dict.fromkeys(["b", "2", "right"], B_WINS),
    **dict.fromkeys(["tie", "0"], TIE),
    "both_good": BOTH_GOOD,
    "both_bad": BOTH_BAD,
}
"""How files that people make themselves spell a label."""


def judged(row: Row, prompt: Conversation, a: Answer, b: Answer, verdict: Verdict, about: About = ORDERED) -> Judgement:
    """Return the judgement of one pair. Raises RowError when the answers are the same text."""
    check_differing(a.text, b.text)
    return Judgement(
        prompt=prompt,
        response_a=a.text,
        response_b=b.text,
        choice=verdict.choice,
        annotator=about.annotator,
        line=row.line,
        digest=row.digest,
        model_a=a.model,
        model_b=b.model,
        strength=verdict.strength,
        order_known=about.order_known,
        tie_kind=verdict.tie_kind,
        time=about.time,
        attribute=about.attribute,
        split=about.split,
    )


def check_differing(text_a: str, text_b: str) -> None:
    """Raise RowError when two answers are the same text."""
    if text_a == text_b:
        raise RowError("identical answers: nothing can be learned from choosing between equal texts")


def asked(*parts: object) -> Conversation:
    """Return a prompt of one user turn: a text, and further texts below it where they are not null or blank."""
    first, *rest = parts
    further = [part for part in rest if part is not None and not (isinstance(part, str) and not part.strip())]
    return user("\n\n".join(text_from(part, "prompt") for part in [first, *further]))


def answer(value: object, model: str | None = None) -> Answer:
    """Return a plain text as an answer. Raises RowError when it is empty or no text."""
    return Answer(text_from(value, "answer"), model)


def answers_to(prompt: Conversation, value_a: object, value_b: object) -> tuple[Conversation, str, str]:
    """Return prompt and answers of two completions (texts or messages), which must stand after the same turns."""
    (first, text_a), (second, text_b) = answered(prompt, value_a), answered(prompt, value_b)
    check_prompts(first, second)
    return first, text_a, text_b


def check_prompts(first: Conversation, second: Conversation) -> None:
    """Raise RowError unless two answers follow the same turns."""
    if first != second:
        raise RowError("prompts differ: the turns before the two answers are not the same")


def spelling(label: object) -> str:
    """Return a label as it is looked up: lower case without outer spaces; 1.0 is 1, true and false are words."""
    if type(label) is str and label in SPELLINGS:
        return label
    text = str(label).strip().lower() if isinstance(label, str | int | float) else ""
    return text[:-2] if text in ("0.0", "1.0", "2.0") else text


def spelled(label: object, known: Mapping[str, Verdict]) -> Verdict:
    """Return what a label says. Raises RowError that names the known spellings."""
    found = known.get(spelling(label))
    if found is None:
        raise RowError(f"unknown label: {shown(label)}, known are {', '.join(known)}")
    return found


def on_scale(value: object, name: str, limit: float) -> Verdict:
    """Return the verdict of a number from -limit (a is much better) over 0 (tie) to limit (b is much better)."""
    return by_score(-number(value, name, -limit, limit), 0.0)


def by_score(score_a: float, score_b: float) -> Verdict:
    """Return the verdict of two scores: the higher wins by their difference, equal ones tie."""
    if score_a == score_b:
        return Verdict(Choice.TIE, 0.0)
    return Verdict(Choice.A if score_a > score_b else Choice.B, abs(score_a - score_b))


def pairs_of(count: int) -> Iterator[tuple[int, int]]:
    """Return all pairs i < j of so many answers: 01, 02, ... 12, ... Raises RowError for too few or too many."""
    if not 2 <= count <= MAX_ANSWERS:
        raise RowError(f"no pair of answers: found {count} of them, needed are 2 to {MAX_ANSWERS}")
    return combinations(range(count), 2)


def compared(
    row: Row, prompt: Conversation, answers: Sequence[Answer], verdicts: Sequence[Verdict], about: About
) -> list[Judgement]:
    """Return the judgements of all pairs of several answers; the verdicts stand in the order of `pairs_of`."""
    pairs = zip(pairs_of(len(answers)), verdicts, strict=True)
    return [judged(row, prompt, answers[i], answers[j], verdict, about) for (i, j), verdict in pairs]
