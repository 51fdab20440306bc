import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sft.core.visible import replace_hidden, visible


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\u202eb\u2066c", "a⟨U+202E⟩b⟨U+2066⟩c"),
        ("\u200b\u200b", "⟨U+200B⟩⟨U+200B⟩"),
        ("\ufe0fx", "⟨U+FE0F⟩x"),
        ("a\u200db", "a⟨U+200D⟩b"),
        ("\U000e0041", "⟨U+E0041⟩"),
        ("\ue000", "⟨U+E000⟩"),
        ("\ud800", "⟨U+D800⟩"),
        ("\r\x00\x1b[31m\u2028", "⟨U+000D⟩⟨U+0000⟩⟨U+001B⟩[31m⟨U+2028⟩"),
        ("\u3164\u2800\u034f", "⟨U+3164⟩⟨U+2800⟩⟨U+034F⟩"),
    ],
)
def test_what_nobody_would_see_is_written_out(text, shown):
    assert visible(text) == shown


@pytest.mark.parametrize(
    "text",
    [
        "line\n\ttab é 漢 عربى",
        "❤\ufe0f 1\ufe0f⃣",
        "\U0001f469\u200d\U0001f52c \U0001f469\U0001f3fd\u200d\U0001f680 ❤\ufe0f\u200d🔥",
        "می\u200cخواهم",
        "क\u094d\u200dष",
    ],
)
def test_what_a_script_or_an_emoji_needs_stays(text):
    assert visible(text) == text


def test_a_run_is_marked_once():
    found = []
    assert replace_hidden("a\u200b\u200b\u200cb", lambda sign, count: found.append((sign, count)) or "|") == "a||b"
    assert found == [("\u200b", 2), ("\u200c", 1)]


@given(st.text())
def test_nothing_else_changes(text):
    marked = replace_hidden(text, lambda sign, count: "")
    kept = iter(text)
    assert all(sign in kept for sign in marked)
    assert visible(visible(text)) == visible(text)


def test_no_hidden_character_passes_by_the_quick_look():
    """Characters, one by one, are judged as their categories and the lists of blank ones say."""
    for number in [*range(0x3200), *range(0xFD00, 0x10000), *range(0xE0000, 0xE0200), 0xE0FFF, 0xE1000, 0x10FFFF]:
        sign = chr(number)
        hidden = sign not in "\n\t" and (
            unicodedata.category(sign) in ("Cc", "Cf", "Co", "Cs", "Zl", "Zp")
            or number in (0x34F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x180B, 0x180C, 0x180D, 0x180F, 0x2065, 0x2800, 0x3164)
            or number == 0xFFA0
            or 0xFE00 <= number <= 0xFE0F
            or 0xFFF0 <= number <= 0xFFF8
            or 0xE0000 <= number <= 0xE0FFF
        )
        assert (visible(f"a{sign}b") != f"a{sign}b") == hidden, hex(number)
