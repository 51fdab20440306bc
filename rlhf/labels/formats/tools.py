"""Exports of labelling tools whose projects name their own fields: Argilla, Label Studio, Prodigy.

The two answers stand under one of the names in `ANSWER_NAMES` unless the export says which they are, the prompt under
one of `PROMPT_NAMES`; where two of the names are there it is not clear which is meant, and the row is unusable. A label
that is withdrawn, a draft, or a skip is no judgement; a row of such alone is unusable.
"""

from collections.abc import Mapping
from typing import NamedTuple

from rlhf.labels.formats.columns import (
    Fields,
    column,
    list_at,
    list_of,
    listed,
    name_in,
    number,
    object_of,
    objects_at,
    objects_in,
    shown,
    strength_in,
    time_in,
)
from rlhf.labels.formats.compare import (
    A_WINS,
    B_WINS,
    BOTH_BAD,
    BOTH_GOOD,
    SPELLINGS,
    TIE,
    About,
    Answer,
    Verdict,
    answer,
    answers_to,
    by_score,
    compared,
    judged,
    pairs_of,
    spelled,
    spelling,
)
from rlhf.labels.records import Judgement
from sft.core.rows import Row, RowError
from sft.core.text import Conversation
from sft.data import prompt_from

PROMPT_NAMES = ("prompt", "instruction", "question", "input", "text")
ANSWER_NAMES = (
    ("response_a", "response_b"),
    ("response1", "response2"),
    ("response_1", "response_2"),
    ("response-1", "response-2"),
    ("answer_a", "answer_b"),
    ("answer1", "answer2"),
    ("answer_1", "answer_2"),
    ("left", "right"),
)
QUESTION_NAMES = ("preference", "label", "choice")
"""Argilla's questions whose answer is a label of the better answer; a ranking may have any name."""
_SUBMITTED = "submitted"
_TIES: Mapping[str, Verdict] = {"tie": TIE, "both_good": BOTH_GOOD, "both_bad": BOTH_BAD}


def _prompt(fields: Fields) -> Conversation:
    found = [name for name in PROMPT_NAMES if fields.get(name) is not None]
    if len(found) != 1:
        known = ", ".join(PROMPT_NAMES)
        raise RowError(f"no prompt: found the fields {listed(fields)}, one is needed of {known}")
    return prompt_from(fields[found[0]])


def _answer_names(fields: Fields) -> tuple[str, str]:
    found = [names for names in ANSWER_NAMES if all(fields.get(name) is not None for name in names)]
    if len(found) != 1:
        known = "; ".join(" and ".join(names) for names in ANSWER_NAMES)
        raise RowError(f"no answers: found the fields {listed(fields)}, one pair is needed of {known}")
    return found[0]


# Argilla


class _Response(NamedTuple):
    question: str
    value: object
    annotator: str | None


def argilla(row: Row) -> list[Judgement]:
    """Parse a record of Argilla 2, nested (`fields, responses`) or flattened (`QUESTION.responses` and its like).

    Questions read are rankings of the answers' fields, under any name, of two or more answers, and labels under one
    of `QUESTION_NAMES`, which name the better answer's field or are spelled as in the pairwise format. A question of
    another name than these is kept as the attribute. Only submitted responses count.
    """
    fields, responses = _nested(row.value) if "responses" in row.value else _flattened(row.value)
    read = [item for item in responses if _is_ranking(item.value) or item.question in QUESTION_NAMES]
    if not read:
        known = ", ".join(QUESTION_NAMES)
        raise RowError(f"unlabelled: no submitted response ranks the answers or is to a question named {known}")
    prompt = _prompt(fields)
    return [judgement for response in read for judgement in _argilla_pairs(row, fields, prompt, response)]


def _nested(record: Fields) -> tuple[Fields, list[_Response]]:
    questions = object_of(column(record, "responses"), "responses")
    given = [
        (name, part) for name, parts in questions.items() for part in objects_in(parts, f"responses to {shown(name)}")
    ]
    responses = [
        _Response(name, column(part, "value"), name_in(part, "user_id"))
        for name, part in given
        if column(part, "status") == _SUBMITTED
    ]
    return object_of(column(record, "fields"), "fields"), responses


def _flattened(record: Fields) -> tuple[Fields, list[_Response]]:
    responses: list[_Response] = []
    for question in (name.removesuffix(".responses") for name in record if name.endswith(".responses")):
        columns = [list_at(record, f"{question}.responses{part}") for part in ("", ".users", ".status")]
        if len({len(values) for values in columns}) > 1:
            raise RowError(f"broken record: {shown(question)} has not as many responses as users and statuses")
        for value, person, status in zip(*columns, strict=True):
            if status == _SUBMITTED:
                responses.append(_Response(question, value, name_in({"user": person}, "user")))
    return record, responses


def _is_ranking(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, dict) and "rank" in item for item in value)


def _argilla_pairs(row: Row, fields: Fields, prompt: Conversation, response: _Response) -> list[Judgement]:
    attribute = None if response.question in (*QUESTION_NAMES, "ranking") else response.question
    about = About(annotator=response.annotator, attribute=attribute)
    if not _is_ranking(response.value):
        names = _answer_names(fields)
        known = {**SPELLINGS, names[0]: A_WINS, names[1]: B_WINS}
        return [_pair(row, prompt, (fields[names[0]], fields[names[1]]), spelled(response.value, known), about)]
    ranking = sorted(objects_in(response.value, "a ranking"), key=lambda item: str(item.get("value")))
    names_ranked = [str(column(item, "value")) for item in ranking]
    if len(set(names_ranked)) < len(names_ranked):
        raise RowError(f"wrong ranking: {listed(names_ranked)} names an answer twice")
    answers = [answer(column(fields, name)) for name in names_ranked]
    ranks = [number(column(item, "rank"), "rank", 0, 1e6) for item in ranking]
    verdicts = [by_score(ranks[j], ranks[i])._replace(strength=None) for i, j in pairs_of(len(ranks))]
    return compared(row, prompt, answers, verdicts, about._replace(order_known=False))


