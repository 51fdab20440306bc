"""One small row of every label format, and the same row with its two sides exchanged."""

import copy
import json
from collections.abc import Callable

from rlhf.labels.formats import JOINERS, PARSERS
from rlhf.labels.records import Judgement
from sft.config import LabelFormat
from sft.core.rows import BadRow, Row, RowError

F = LabelFormat
Fields = dict[str, object]


def talk(*turns: str) -> str:
    """Return a transcript as Anthropic writes it."""
    return "".join(f"\n\n{('Human', 'Assistant')[i % 2]}: {turn}" for i, turn in enumerate(turns))


def messages(*turns: str) -> list[dict[str, str]]:
    """Return turns as messages, the user's first."""
    return [{"role": ("user", "assistant")[i % 2], "content": turn} for i, turn in enumerate(turns)]


def rated(response: str, **rating: object) -> Fields:
    """Return a completion of UltraFeedback, rated 3 where nothing else is said."""
    ratings: Fields = {
        "instruction_following": "3",
        "honesty": "3",
        "truthfulness": "3",
        "helpfulness": "3",
        **rating,
    }
    annotations = {aspect: {"Rating": value, "Rationale": "so"} for aspect, value in ratings.items()}
    return {"model": f"m-{response}", "response": response, "annotations": annotations, "overall_score": 10}


def node(role: str, text: str, *replies: Fields, **more: object) -> Fields:
    """Return a message of an OpenAssistant tree."""
    return {"role": role, "text": text, "deleted": False, "review_result": True, "replies": list(replies), **more}


def reply(text: str, rank: object, *replies: Fields, **more: object) -> Fields:
    """Return a ranked reply of an OpenAssistant tree."""
    return node("assistant", text, *replies, rank=rank, model_name=f"m-{text}", **more)


def annotation(selected: str, **more: object) -> Fields:
    """Return an annotation of Label Studio."""
    value = {"from_name": "which", "to_name": "x,y", "type": "pairwise", "value": {"selected": selected}}
    return {"completed_by": 4, "was_cancelled": False, "result": [value], "created_at": "1970-01-01T00:00:07Z", **more}


def state(model: str, *turns: str) -> Fields:
    """Return what FastChat logs of one model."""
    said = [[("USER", "ASSISTANT")[i % 2], turn] for i, turn in enumerate(turns)]
    return {"model_name": model, "messages": said, "offset": 0}


ARENA: Fields = {
    "question_id": "q",
    "model_a": "ma",
    "model_b": "mb",
    "winner": "model_a",
    "judge": "jo",
    "conversation_a": messages("hi", "x"),
    "conversation_b": messages("hi", "y"),
    "turn": 1,
}
SHARED: Fields = {"prompt": "hi", "response_1": "x", "response_2": "y"}
RANKING = [{"value": "x", "rank": 1}, {"value": "y", "rank": 2}]

