"""Keeps what people and models write from counting as control tokens: only a chat template may open or close a turn.

A tokenizer finds "<|im_end|>" in any text and makes it the token that ends a turn. `split_special_tokens=True` of
transformers prevents that in byte-level BPE only: unigram and WordPiece know the token as a word as well. So here
stands a second tokenizer beside each, its "guarded" one: the same, except that every control token is called by a name
that no text can hold. The template's own tokens are renamed before encoding, all other text stays as it is; so ids,
merges across borders of turns and leading spaces are what they were.

Markers made of ordinary words ("[INST]", "Human:") are no tokens, and nothing tells them from a text that holds them.
"""

import json
import re
import secrets
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from sft.core.errors import DataError

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerBase


_UNKNOWN_SIGN = "\U0010fffd"


class Frame(NamedTuple):
    """What a template writes around the turns of a conversation."""

    parts: tuple[str | int, ...]
    """In order: text of the template, or the index of the turn whose content stands there."""
    control_ids: tuple[int, ...]
    """The template's own control tokens, in order."""


class Control(NamedTuple):
    """The control tokens of a tokenizer."""

    ids: frozenset[int]
    """Without the unknown token, which unknown signs give."""
    texts: "re.Pattern[str]"
    """Finds each of them in a text, the longest where several fit."""


class _Guarded(NamedTuple):
    """A tokenizer that finds control tokens under secret names alone."""

    tokenizer: "Tokenizer"
    names: dict[str, str]


def find_control(tokenizer: "PreTrainedTokenizerBase", written: str) -> Control:
    """Return the control tokens of a fast tokenizer: those that it calls special, and those that its template writes.

    Args:
        tokenizer: a fast one.
        written: all that its template writes around turns.
    """
    special = set(tokenizer.all_special_ids)
    added = tokenizer.added_tokens_decoder.items()
    found = {id_: str(token) for id_, token in added if token.special or id_ in special or str(token) in written}
    texts = sorted(found.values(), key=len, reverse=True)
    return Control(
        frozenset(found).difference(_unknown(tokenizer)), re.compile("|".join(map(re.escape, texts)) or "(?!)")
    )


def split_frame(rendered: str, words: Sequence[str]) -> tuple[str | int, ...]:
    """Return the parts of a frame: `rendered` split at the words that stood for the contents of the turns."""
    places = {word: index for index, word in enumerate(words)}
    parts = re.split(f"({'|'.join(map(re.escape, words))})", rendered)
    return tuple(places.get(part, part) for part in parts)


def injects(control: Control, frame: Frame, contents: Sequence[str], ids: Sequence[int]) -> bool:
    """Tell whether contents hold a control token, or the ids of a conversation others than its frame's, in order."""
    if any(control.texts.search(content) for content in contents):
        return True
    return _controls(control, ids) != frame.control_ids


def encode_plain(tokenizer: "PreTrainedTokenizerBase", control: Control, text: str) -> list[int]:
    """Return the ids of a text, none of which is a control token.

    Raises:
        DataError: the tokenizer cannot write the text without one.
    """
    ids = _encoded(_guarded(tokenizer, control), text)
    if not control.ids.isdisjoint(ids):
        raise DataError(
            f"{_shown(control, [text])} cannot be written without a control token of the tokenizer; remove it from the "
            "data, or give its pad and its unknown token different ids"
        )
    return ids


def encode_framed(
    tokenizer: "PreTrainedTokenizerBase", control: Control, frame: Frame, contents: Sequence[str], rendered: str
) -> list[int]:
    """Return the ids of a rendered conversation whose control tokens are its frame's.

    Raises:
        DataError: the template changes the contents, so that its own tokens cannot be told from theirs.
    """
    guarded = _guarded(tokenizer, control)
    for written in (list(contents), [content.strip() for content in contents]):
        if "".join(part if isinstance(part, str) else written[part] for part in frame.parts) != rendered:
            continue
        named = (
            control.texts.sub(lambda found: guarded.names[found[0]], part) if isinstance(part, str) else written[part]
            for part in frame.parts
        )
        ids = _encoded(guarded, "".join(named))
        if _controls(control, ids) == frame.control_ids:
            return ids
    raise DataError(
        f"{_shown(control, contents)} holds a control token, and the chat template changes the text, so that the token "
        "cannot be told from the template's own; remove it from the data, or set a chat_template that writes the "
        "content of a turn as it is"
    )


@lru_cache(maxsize=16)
def _guarded(tokenizer: "PreTrainedTokenizerBase", control: Control) -> _Guarded:
    """Build the second tokenizer. The names are drawn anew in each process, so that no text can know them."""
    from tokenizers import Tokenizer

    settings = json.loads(_backend(tokenizer).to_str())
    secret = secrets.token_hex(16)
    controls = [entry for entry in settings["added_tokens"] if control.texts.fullmatch(entry["content"])]
    names = {entry["content"]: f"<{secret}:{entry['id']}>" for entry in controls}
    for entry in controls:
        entry.update(content=names[entry["content"]], normalized=False)
    settings |= {"post_processor": None, "truncation": None, "padding": None}
    _rename(settings["model"], names)
    return _Guarded(Tokenizer.from_str(json.dumps(settings)), names)


def _unknown(tokenizer: "PreTrainedTokenizerBase") -> list[int]:
    """Return the ids of a sign that no vocabulary holds; some tokenizers have an unknown token and name none."""
    try:
        return [token.id for token in _backend(tokenizer).model.tokenize(_UNKNOWN_SIGN)]
    except Exception:  # the kind that `tokenizers` raises where a vocabulary has none
        return []


def _backend(tokenizer: "PreTrainedTokenizerBase") -> "Tokenizer":
    from transformers import PreTrainedTokenizerFast

    assert isinstance(tokenizer, PreTrainedTokenizerFast), "load_tokenizer gives fast ones"
    return tokenizer.backend_tokenizer


def _rename(model: dict[str, object], names: dict[str, str]) -> None:
    """Rename tokens in the vocabulary of a model in the JSON of `tokenizers`; no merge may make them."""
    vocabulary = model["vocab"]
    if isinstance(vocabulary, dict):
        model["vocab"] = {names.get(token, token): id_ for token, id_ in vocabulary.items()}
    elif isinstance(vocabulary, list):  # unigram
        model["vocab"] = [[names.get(token, token), score] for token, score in vocabulary]
    unknown = model.get("unk_token")
    if isinstance(unknown, str):
        model["unk_token"] = names.get(unknown, unknown)
    merges = model.get("merges")
    if isinstance(merges, list):
        pairs = [tuple(merge.split(" ")) if isinstance(merge, str) else tuple(merge) for merge in merges]
        model["merges"] = [list(pair) for pair in pairs if names.keys().isdisjoint((*pair, "".join(pair)))]


def _controls(control: Control, ids: Sequence[int]) -> tuple[int, ...]:
    return tuple(id_ for id_ in ids if id_ in control.ids)


def _encoded(guarded: _Guarded, text: str) -> list[int]:
    return guarded.tokenizer.encode(text, add_special_tokens=False).ids


def _shown(control: Control, contents: Sequence[str]) -> str:
    """Name the turn that holds a control token, or the first one where several make one together."""
    for number, content in enumerate(contents, 1):
        if found := control.texts.search(content):
            return f"turn {number} ({content[:60]!r}...) with {found[0]!r}"
    return f"the conversation that begins with {contents[0][:60]!r}"