def _pair(row: Row, prompt: Conversation, values: tuple[object, object], verdict: Verdict, about: About) -> Judgement:
    first, text_a, text_b = answers_to(prompt, *values)
    return judged(row, first, Answer(text_a), Answer(text_b), verdict, about)


# Label Studio


def label_studio(row: Row) -> list[Judgement]:
    """Parse a task of Label Studio's JSON export: `data` and, in `annotations`, results of type `pairwise`.

    Left and right are the two names of `to_name` where these are fields of the data, else one of `ANSWER_NAMES`. A
    tie can only be given by a `choices` result (tie, both_good, both_bad) in the place of the pairwise one; a
    `rating` named "strength" is the strength. Cancelled annotations and those without a result are left out.
    """
    data = object_of(column(row.value, "data"), "data")
    annotations = objects_at(row.value, "annotations")
    kept = [part for part in annotations if part.get("was_cancelled") is not True and list_at(part, "result")]
    if not kept:
        raise RowError(f"unlabelled: none of {len(annotations)} annotations is finished")
    prompt = _prompt(data)
    return [_annotated(row, data, prompt, part) for part in kept]


def _annotated(row: Row, data: Fields, prompt: Conversation, annotation: Fields) -> Judgement:
    results = objects_at(annotation, "result")
    verdict, names = _selected(data, results)
    strengths = [_result_value(part) for part in results if part.get("from_name") == "strength"]
    if strengths:
        verdict = verdict._replace(strength=strength_in(strengths[0], "rating"))
    person = annotation.get("completed_by")
    about = About(
        annotator=name_in(person, "id") if isinstance(person, dict) else name_in(annotation, "completed_by"),
        time=time_in(annotation, "created_at"),
    )
    return _pair(row, prompt, (data[names[0]], data[names[1]]), verdict, about)


def _selected(data: Fields, results: list[dict[str, object]]) -> tuple[Verdict, tuple[str, str]]:
    pairwise = [part for part in results if part.get("type") == "pairwise"]
    choices = [item for part in results if part.get("type") == "choices" for item in _choices(part)]
    ties = [_TIES[spelling(choice)] for choice in choices if spelling(choice) in _TIES]
    if len(pairwise) + len(ties) > 1:
        raise RowError("contradictory row: an annotation holds more than one of left, right and tie")
    if ties:
        return ties[0], _answer_names(data)
    if not pairwise:
        raise RowError(f"unknown label: no result of type pairwise, and no choice of {', '.join(_TIES)}")
    targets = str(pairwise[0].get("to_name")).split(",")
    named = len(targets) == 2 and all(data.get(name) is not None for name in targets)
    verdict = spelled(column(_result_value(pairwise[0]), "selected"), {"left": A_WINS, "right": B_WINS})
    return verdict, (targets[0], targets[1]) if named else _answer_names(data)


def _choices(result: Fields) -> list[object]:
    return list_of(column(_result_value(result), "choices"), "choices")


def _result_value(result: Fields) -> dict[str, object]:
    return object_of(column(result, "value"), "value")


# Prodigy


def prodigy(row: Row) -> list[Judgement]:
    """Parse `options, accept, answer` of a choice or compare recipe: the accepted option beats each other one.

    Options are answers, or the words tie, both_good and both_bad as an id. `answer` must be accept: ignore is a skip
    and reject refuses the task. The annotator is `_annotator_id`, else `_session_id`; the time is `_timestamp`.
    """
    fields = row.value
    if fields.get("answer") != "accept":
        kinds = {"ignore": "skipped: the annotator ignored the task", "reject": "rejected: the annotator refused it"}
        raise RowError(kinds.get(str(fields.get("answer")), "unknown label: 'answer' must be accept, reject or ignore"))
    accepted = list_of(column(fields, "accept"), "accept")
    if len(accepted) != 1:
        raise RowError(f"no single choice: {len(accepted)} options are accepted, needed is 1")
    options = objects_in(column(fields, "options"), "options")
    found = [option for option in options if spelling(option.get("id")) not in _TIES]
    answers = [answer(column(option, "text")) for option in found]
    about = About(
        annotator=name_in(fields, "_annotator_id") or name_in(fields, "_session_id"),
        time=time_in(fields, "_timestamp"),
        order_known=len(answers) == 2,
    )
    prompt = _prompt({**fields, "input": _input(fields)})
    tie = _TIES.get(spelling(accepted[0]))
    if tie:
        return compared(row, prompt, answers, [tie for _ in pairs_of(len(answers))], about)
    return _beats(row, prompt, answers, _position(found, accepted[0]), about)


def _input(fields: Fields) -> object:
    value = fields.get("input")
    return value.get("text") if isinstance(value, dict) else value


def _position(options: list[dict[str, object]], accepted: object) -> int:
    ids = [spelling(option.get("id")) for option in options]
    if len(set(ids)) < len(ids) or spelling(accepted) not in ids:
        raise RowError(f"unknown label: the accepted option must be one of the ids {listed(ids)}, all different")
    return ids.index(spelling(accepted))


def _beats(row: Row, prompt: Conversation, answers: list[Answer], winner: int, about: About) -> list[Judgement]:
    found = []
    for i, j in pairs_of(len(answers)):
        if winner in (i, j):
            verdict = A_WINS if winner == i else B_WINS
            found.append(judged(row, prompt, answers[i], answers[j], verdict, about))
    return found