ROWS: dict[LabelFormat, list[Fields]] = {
    F.HH: [{"chosen": talk("hi", "x"), "rejected": talk("hi", "y")}],
    F.TRL: [{"prompt": "hi", "chosen": "x", "rejected": "y", "margin": 2}],
    F.PAIRWISE: [{"prompt": "hi", "response_a": "x", "response_b": "y", "label": "a", "annotator": "jo"}],
    F.KTO: [{"prompt": "hi", "completion": "x", "label": True}, {"prompt": "hi", "completion": "y", "label": False}],
    F.SUMMARIES: [
        {
            "info": {"id": "t3", "post": "long text", "title": "tt", "subreddit": "r/x"},
            "summaries": [{"text": " x", "policy": "ma", "note": None}, {"text": " y", "policy": "mb", "note": None}],
            "choice": 0,
            "worker": "jo",
            "batch": "b",
            "split": "train",
            "extra": {"confidence": 2},
        }
    ],
    F.WEBGPT: [
        {
            "question": {"dataset": "eli5", "id": "1", "full_text": "hi"},
            "quotes_0": {"title": [], "extract": []},
            "answer_0": "x [1]",
            "score_0": 0.5,
            "quotes_1": {"title": [], "extract": []},
            "answer_1": "y [1]",
            "score_1": -0.5,
        }
    ],
    F.ULTRAFEEDBACK: [{"instruction": "hi", "completions": [rated("x", honesty="5"), rated("y")]}],
    F.ULTRAFEEDBACK_BINARIZED: [
        {
            "prompt": "hi",
            "chosen": messages("hi", "x"),
            "rejected": messages("hi", "y"),
            "score_chosen": 8.5,
            "score_rejected": 8,
        }
    ],
    F.ARENA: [{**ARENA, "anony": True, "language": "English", "tstamp": 7.5}],
    F.ARENA_VOTES: [
        {
            "tstamp": 7.5,
            "type": "leftvote",
            "models": ["", ""],
            "states": [state("ma", "hi", "x"), state("mb", "hi", "y")],
            "ip": "192.0.2.1",
        }
    ],
    F.ARENA_ONEHOT: [
        {
            "model_a": "ma",
            "model_b": "mb",
            "prompt": '["hi"]',
            "response_a": '["x"]',
            "response_b": '["y"]',
            "winner_model_a": "1",
            "winner_model_b": "0",
            "winner_tie": "0",
        }
    ],
    F.MT_BENCH: [{**ARENA, "conversation_a": messages("hi", "x", "so", "later"), "turn": 1}],
    F.HELPSTEER2: [
        {"prompt": "hi", "response": "x", "helpfulness": 4, "verbosity": 0},
        {"prompt": "hi", "response": "y", "helpfulness": 1, "verbosity": 4},
    ],
    F.HELPSTEER2_PREFERENCE: [{**SHARED, "split": "train", "preference_strength": -2}],
    F.HELPSTEER3: [
        {
            "context": messages("hi"),
            "response1": "x",
            "response2": "y",
            "overall_preference": -1,
            "individual_preference": [{"score": -2, "reasoning": "r"}, {"score": -1}, {"score": 0}],
        }
    ],
    F.SHP: [
        {
            "history": "hi",
            "human_ref_A": "x &amp; x",
            "human_ref_B": "y",
            "labels": 1,
            "score_A": 9,
            "score_B": 3,
            "score_ratio": 3.0,
        }
    ],
    F.ALPACA: [
        {
            "instruction": "hi",
            "input": "there",
            "output_1": "x",
            "output_2": "y",
            "preference": 1,
            "annotator": "jo",
            "generator_1": "ma",
            "generator_2": "mb",
        }
    ],
    F.PANDALM: [
        {
            "idx": 0,
            "cmp_key": "ma_mb",
            "instruction": "hi",
            "input": "",
            "response1": "x",
            "response2": "y",
            "annotator1": 1,
            "annotator2": 0,
            "annotator3": 2,
        }
    ],
    F.QA_FEEDBACK: [
        {
            "question": "hi",
            "passages": [["title", "one.", "two."]],
            **{f"prediction {n}": text for n, text in enumerate("xyzw", 1)},
            "preference": [1, 2, 0, 1, 2, 0],
        }
    ],
    F.OASST: [
        {"message_tree_id": "t", "prompt": node("prompter", "hi", reply("y", 1), reply("x", 0), reply("z", None))}
    ],
    F.ARGILLA: [
        {
            "id": "1",
            "fields": {"prompt": "hi", "response1": "x", "response2": "y"},
            "responses": {"preference": [{"value": "response1", "user_id": "jo", "status": "submitted"}]},
        }
    ],
    F.LABEL_STUDIO: [
        {"id": 1, "data": {"prompt": "hi", "answer1": "x", "answer2": "y"}, "annotations": [annotation("left")]}
    ],
    F.PRODIGY: [
        {
            "text": "hi",
            "options": [{"id": "A", "text": "x"}, {"id": "B", "text": "y"}],
            "accept": ["A"],
            "answer": "accept",
            "_session_id": "jo",
            "_timestamp": 7,
        }
    ],
}
"""Format -> the row or the adjacent rows that make one."""


