from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from reward.model import RewardModel, load_scorer, new_scorer, token_scores
from sft.config import Dtype
from sft.core.generation import Prompts, Responses, pad_left, pad_right
from sft.core.text import encode_answer, encode_prompt

CPU = torch.device("cpu")
OFFSET, TEMPERATURE = 0.3, 1.7
ANSWERS = ["of course .", "to fix a tire , use a patch kit . it takes ten minutes .", "", "good luck . let me know ."]


@pytest.fixture(scope="module")
def pairs(requests):
    return [(requests[i], answer) for i, answer in enumerate(ANSWERS)]


@pytest.fixture(scope="module")
def rows(tokenizer, pairs) -> list[tuple[list[int], list[int]]]:
    return [(encode_prompt(tokenizer, p)[-12 + 3 * i :], encode_answer(tokenizer, a)) for i, (p, a) in enumerate(pairs)]


@pytest.fixture(scope="module")
def classifier(reward_folder):
    return AutoModelForSequenceClassification.from_pretrained(reward_folder, num_labels=1).eval()


def batch_of(rows, pad_id: int) -> tuple[Prompts, Responses]:
    return pad_left([p for p, _ in rows], pad_id, CPU), pad_right([a for _, a in rows], pad_id, CPU)


def test_scores_are_those_of_transformers_after_every_token(reward_model, classifier, tokenizer, rows):
    """transformers pools at the last token, so that every prefix gives the score at its end."""
    with torch.no_grad():
        scores = token_scores(reward_model.model, *batch_of(rows, tokenizer.pad_token_id))
        for i, (prompt, answer) in enumerate(rows):
            expected = [
                float(classifier(input_ids=torch.tensor([prompt + answer[:t]])).logits) for t in range(len(answer) + 1)
            ]
            assert scores[i, : len(answer) + 1].tolist() == pytest.approx(expected, abs=1e-5)


def test_learned_positions_are_counted_from_the_first_token(absolute_models, tokenizer, rows):
    _, model = absolute_models
    with torch.no_grad():
        scores = token_scores(model, *batch_of(rows, tokenizer.pad_token_id))
        for i, (prompt, answer) in enumerate(rows):
            expected = float(model(input_ids=torch.tensor([prompt + answer])).logits)
            assert float(scores[i, len(answer)]) == pytest.approx(expected, abs=1e-5)


def test_the_score_is_read_at_the_last_counted_token(reward_model, classifier, tokenizer, rows):
    with torch.no_grad():
        found = reward_model.score_tokens(*batch_of(rows, tokenizer.pad_token_id))
        raw = [float(classifier(input_ids=torch.tensor([prompt + answer])).logits) for prompt, answer in rows]
    assert found.tolist() == pytest.approx([(score - OFFSET) / TEMPERATURE for score in raw], abs=1e-5)


def test_an_answer_that_was_cut_off_is_scored_at_its_last_token(reward_model, classifier, tokenizer, rows):
    cut = [(prompt, answer[:-1] or answer) for prompt, answer in rows]
    with torch.no_grad():
        raw = [float(classifier(input_ids=torch.tensor([prompt + answer])).logits) for prompt, answer in cut]
        found = reward_model.score_tokens(*batch_of(cut, tokenizer.pad_token_id))
    assert found.tolist() == pytest.approx([(score - OFFSET) / TEMPERATURE for score in raw], abs=1e-5)


def test_padding_changes_no_score(reward_model, tokenizer, rows):
    prompts, responses = batch_of(rows, tokenizer.pad_token_id)
    no, junk = torch.zeros(len(rows), 9, dtype=torch.bool), torch.full((len(rows), 9), 99)
    wider = reward_model.score_tokens(
        Prompts(torch.cat([junk, prompts.ids_BP], dim=1), torch.cat([no, prompts.mask_BP], dim=1)),
        Responses(torch.cat([responses.ids_BR, junk], dim=1), torch.cat([responses.mask_BR, no], dim=1)),
    )
    assert torch.allclose(reward_model.score_tokens(prompts, responses), wider, atol=1e-5)
    alone = [float(reward_model.score_tokens(*batch_of([row], tokenizer.pad_token_id))) for row in rows]
    assert wider.tolist() == pytest.approx(alone, abs=1e-5)


def test_texts_are_scored_in_order_whatever_the_batch(reward_model, classifier, tokenizer, pairs):
    expected = []
    with torch.no_grad():
        for prompt, answer in pairs:
            ids = encode_prompt(tokenizer, prompt, max_tokens=32) + encode_answer(tokenizer, answer)
            expected.append((float(classifier(input_ids=torch.tensor([ids])).logits) - OFFSET) / TEMPERATURE)
    for batch_size in (1, 3, 64):
        assert reward_model.score_texts(pairs, batch_size=batch_size) == pytest.approx(expected, abs=1e-5)
    assert reward_model.score_texts([]).shape == (0,)


def test_a_long_prompt_keeps_its_end(reward_folder, tokenizer, pairs):
    short = RewardModel.load(reward_folder, device=CPU, dtype=Dtype.FLOAT32, max_prompt_tokens=4)
    prompts = [encode_prompt(tokenizer, prompt)[-4:] for prompt, _ in pairs]
    rows = [(p, encode_answer(tokenizer, a)) for p, (_, a) in zip(prompts, pairs, strict=True)]
    expected = short.score_tokens(*batch_of(rows, tokenizer.pad_token_id))
    assert short.score_texts(pairs) == pytest.approx(expected.tolist(), abs=1e-5)


def test_a_folder_without_a_head_is_refused(sft_folder: Path):
    with pytest.raises(ValueError, match=r"holds no reward model: score\.weight would be random; train one or give"):
        load_scorer(sft_folder, device=CPU, dtype=Dtype.FLOAT32)


def test_a_new_head_is_small_and_its_seed_decides(sft_folder: Path):
    heads = [new_scorer(sft_folder, seed=s, device=CPU).score.weight.detach() for s in (1, 1, 2)]
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])
    assert heads[0].shape == (1, 32)
    assert float(torch.cat(heads[1:]).std()) == pytest.approx(33**-0.5, rel=0.3)
