import pytest

from rlhf.labels.storable import check_storable
from sft.core.errors import DataError


@pytest.mark.parametrize(
    ("text", "named"), [("\0", "U+0000"), ("a\0b", "U+0000"), ("\ud800", "U+D800"), ("x\udfff", "U+DFFF")]
)
def test_what_cannot_be_stored_is_named(text, named):
    with pytest.raises(
        DataError, match=f"holds the character {named.replace('+', '[+]')}, which cannot be stored; write"
    ):
        check_storable("fine", text)


def test_all_else_can():
    check_storable("", "\x01\n\ue000\uffff", "\U0001f600\u202e")
