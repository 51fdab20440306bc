"""Conversations, and the one function by which all stages turn them into token ids.

SFT, reward model and PPO all use prompt ids + answer ids + EOS, so that a text means the same tokens everywhere.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, cast

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


def render_prompt(tokenizer: "PreTrainedTokenizerBase", prompt: Conversation) -> str:
    """Return the prompt as the model reads it: its chat template, or Human/Assistant turns where it has none."""
    if tokenizer.chat_template:
        rendered = tokenizer.apply_chat_template(as_dicts(prompt), tokenize=False, add_generation_prompt=True)
        return cast(str, rendered)
    names = {"system": "System", "user": "Human", "assistant": "Assistant"}
    turns = "".join(f"\n\n{names[message.role]}: {message.content}" for message in prompt)
    return f"{turns}\n\nAssistant:"


def encode_prompt(
    tokenizer: "PreTrainedTokenizerBase", prompt: Conversation, *, max_tokens: int | None = None
) -> list[int]:
    """Return the prompt's ids; of a longer prompt the last `max_tokens`, since the latest turn matters most."""
    ids = _ids(tokenizer, render_prompt(tokenizer, prompt))
    return ids if max_tokens is None else ids[-max_tokens:]


def encode_answer(tokenizer: "PreTrainedTokenizerBase", answer: str) -> list[int]:
    """Return the answer's ids and the EOS."""
    return [*_ids(tokenizer, answer), cast(int, tokenizer.eos_token_id)]


def decode_answer(tokenizer: "PreTrainedTokenizerBase", token_ids: Sequence[int]) -> str:
    """Return the answer's text without special tokens and outer spaces."""
    return cast(str, tokenizer.decode(list(token_ids), skip_special_tokens=True)).strip()


def _ids(tokenizer: "PreTrainedTokenizerBase", text: str) -> list[int]:
    return cast(list[int], tokenizer(text, add_special_tokens=False)["input_ids"])
