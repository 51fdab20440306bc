import pytest

from sft.core.errors import DataError
from sft.core.text import prompt_key, user
from sft.split import Split, fraction_of, split_by_prompt, split_of

FRACTIONS = {"validation_fraction": 0.1, "test_fraction": 0.15}
PROMPTS = [user(f"question number {i} ?") for i in range(4000)]


def test_fractions_are_about_right():
    splits = split_by_prompt(PROMPTS, lambda prompt: prompt, **FRACTIONS)
    assert len(splits.validation) / 4000 == pytest.approx(0.1, abs=0.02)
    assert len(splits.test) / 4000 == pytest.approx(0.15, abs=0.02)
    assert len(splits.train) + len(splits.validation) + len(splits.test) == 4000


def test_a_prompt_keeps_its_split_when_rows_come_and_go():
    before = split_by_prompt(PROMPTS[:100], lambda prompt: prompt, **FRACTIONS)
    after = split_by_prompt(PROMPTS[50:200], lambda prompt: prompt, **FRACTIONS)
    for part_before, part_after in zip(vars(before).values(), vars(after).values(), strict=True):
        assert [p for p in part_after if p in PROMPTS[50:100]] == [p for p in part_before if p in PROMPTS[50:100]]


def test_no_prompt_is_in_two_splits_however_it_is_spelled():
    items = [(prompt, number) for number in range(3) for prompt in PROMPTS[:300]]
    items += [(user(prompt[0].content.upper().replace(" ", "\n ")), 3) for prompt in PROMPTS[:300]]
    splits = split_by_prompt(items, lambda item: item[0], **FRACTIONS)
    keys = [{prompt_key(prompt) for prompt, _ in part} for part in vars(splits).values()]
    assert [len(part) for part in vars(splits).values()] == [4 * len(part) for part in keys]
    assert len(set.union(*keys)) == sum(map(len, keys)) == 300


def test_items_keep_their_order():
    train = split_by_prompt(PROMPTS, lambda prompt: prompt, **FRACTIONS).train
    assert train == [prompt for prompt in PROMPTS if prompt in set(train)]


def test_bounds():
    fractions = {prompt: fraction_of(prompt, salt="split") for prompt in PROMPTS[:500]}
    assert all(0 <= fraction < 1 for fraction in fractions.values())
    for prompt, fraction in fractions.items():
        expected = Split.TEST if fraction < 0.15 else Split.VALIDATION if fraction < 0.25 else Split.TRAIN
        assert split_of(prompt, **FRACTIONS) is expected


def test_another_salt_is_another_draw():
    both = sum(fraction_of(p, salt="a") < 0.5 and fraction_of(p, salt="b") < 0.5 for p in PROMPTS)
    assert both / 4000 == pytest.approx(0.25, abs=0.03)


def test_sealed_test_items_are_nowhere():
    splits = split_by_prompt(PROMPTS, lambda prompt: prompt, **FRACTIONS)
    sealed = split_by_prompt(PROMPTS, lambda prompt: prompt, **FRACTIONS, seal_test=True)
    assert (sealed.train, sealed.validation) == (splits.train, splits.validation)
    assert sealed.held_out == splits.validation
    assert splits.held_out == splits.test
    with pytest.raises(DataError, match=r"sealed in a search.*validation data"):
        _ = sealed.test
    kept = {prompt_key(prompt) for part in vars(sealed).values() if part is not None for prompt in part}
    assert kept.isdisjoint(map(prompt_key, splits.test))
