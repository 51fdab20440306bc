"""Keeps secrets out of what leaves a process's memory: configurations, command lines, messages."""

import re
from collections.abc import Mapping

REDACTED = "[redacted]"

_SECRET_WORDS = {"password", "passwd", "secret", "secrets", "token", "credential", "credentials", "apikey"}
_SECRET_PHRASES = ("api_key", "private_key", "access_key", "auth_header")
_VOCABULARY_TOKEN = re.compile(r"(^|_)(pad|eos|bos|unk|cls|sep|mask|image|stop)_token(_id)?$")
_URL_LOGIN = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*://)[^/\s]*@")
_URL_QUERY = re.compile(r"(?i)([?&][a-z_.-]*(?:password|token|key|secret|sig|signature)=)[^&#\s]+")
_ASSIGNMENT = re.compile(r"^([+~]*[\w.@/-]+)=(.*)$", re.DOTALL)


def looks_secret(key: str) -> bool:
    """Return whether a configuration key names a secret: `hub.token` does, `max_tokens` and `pad_token` do not."""
    name = key.rsplit(".", 1)[-1].lower().replace("-", "_")
    if _VOCABULARY_TOKEN.search(name):
        return False
    return not _SECRET_WORDS.isdisjoint(name.split("_")) or any(phrase in name for phrase in _SECRET_PHRASES)


def redact_text(text: str) -> str:
    """Return the text without logins and keys in URLs, and without the value of a `secret_key=value` override."""
    assignment = _ASSIGNMENT.match(text)
    if assignment and looks_secret(assignment[1]):
        return f"{assignment[1]}={REDACTED}"
    return _URL_QUERY.sub(rf"\1{REDACTED}", _URL_LOGIN.sub(rf"\1{REDACTED}@", text))


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
