import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sft.core.text import Message, as_dicts, user
from sft.data import Example, answered, conversation_from, prompt_from, read_examples, read_prompts

SYSTEM, HI, HELLO, BYE = Message("system", "s"), Message("user", "hi"), Message("assistant", "yo"), Message("user", "x")


def dicts(*messages: Message) -> list[dict[str, str]]:
    return as_dicts(messages)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (" hi \n", user("hi")),
        ("[1, 2] are numbers", user("[1, 2] are numbers")),
        ("[1, 2]", user("[1, 2]")),
        ("[]", user("[]")),
        (dicts(SYSTEM, HI, HELLO, BYE), (SYSTEM, HI, HELLO, BYE)),
        (json.dumps(dicts(HI, HELLO)), (HI, HELLO)),
        ([{"role": "user", "content": " hi", "name": "Ann"}], (HI,)),
    ],
)
def test_conversations(value, expected):
    assert conversation_from(value) == expected


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("  ", "empty prompt"),
        (3, "wrong type: .* found a number"),
        (True, "found true or false"),
        (None, "found nothing"),
        ({"role": "user"}, "found an object"),
        ([], "no messages"),
        (["hi"], "broken message: turn 1 .* found a text"),
        ([{"from": "human", "value": "hi"}], "found the keys from, value"),
        ([{"role": "tool", "content": "hi"}], "unknown role: turn 1 has 'tool'"),
        ([{"role": ["user"], "content": "hi"}], "unknown role"),
        ([{"role": "user", "content": [{"type": "image"}]}], "content of turn 1 must be a text, found a list"),
        (dicts(HELLO, HI), "turn 1 must be the user's, found assistant"),
        (dicts(HI, BYE), "turn 2 must be the assistant's, found user"),
        (dicts(HI, SYSTEM), "turn 2 must be the assistant's, found system"),
        (dicts(SYSTEM, HELLO), "turn 2 must be the user's"),
        (dicts(HI, Message("assistant", " "), BYE), r"empty turn: turn 2 \(assistant\)"),
    ],
)
def test_what_is_no_conversation_has_a_reason(value, reason):
    with pytest.raises(ValueError, match=reason):
        conversation_from(value)


@pytest.mark.parametrize("messages", [(HI, HELLO), (SYSTEM,)])
def test_a_prompt_ends_with_the_user(messages):
    with pytest.raises(ValueError, match="no prompt"):
        prompt_from(dicts(*messages))


def test_an_answer_may_repeat_its_prompt_or_not():
    expected = ((HI,), "yo")
    assert answered((HI,), " yo") == expected
    assert answered((HI,), dicts(HELLO)) == expected
    assert answered((HI,), dicts(HI, HELLO)) == expected
    assert answered((HI,), dicts(HELLO, BYE, HELLO)) == ((HI, HELLO, BYE), "yo")
    with pytest.raises(ValueError, match="last turn must be the assistant's, found user"):
        answered((HI,), dicts(HELLO, BYE))


def test_an_answer_without_text_is_empty():
    for value in (" ", dicts(Message("assistant", ""))):
        with pytest.raises(ValueError, match=r"^empty answer: "):
            answered((HI,), value)


def test_demonstrations(tmp_path):
    path = tmp_path / "d.jsonl"
    rows = [
        {"prompt": "hi", "completion": "yo"},
        {"prompt": dicts(SYSTEM, HI), "completion": dicts(HELLO)},
        {"messages": dicts(HI, HELLO, BYE, HELLO)},
        {"messages": dicts(HI, HELLO, BYE)},  # the last answer counts
        {"prompt": "hi", "completion": None},
        {"prompt": "hi", "completion": " "},
        {"messages": dicts(HI)},
        {"messages": dicts(HI, Message("assistant", ""))},
        {"question": "hi"},
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"prompt": "hal')
    examples, bad = read_examples(path)
    assert examples == [
        Example((HI,), "yo"),
        Example((SYSTEM, HI), "yo"),
        Example((HI, HELLO, BYE), "yo"),
        Example((HI,), "yo"),
    ]
    assert [(row.line, row.kind) for row in bad] == [
        (5, "missing column"),
        (6, "empty answer"),
        (7, "no answer"),
        (8, "empty turn"),
        (9, "missing column"),
        (10, "half-written or not JSON"),
    ]
    assert bad[4].reason.endswith("found question")
    assert bad[4].text == '{"question": "hi"}'


def test_demonstrations_of_a_table(tmp_path):
    path = tmp_path / "d.csv"
    path.write_text('prompt,completion\nhi,yo\n"[{""role"": ""user"", ""content"": ""hi""}]",yo\n,yo\n')
    examples, bad = read_examples(path)
    assert examples == [Example((HI,), "yo")] * 2
    assert [(row.line, row.kind) for row in bad] == [(4, "empty prompt")]


def test_prompts(tmp_path):
    path = tmp_path / "p.jsonl"
    rows = [
        {"prompt": "hi"},
        {"prompt": dicts(SYSTEM, HI), "text": "not this"},
        {"messages": dicts(HI, HELLO)},
        {"messages": dicts(HI, HELLO, BYE)},
        {"text": " hi "},
        {"prompt": dicts(HI, HELLO)},
        {"line": "hi"},
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    prompts, bad = read_prompts(path)
    assert prompts == [(HI,), (SYSTEM, HI), (HI,), (HI, HELLO, BYE), (HI,)]
    assert [(row.line, row.kind) for row in bad] == [(6, "no prompt"), (7, "missing column")]


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.sampled_from(["user", "assistant", "system"]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["role", "content", "x"]), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(values)
def test_any_value_gives_a_conversation_or_a_reason(value):
    reason = ""
    try:
        conversation = conversation_from(value)
    except ValueError as error:
        reason = str(error)
    if reason:
        assert ": " in reason
    else:
        assert conversation_from(as_dicts(conversation)) == conversation
        assert conversation_from(json.dumps(as_dicts(conversation))) == conversation
