"""Keeps secrets out of what leaves a process's memory: configurations, command lines, messages."""

import re
from collections.abc import Mapping

REDACTED = "[redacted]"

_SECRET_WORDS = {"passwd", "pwd", "passphrase", "secret", "secrets", "token", "credential", "credentials", "apikey"}
_SECRET_PHRASES = ("password", "api_key", "private_key", "access_key", "auth_header", "authorization")
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_VOCABULARY_TOKEN = re.compile(r"(^|_)(pad|eos|bos|unk|cls|sep|mask|image|stop)_token(_id)?$")
_VALUE = r"""("[^"]*"|'[^']*'|[^\s&,;}]+)"""
_WORD = re.compile(r"^([+~]*[\w.@/-]+)=(.*)$", re.DOTALL)
_URL_LOGIN = re.compile(r"(://)(?:[^/\s:@]*:\S*|[^/\s]*)@")
"""What databases take for a password may hold `/` and `@`; then the last `@` of the word ends it."""
_URL_QUERY = re.compile(r"(?i)([?&;#][\w.-]*(?:passwd|pwd|token|key|secret|sig|signature|credential)=)[^&;#\s]+")
_HEADER = re.compile(r"(?i)(\bauthorization\s*[:=]\s*(?:\w+\s+)?|\bbearer\s+)[\w.~+/=-]{8,}")
_ASSIGNMENT = re.compile(rf"((?<![\w.-])([\w.-]+)=){_VALUE}")
_ENTRY = re.compile(rf"""((?:["']|[{{,]\s*)([\w.-]+)["']?\s*:\s*){_VALUE}""")
"""Of JSON, of a printed dict, or of a word such as `hub={token: x}`."""


def looks_secret(key: str) -> bool:
    """Return whether a configuration key names a secret: `hub.token` does, `max_tokens` and `pad_token` do not."""
    name = _CAMEL.sub("_", key.rsplit(".", 1)[-1]).lower().replace("-", "_")
    if _VOCABULARY_TOKEN.search(name):
        return False
    return not _SECRET_WORDS.isdisjoint(name.split("_")) or any(phrase in name for phrase in _SECRET_PHRASES)


def redact_text(text: str) -> str:
    """Return the text without logins and keys in URLs and headers, and without values that stand beside the name of a
    secret: a word `secret_key=value` as a whole, else `name=value` and `"name": value` anywhere."""
    word = _WORD.match(text)
    if word and looks_secret(word[1]):
        return f"{word[1]}={REDACTED}"
    text = _URL_QUERY.sub(rf"\1{REDACTED}", _URL_LOGIN.sub(rf"\1{REDACTED}@", text))
    text = _HEADER.sub(rf"\1{REDACTED}", text)
    return _ENTRY.sub(_without_value, _ASSIGNMENT.sub(_without_value, text))


def _without_value(named: "re.Match[str]") -> str:
    return f"{named[1]}{REDACTED}" if looks_secret(named[2]) else named[0]


def redact(config: Mapping[str, object]) -> dict[str, object]:
    """Return a copy of a configuration, made of plain JSON types, without its secrets."""
    return {
        str(key): REDACTED if looks_secret(str(key)) and value is not None else _redact_value(value)
        for key, value in config.items()
    }


def _redact_value(value: object) -> object:
    if isinstance(value, Mapping):
        return redact(value)
    if isinstance(value, list | tuple | set):
        return [_redact_value(inner) for inner in value]
    if value is None or isinstance(value, bool | int | float):
        return value
    return redact_text(str(value))
