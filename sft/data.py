"""Reading demonstrations and prompts from files.

Texts lose their outer spaces, as sampled answers do, so that the same words are the same text everywhere.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from sft.core.rows import BadRow, Row, RowError, json_type, read_rows
from sft.core.text import Conversation, Message, user

T = TypeVar("T")
ROLES = ("system", "user", "assistant")


@dataclass(frozen=True)
class Example:
    """A demonstration: a prompt that ends with a user turn, and the answer to learn."""

    prompt: Conversation
    answer: str


def conversation_from(value: object) -> Conversation:
    """Return a text (one user turn) or a list of `{"role", "content"}`, also as JSON text, as a conversation.

    An optional system turn, then user and assistant in turn, the user first; no turn is empty.

    Raises:
        RowError: (a ValueError) any other value; the message is the reason, fit for a quarantine file.
    """
    messages = messages_from(value)
    if messages is None:
        messages = user(text_from(value, "prompt"))
    check_turns(messages)
    return messages


def prompt_from(value: object) -> Conversation:
    """Return `conversation_from(value)`, which must end with a user turn. Raises RowError."""
    conversation = conversation_from(value)
    if conversation[-1].role != "user":
        raise RowError(f"no prompt: the last turn must be the user's, found {conversation[-1].role}")
    return conversation


def answered(prompt: Conversation, value: object) -> tuple[Conversation, str]:
    """Return prompt and answer of a completion: a text, or the messages after the prompt (which may be repeated).

    Raises:
        RowError: the completion is empty, or does not continue the prompt with an assistant turn.
    """
    messages = messages_from(value)
    if messages is None:
        return prompt, text_from(value, "answer")
    return split_answer(messages if messages[: len(prompt)] == prompt else prompt + messages)


def split_answer(conversation: Conversation) -> tuple[Conversation, str]:
    """Return what comes before the last turn, and the last turn's text, which must be the assistant's.

    Raises:
        RowError: the turns are out of order or empty, or the last one is not an assistant's.
    """
    if not conversation or conversation[-1].role != "assistant":
        found = conversation[-1].role if conversation else "no turn"
        raise RowError(f"no answer: the last turn must be the assistant's, found {found}")
    if not conversation[-1].content:
        raise RowError("empty answer: the last turn has no text")
    check_turns(conversation)
    if conversation[-2].role != "user":
        raise RowError("no prompt: the answer follows no user turn")
    return conversation[:-1], conversation[-1].content


def text_from(value: object, name: str) -> str:
    """Return a text without its outer spaces; `name` ("prompt", "answer") is for the reason. Raises RowError."""
    if not isinstance(value, str):
        raise RowError(f"wrong type: the {name} must be a text or a list of messages, found {json_type(value)}")
    if not value.strip():
        raise RowError(f"empty {name}: it has no text")
    return value.strip()


def messages_from(value: object) -> Conversation | None:
    """Return the messages of a list, or of a list written as JSON text (a cell of a table); None for another text.

    The order of the turns is not checked: a completion is no whole conversation. Raises RowError.
    """
    listed = _listed(value) if isinstance(value, str) else value
    if not isinstance(listed, list):
        return None
    if not listed:
        raise RowError("no messages: the list is empty")
    return tuple(_message(number, item) for number, item in enumerate(listed, 1))


def _listed(text: str) -> list[object] | None:
    """Return the message list that a text holds as JSON; a text that merely starts with a bracket stays a text."""
    if not text.lstrip().startswith("["):
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    is_list = isinstance(value, list) and all(isinstance(item, dict) and "role" in item for item in value)
    return value if is_list and value else None


def _message(number: int, item: object) -> Message:
    if not isinstance(item, dict) or not {"role", "content"} <= item.keys():
        found = f"the keys {', '.join(map(str, item))}" if isinstance(item, dict) else json_type(item)
        raise RowError(f"broken message: turn {number} must have 'role' and 'content', found {found}")
    role, content = item["role"], item["content"]
    if role not in ROLES:
        raise RowError(f"unknown role: turn {number} has {str(role)[:40]!r}, known are {', '.join(ROLES)}")
    if not isinstance(content, str):
        raise RowError(f"broken message: the content of turn {number} must be a text, found {json_type(content)}")
    return Message(str(role), content.strip())


def check_turns(conversation: Conversation) -> None:
    """Raise RowError unless the turns alternate, user first after an optional system turn, and all have text.

    Many chat templates refuse anything else, or render it wrongly.
    """
    start = 1 if conversation[:1] and conversation[0].role == "system" else 0
    for number, message in enumerate(conversation[start:], start + 1):
        expected = ("user", "assistant")[(number - start - 1) % 2]
        if message.role != expected:
            raise RowError(f"turns do not alternate: turn {number} must be the {expected}'s, found {message.role}")
    for number, message in enumerate(conversation, 1):
        if not message.content:
            raise RowError(f"empty turn: turn {number} ({message.role}) has no text")


def _example(row: Row) -> Example:
    columns = row.value
    if columns.get("prompt") is not None and columns.get("completion") is not None:
        return Example(*answered(prompt_from(columns["prompt"]), columns["completion"]))
    if columns.get("messages") is not None:
        conversation = conversation_from(columns["messages"])
        answers = [index for index, message in enumerate(conversation) if message.role == "assistant"]
        # Turns after the last answer teach nothing.
        return Example(*split_answer(conversation[: answers[-1] + 1] if answers else conversation))
    found = ", ".join(columns) or "none"
    raise RowError(f"missing column: a demonstration has 'prompt' and 'completion', or 'messages'; found {found}")


def _prompt(row: Row) -> Conversation:
    columns = row.value
    if columns.get("prompt") is not None:
        return prompt_from(columns["prompt"])
    if columns.get("messages") is not None:
        conversation = conversation_from(columns["messages"])
        return conversation if conversation[-1].role == "user" else split_answer(conversation)[0]
    if columns.get("text") is not None:
        return user(text_from(columns["text"], "prompt"))
    found = ", ".join(columns) or "none"
    raise RowError(f"missing column: a prompt is in 'prompt', 'messages' or 'text'; found {found}")


def read_examples(path: Path) -> tuple[list[Example], list[BadRow]]:
    """Return the demonstrations of a file and the rows that are none.

    A row has `prompt` and `completion` (texts or message lists), or `messages`, whose last assistant turn is the
    answer.

    Raises:
        DataError: the file cannot be read at all (see `read_rows`).
    """
    return _parsed(path, _example)


def read_prompts(path: Path) -> tuple[list[Conversation], list[BadRow]]:
    """Return the prompts of a file and the rows that hold none.

    A row has `prompt` (text or message list), or `messages` (up to the last user turn), or `text`. Repeated prompts
    are kept.

    Raises:
        DataError: the file cannot be read at all (see `read_rows`).
    """
    return _parsed(path, _prompt)


def _parsed(path: Path, parse: Callable[[Row], T]) -> tuple[list[T], list[BadRow]]:
    good: list[T] = []
    bad: list[BadRow] = []
    for row in read_rows(path):
        if isinstance(row, BadRow):
            bad.append(row)
            continue
        try:
            good.append(parse(row))
        except RowError as error:
            bad.append(row.rejected(str(error)))
    return good, bad
