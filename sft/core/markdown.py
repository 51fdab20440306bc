"""Texts of strangers inside Markdown."""


def one_line(text: str) -> str:
    """Return a text on one line, with nothing that Markdown or HTML would act on."""
    plain = " ".join(text.split())
    return "".join(f"\\{sign}" if sign in "\\`*_[]<>|#!&" else sign for sign in plain)
