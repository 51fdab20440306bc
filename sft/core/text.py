"""Conversations, and the one place where all stages turn them into token ids.

SFT, reward model and PPO all use prompt ids + answer ids + EOS, so that a text means the same tokens everywhere. What a
turn or an answer says stays text: control tokens are the chat template's own, and the EOS (`control_tokens.py`).
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple, cast

from sft.core.control_tokens import (
    Control,
    Frame,
    encode_framed,
    encode_plain,
    find_control,
    injects,
    split_frame,
)
from sft.core.errors import DataError
from sft.core.template_limits import most_characters

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class Message(NamedTuple):
    """One turn: `role` is "system", "user" or "assistant"."""

    role: str
    content: str


Conversation = tuple[Message, ...]


def user(text: str) -> Conversation:
    """Return a conversation of one user turn."""
    return (Message("user", text),)


def as_dicts(conversation: Conversation) -> list[dict[str, str]]:
    """Return the messages as `[{"role": ..., "content": ...}]`, the shape of files and chat templates."""
    return [{"role": message.role, "content": message.content} for message in conversation]


def prompt_key(conversation: Conversation) -> str:
    """Return the text that decides whether two prompts are the same: roles and contents, case and spacing folded."""
    return "\n".join(f"{m.role}: {' '.join(m.content.lower().split())}" for m in conversation)


class TokenLimits(NamedTuple):
    """Longest prompt and answer, in tokens; the answer's EOS comes on top."""

    prompt: int
    answer: int


def template_of(tokenizer: "PreTrainedTokenizerBase") -> str | None:
    """Return the chat template that conversations are rendered with; of several by name, the one called "default"."""
    template = tokenizer.chat_template
    return template if template is None or isinstance(template, str) else tokenizer.get_chat_template()


def render_prompt(tokenizer: "PreTrainedTokenizerBase", prompt: Conversation) -> str:
    """Return the prompt as the model reads it: its chat template, or Human/Assistant turns where it has none.

    Raises:
        DataError: the template writes far more than was said.
    """
    if tokenizer.chat_template:
        rendered = tokenizer.apply_chat_template(as_dicts(prompt), tokenize=False, add_generation_prompt=True)
        most = most_characters(sum(len(message.content) for message in prompt))
        if len(rendered) > most:
            raise DataError(
                f"the chat template made {len(rendered)} characters of the prompt that begins with "
                f"{prompt[0].content[:60]!r}; at most {most} are read: use the template of the model's authors"
            )
        return cast(str, rendered)
    names = {"system": "System", "user": "Human", "assistant": "Assistant"}
    turns = "".join(f"\n\n{names[message.role]}: {message.content}" for message in prompt)
    return f"{turns}\n\nAssistant:"


def encode_prompt(
    tokenizer: "PreTrainedTokenizerBase", prompt: Conversation, *, max_tokens: int | None = None
) -> list[int]:
    """Return the prompt's ids; of a longer prompt the last `max_tokens`, since the latest turn matters most.

    Raises:
        DataError: a turn holds the text of a control token, and the template changes turns, so that it is not known
            which control tokens are its own.
    """
    rendered = render_prompt(tokenizer, prompt)
    ids = _ids(tokenizer, rendered)
    control, contents = _control_of(tokenizer), [message.content for message in prompt]
    frame = _frame(tokenizer, template_of(tokenizer), tuple(message.role for message in prompt), control)
    if injects(control, frame, contents, ids):
        ids = encode_framed(tokenizer, control, frame, contents, rendered)
    return ids if max_tokens is None else ids[-max_tokens:]


def encode_answer(tokenizer: "PreTrainedTokenizerBase", answer: str) -> list[int]:
    """Return the answer's ids and the EOS, the only control token among them.

    Raises:
        DataError: the tokenizer cannot write the answer without control tokens.
    """
    ids, control = _ids(tokenizer, answer), _control_of(tokenizer)
    if control.texts.search(answer) or not control.ids.isdisjoint(ids):
        ids = encode_plain(tokenizer, control, answer)
    return [*ids, cast(int, tokenizer.eos_token_id)]


def inner_control_ids(tokenizer: "PreTrainedTokenizerBase") -> frozenset[int]:
    """Return the ids of control tokens that may not stand inside an answer: all but the EOS, which ends it.

    A model can sample them all the same; `encode_answer` never gives them, whatever the text.
    """
    return _control_of(tokenizer).ids - {cast(int, tokenizer.eos_token_id)}


def decode_answer(tokenizer: "PreTrainedTokenizerBase", token_ids: Sequence[int]) -> str:
    """Return the answer's text without special tokens and outer spaces."""
    return cast(str, tokenizer.decode(list(token_ids), skip_special_tokens=True)).strip()


def _ids(tokenizer: "PreTrainedTokenizerBase", text: str) -> list[int]:
    return cast(list[int], tokenizer(text, add_special_tokens=False)["input_ids"])


_USUAL_SHAPES = (("user",), ("user", "assistant", "user"), ("system", "user"))


def _control_of(tokenizer: "PreTrainedTokenizerBase") -> Control:
    return _control(tokenizer, template_of(tokenizer), tokenizer.pad_token)


@lru_cache(maxsize=16)
def _control(tokenizer: "PreTrainedTokenizerBase", template: str | None, pad_token: str | None) -> Control:
    """Find a tokenizer's control tokens; the other arguments are what is changed in a tokenizer that was loaded."""
    from jinja2 import TemplateError

    written: list[str] = []
    for roles in _USUAL_SHAPES:
        try:
            parts = _parts(tokenizer, roles)
        except TemplateError:  # many templates refuse a system turn
            continue
        written += [part for part in parts if isinstance(part, str)]
    return find_control(tokenizer, "\n".join(written))


@lru_cache(maxsize=1024)
def _frame(
    tokenizer: "PreTrainedTokenizerBase", template: str | None, roles: tuple[str, ...], control: Control
) -> Frame:
    """Return what is written around turns of the given roles."""
    parts = _parts(tokenizer, roles)
    ids = _ids(tokenizer, "".join(part if isinstance(part, str) else _stand_in(part) for part in parts))
    return Frame(parts, tuple(id_ for id_ in ids if id_ in control.ids))


def _parts(tokenizer: "PreTrainedTokenizerBase", roles: Sequence[str]) -> tuple[str | int, ...]:
    words = [_stand_in(number) for number in range(len(roles))]
    turns = tuple(Message(role, word) for role, word in zip(roles, words, strict=True))
    return split_frame(render_prompt(tokenizer, turns), words)


def _stand_in(turn: int) -> str:
    """A word in place of a turn's content, which no template writes and none changes."""
    return f"contentofturn{turn}end"
