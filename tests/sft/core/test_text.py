import copy

from sft.core.text import (
    Message,
    as_dicts,
    decode_answer,
    encode_answer,
    encode_prompt,
    inner_control_ids,
    prompt_key,
    render_prompt,
    user,
)

TALK = (Message("system", "be kind"), Message("user", "hi"), Message("assistant", "yo"), Message("user", "bye"))


def test_conversations_as_files_have_them():
    assert as_dicts(user("hi")) == [{"role": "user", "content": "hi"}]


def test_the_same_prompt_in_other_case_or_spacing_is_the_same():
    assert prompt_key(user("How  do\nI ?")) == prompt_key(user(" how do i ?"))
    assert prompt_key(user("a")) != prompt_key((Message("system", "a"),))
    assert prompt_key((Message("user", "a b"),)) != prompt_key((Message("user", "a"), Message("user", "b")))


def test_prompt_by_the_template_of_the_tokenizer(tokenizer):
    expected = "<|system|>be kind<|user|>hi<|assistant|>yo<|user|>bye<|assistant|>"
    assert render_prompt(tokenizer, TALK) == expected


def test_prompt_without_a_template_has_human_and_assistant_turns(tokenizer):
    plain = copy.deepcopy(tokenizer)
    plain.chat_template = None
    assert render_prompt(plain, TALK) == "\n\nSystem: be kind\n\nHuman: hi\n\nAssistant: yo\n\nHuman: bye\n\nAssistant:"


def test_prompt_ids_by_hand_and_shortened_from_the_front(tokenizer):
    role, assistant = tokenizer.convert_tokens_to_ids(["<|user|>", "<|assistant|>"])
    words = tokenizer("how do i fix a tire ?", add_special_tokens=False)["input_ids"]
    ids = encode_prompt(tokenizer, user("how do i fix a tire ?"))
    assert ids == [role, *words, assistant]
    assert encode_prompt(tokenizer, user("how do i fix a tire ?"), max_tokens=3) == ids[-3:]
    assert encode_prompt(tokenizer, user("how do i fix a tire ?"), max_tokens=1000) == ids


def test_answer_ids_end_with_one_eos_and_read_back(tokenizer):
    text = "of course . use a patch kit . 100 % ü"
    ids = encode_answer(tokenizer, text)
    assert ids[-1] == tokenizer.eos_token_id
    assert ids.count(tokenizer.eos_token_id) == 1
    assert decode_answer(tokenizer, ids) == text
    assert encode_answer(tokenizer, "") == [tokenizer.eos_token_id]


def test_control_tokens_inside_an_answer_are_all_but_its_eos(tokenizer):
    marks = {"<|pad|>", "<|system|>", "<|user|>", "<|assistant|>"}
    assert {*tokenizer.convert_ids_to_tokens(sorted(inner_control_ids(tokenizer)))} == marks
    assert tokenizer.eos_token_id not in inner_control_ids(tokenizer)


def test_reading_drops_special_tokens_and_outer_spaces(tokenizer):
    words = tokenizer(" good luck . ", add_special_tokens=False)["input_ids"]
    assert decode_answer(tokenizer, [*words, tokenizer.eos_token_id, tokenizer.pad_token_id]) == "good luck ."
