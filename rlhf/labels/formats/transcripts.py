"""Two whole conversations whose last answers are compared."""

from typing import NamedTuple

from sft.core.rows import RowError
from sft.core.text import Conversation
from sft.data import split_answer


class Shared(NamedTuple):
    """The turns that two conversations share, and the answer in which they differ."""

    prompt: Conversation
    text_a: str
    text_b: str


def last_answers(a: Conversation, b: Conversation) -> Shared:
    """Return the last answers of two conversations that are equal up to there.

    Raises:
        RowError: the users' turns differ; or answers before the last one do: then the judgement is of whole
            conversations, for which no single answer can stand.
    """
    users_a, users_b = ([turn.content for turn in turns if turn.role != "assistant"] for turns in (a, b))
    if users_a != users_b:
        raise RowError("prompts differ: the user said something else in the two conversations")
    (prompt, text_a), (prompt_b, text_b) = split_answer(a), split_answer(b)
    if prompt != prompt_b:
        raise RowError("several turns: the conversations differ before the last answer, the verdict is about both")
    return Shared(prompt, text_a, text_b)