def parse_rows(format: LabelFormat, *rows: Fields) -> list[Judgement]:
    """Join and parse rows as they stand in a file; raises RowError for the first that cannot be used."""
    items = (Row(number, value, f"digest {number}") for number, value in enumerate(rows, 7))
    judgements = []
    for item in JOINERS[format](items) if format in JOINERS else items:
        if isinstance(item, BadRow):
            raise RowError(item.reason)
        judgements += PARSERS[format](item)
    return judgements


def changed(format: LabelFormat, **columns: object) -> list[Judgement]:
    """Parse the format's row with some columns changed."""
    [row] = ROWS[format]
    return parse_rows(format, {**row, **columns})


def _exchange(first: str, second: str, **values: object) -> Callable[[list[Fields]], None]:
    def exchange(rows: list[Fields]) -> None:
        row = rows[0]
        for name in [name for name in row if name.endswith(first)]:
            other = name.removesuffix(first) + second
            row[name], row[other] = row[other], row[name]
        row.update(values)

    return exchange


def _reverse_list(name: str, **values: object) -> Callable[[list[Fields]], None]:
    def exchange(rows: list[Fields]) -> None:
        found = rows[0][name]
        assert isinstance(found, list)
        found.reverse()
        rows[0].update(values)

    return exchange


def _onehot(rows: list[Fields]) -> None:
    _exchange("_a", "_b")(rows)


def _label_studio(rows: list[Fields]) -> None:
    rows[0]["data"] = {"prompt": "hi", "answer1": "y", "answer2": "x"}
    rows[0]["annotations"] = [annotation("right")]


def _argilla(rows: list[Fields]) -> None:
    rows[0].update(json.loads(json.dumps(rows[0]).replace('"x"', '"?"').replace('"y"', '"x"').replace('"?"', '"y"')))
    rows[0]["responses"] = {"preference": [{"value": "response2", "user_id": "jo", "status": "submitted"}]}


def _pandalm(rows: list[Fields]) -> None:
    rows[0].update(response1="y", response2="x", cmp_key="mb_ma", annotator1=2, annotator3=1)


def _helpsteer3(rows: list[Fields]) -> None:
    scores = [{"score": 2}, {"score": 1}, {"score": 0}]
    rows[0].update(response1="y", response2="x", individual_preference=scores)


_EXCHANGES: dict[LabelFormat, Callable[[list[Fields]], None]] = {
    F.PAIRWISE: _exchange("_a", "_b", label="b"),
    F.SUMMARIES: _reverse_list("summaries", choice=1, extra={"confidence": 8}),
    F.WEBGPT: _exchange("_0", "_1"),
    F.ULTRAFEEDBACK: _reverse_list("completions"),
    F.ARENA: _exchange("_a", "_b", winner="model_b"),
    F.ARENA_VOTES: _reverse_list("states", type="rightvote"),
    F.ARENA_ONEHOT: _onehot,
    F.MT_BENCH: _exchange("_a", "_b", winner="model_b"),
    F.HELPSTEER2: list.reverse,
    F.HELPSTEER2_PREFERENCE: _exchange("_1", "_2", preference_strength=2),
    F.HELPSTEER3: _helpsteer3,
    F.SHP: _exchange("_A", "_B", labels=0),
    F.ALPACA: _exchange("_1", "_2", preference=2),
    F.PANDALM: _pandalm,
    F.ARGILLA: _argilla,
    F.LABEL_STUDIO: _label_studio,
    F.PRODIGY: _reverse_list("options"),
}

EXCHANGED = tuple(_EXCHANGES)
"""The formats whose rows have two sides; the others name a winner or a rank."""


def exchanged(format: LabelFormat) -> list[Fields]:
    """Return the format's rows with answers, models and verdict on the other side."""
    rows = copy.deepcopy(ROWS[format])
    _EXCHANGES[format](rows)
    return rows
