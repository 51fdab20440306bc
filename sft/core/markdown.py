"""Texts of strangers inside Markdown."""

import re

_SIGNS = frozenset("\\`*_[]<>|#!&~$")
_ADDRESS = re.compile(r"://|\bwww\.", re.IGNORECASE)
"""What GitHub and the Hugging Face hub make a link of."""


def one_line(text: str) -> str:
    """Return a text on one line, with nothing that Markdown, its dialects or HTML would act on."""
    plain = " ".join(text.split())
    escaped = "".join(f"\\{sign}" if sign in _SIGNS else sign for sign in plain)
    return _ADDRESS.sub(lambda found: f"{found[0][:-1]}\\{found[0][-1]}", escaped)
