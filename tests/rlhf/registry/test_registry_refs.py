import pytest

from rlhf.registry.artifact import Ref, check_fingerprint, check_name, parse_ref
from sft.core.errors import UsageError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("policy", Ref("policy")),
        ("policy:3", Ref("policy", version=3)),
        ("policy@champion", Ref("policy", alias="champion")),
        ("policy@latest", Ref("policy", alias="latest")),
        ("hh-policy.v2_x:12", Ref("hh-policy.v2_x", version=12)),
        ("a" * 64, Ref("a" * 64)),
    ],
)
def test_a_reference_is_taken_apart(text, expected):
    assert parse_ref(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":1",
        "@champion",
        "policy:",
        "policy@",
        "policy:0",
        "policy:01",
        "policy:-1",
        "policy:1.5",
        "policy:٣",  # a digit to Python's int(), not to us
        "policy:1234567890",
        "policy:1@champion",
        "policy@a@b",
        "policy@Champion",
        "Policy",
        "policy\n",
        " policy",
        "../policy",
        "/policy",
        "-policy",
        ".work",
        "a" * 65,
    ],
)
def test_anything_else_is_refused_and_quoted(text):
    with pytest.raises(UsageError) as caught:
        parse_ref(text)
    assert repr(text) in str(caught.value)
    assert "NAME@ALIAS" in str(caught.value)


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../x", "a/b", "/etc", ".work", "a\\b", "a\0", "A", "registry.db", "registry.db-journal"]
)
def test_a_name_cannot_leave_the_registry_or_hit_its_own_files(name):
    with pytest.raises(UsageError, match="not allowed"):
        check_name(name)


@pytest.mark.parametrize("fingerprint", ["", ".", "..", "../x", "a/b", "x.lock", "registry.db", "a" * 129])
def test_a_fingerprint_must_be_a_plain_folder_name(fingerprint):
    with pytest.raises(UsageError, match="not allowed"):
        check_fingerprint(fingerprint)
