import numpy as np
import pytest
import torch
from scipy import stats

from sft.config import Dtype
from sft.core.generation import (
    Prompts,
    SamplingSettings,
    choose_tokens,
    draw_uniforms,
    pad_left,
    pad_right,
    position_ids,
    read_answers,
    sample,
    sample_answers,
)
from sft.core.text import encode_prompt
from sft.model import load_causal_lm

CPU = torch.device("cpu")


def draw(rows, length: int = 12, *, seed: int = 0, stream: str = "test", iteration: int = 0) -> torch.Tensor:
    return draw_uniforms(seed=seed, stream=stream, iteration=iteration, rows=rows, length=length)


@pytest.fixture(scope="module")
def prompt_ids(tokenizer, requests) -> list[list[int]]:
    return [encode_prompt(tokenizer, prompt)[i % 4 :] for i, prompt in enumerate(requests[:12])]


@pytest.fixture(scope="module")
def answer(policy, tokenizer):
    def sampled(rows, uniforms_BR, *, temperature: float = 1.0, eos_id: int = tokenizer.eos_token_id):
        prompts = rows if isinstance(rows, Prompts) else pad_left(rows, tokenizer.pad_token_id, CPU)
        return sample(
            policy, prompts, uniforms_BR, temperature=temperature, eos_id=eos_id, pad_id=tokenizer.pad_token_id
        )

    return sampled


def counted(responses) -> list[list[int]]:
    return [ids[mask].tolist() for ids, mask in zip(*responses, strict=True)]


# The uniforms


def test_uniforms_depend_on_the_arguments_alone():
    assert torch.equal(draw([3, 1]), draw(range(5))[[3, 1]])
    assert torch.equal(draw([2], 4), draw([2], 9)[:, :4])
    base = draw(range(3))
    assert (base != draw(range(1, 4))).all()
    for other in (draw(range(3), seed=1), draw(range(3), stream="other"), draw(range(3), iteration=1)):
        assert (base != other).all()
    assert draw([], 7).shape == (0, 7)


def test_uniforms_are_uniform():
    values = draw(range(200), 100).flatten()
    assert ((values >= 0) & (values < 1)).all()
    assert stats.kstest(values.numpy(), "uniform").pvalue > 0.01


# Choosing a token


def test_inverse_cdf_by_hand():
    logits = torch.log(torch.tensor([0.2, 0.5, 0.3])).expand(6, 3)
    uniforms = torch.tensor([0.0, 0.19, 0.21, 0.69, 0.71, 0.999], dtype=torch.float64)
    assert choose_tokens(logits, uniforms, temperature=1.0).tolist() == [0, 0, 1, 1, 2, 2]


def test_frequencies_are_the_softmax():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(8, generator=generator)
    tokens = choose_tokens(logits.expand(20_000, 8), draw([0], 20_000)[0], temperature=0.7)
    expected = torch.softmax(logits / 0.7, dim=0).double()
    frequencies = np.bincount(tokens.numpy(), minlength=8)
    assert stats.chisquare(frequencies, 20_000 * (expected / expected.sum()).numpy()).pvalue > 0.01


def test_temperature_is_exact_on_a_grid():
    """Evenly spaced uniforms hit each token in proportion, to one part in their number."""
    logits = torch.tensor([0.0, 1.0, -1.0, 0.5])
    grid = (torch.arange(4000, dtype=torch.float64) + 0.5) / 4000
    for temperature in (0.3, 1.0, 2.5):
        tokens = choose_tokens(logits.expand(4000, 4), grid, temperature=temperature)
        shares = torch.bincount(tokens, minlength=4) / 4000
        assert torch.allclose(shares, torch.softmax(logits / temperature, dim=0), atol=5e-4)


def test_an_impossible_token_is_never_chosen():
    logits = torch.tensor([-torch.inf, 0.0, -torch.inf, 0.0, -torch.inf]).expand(4, 5)
    uniforms = torch.tensor([0.0, 0.4999, 0.5, 1 - 2**-53], dtype=torch.float64)
    assert choose_tokens(logits, uniforms, temperature=1.0).tolist() == [1, 1, 3, 3]


# Padding


def test_padding_by_hand():
    prompts = pad_left([[5], [6, 7, 8]], 0, CPU)
    assert prompts.ids_BP.tolist() == [[0, 0, 5], [6, 7, 8]]
    assert prompts.mask_BP.tolist() == [[False, False, True], [True, True, True]]
    responses = pad_right([[5], [6, 7, 8]], 0, CPU)
    assert responses.ids_BR.tolist() == [[5, 0, 0], [6, 7, 8]]
    assert responses.mask_BR.tolist() == [[True, False, False], [True, True, True]]


def test_which_responses_hold_an_id():
    """Padding is no token of a response."""
    responses = pad_right([[5], [6, 0, 8], [7, 7]], 0, CPU)
    assert responses.holds({0}).tolist() == [False, True, False]
    assert responses.holds({7, 8, 9}).tolist() == [False, True, True]
    assert responses.holds(()).tolist() == [False, False, False]


def test_positions_start_at_the_first_token_that_counts():
    mask = torch.tensor([[False, False, True, True], [True, True, True, False]])
    assert position_ids(mask).tolist() == [[0, 0, 0, 1], [0, 1, 2, 2]]


# Sampling


def test_rows_depend_neither_on_order_nor_on_companions_nor_on_padding(answer, prompt_ids, tokenizer):
    uniforms = draw(range(12))
    together = counted(answer(prompt_ids, uniforms))
    assert len({len(row) for row in together}) > 2
    order = torch.randperm(12, generator=torch.Generator().manual_seed(1))
    shuffled = counted(answer([prompt_ids[i] for i in order], uniforms[order]))
    assert shuffled == [together[i] for i in order]
    for i in range(12):
        assert counted(answer([prompt_ids[i]], uniforms[i : i + 1])) == [together[i]]
    prompts = pad_left(prompt_ids, tokenizer.pad_token_id, CPU)
    wider = Prompts(
        torch.cat([torch.full((12, 9), 77), prompts.ids_BP], dim=1),
        torch.cat([torch.zeros(12, 9, dtype=torch.bool), prompts.mask_BP], dim=1),
    )
    assert counted(answer(wider, uniforms)) == together


def inverse_cdf(
    model, prompt: list[int], response: list[int], uniforms_R: torch.Tensor, temperature: float
) -> list[int]:
    """Return what each token of a response should be, from one forward pass without cache or padding."""
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([prompt + response]), use_cache=False).logits[0, len(prompt) - 1 : -1]
    cdf = torch.softmax(logits / temperature, dim=1).double().cumsum(1)
    return [int((row <= u * row[-1]).sum()) for row, u in zip(cdf, uniforms_R, strict=False)]


def test_each_token_is_the_inverse_cdf_of_its_uniform(answer, policy, prompt_ids):
    uniforms = draw(range(12))
    responses = counted(answer(prompt_ids, uniforms, temperature=0.8))
    for prompt, response, uniforms_R in zip(prompt_ids, responses, uniforms, strict=True):
        assert response == inverse_cdf(policy, prompt, response, uniforms_R, 0.8)


def test_learned_positions_are_counted_from_the_first_token(absolute_models, prompt_ids):
    model, _ = absolute_models
    uniforms = draw(range(12))
    found = sample(model, pad_left(prompt_ids, 0, CPU), uniforms, temperature=1.0, eos_id=1, pad_id=0)
    for prompt, response, uniforms_R in zip(prompt_ids, counted(found), uniforms, strict=True):
        assert response == inverse_cdf(model, prompt, response, uniforms_R, 1.0)


def test_the_first_tokens_follow_the_model(answer, policy, prompt_ids):
    tokens = answer([prompt_ids[0]] * 3000, draw(range(3000), 1)).ids_BR[:, 0]
    expected = torch.softmax(policy(input_ids=torch.tensor([prompt_ids[0]])).logits[0, -1].double(), dim=0)
    top = expected.topk(12).indices
    frequencies = [int((tokens == t).sum()) for t in top]
    shares = expected[top].tolist()
    result = stats.chisquare([*frequencies, 3000 - sum(frequencies)], [3000 * p for p in [*shares, 1 - sum(shares)]])
    assert result.pvalue > 0.01


def test_a_model_with_bfloat16_weights_samples_what_the_exact_one_does(sft_folder, policy, prompt_ids, tokenizer):
    """Its keys and values lie in the cache as float32 on a CPU, whatever its queries are."""
    half = load_causal_lm(sft_folder, device=CPU, dtype=Dtype.BFLOAT16)
    prompts, uniforms_BR = pad_left(prompt_ids, tokenizer.pad_token_id, CPU), draw(range(len(prompt_ids)))
    ends = {"eos_id": tokenizer.eos_token_id, "pad_id": tokenizer.pad_token_id}
    exact, rounded = (sample(model, prompts, uniforms_BR, temperature=1.0, **ends) for model in (policy, half))
    same = (exact.ids_BR[:, 0] == rounded.ids_BR[:, 0]).float().mean()
    assert same >= 0.5  # by chance it would be 1 in 400


def test_eos_counts_and_everything_after_it_is_pad(answer, prompt_ids, tokenizer):
    ids, mask = answer(prompt_ids, draw(range(12), 20))
    ended = 0
    for row, counts in zip(ids.tolist(), mask.tolist(), strict=True):
        length = sum(counts)
        assert counts == [True] * length + [False] * (len(counts) - length)
        assert tokenizer.eos_token_id not in row[: length - 1]
        assert set(row[length:]) <= {tokenizer.pad_token_id}
        ended += row[length - 1] == tokenizer.eos_token_id
        assert row[length - 1] == tokenizer.eos_token_id or length == len(row) == 20
    assert 3 <= ended <= 12


def test_width_is_that_of_the_longest_response(answer, prompt_ids):
    uniforms = draw(range(1), 6)
    first = int(answer(prompt_ids[:1], uniforms).ids_BR[0, 0])
    ids, mask = answer(prompt_ids[:1], uniforms, eos_id=first)
    assert ids.tolist() == [[first]]
    assert mask.tolist() == [[True]]


def test_low_temperature_is_greedy(answer, policy, prompt_ids):
    expected = [int(policy(input_ids=torch.tensor([ids])).logits[0, -1].argmax()) for ids in prompt_ids]
    tokens = answer(prompt_ids, draw(range(12), 1), temperature=1e-4).ids_BR[:, 0]
    assert tokens.tolist() == expected


def test_answers_do_not_depend_on_the_batch_size(policy, tokenizer, requests):
    def answers(batch_size: int):
        settings = SamplingSettings(32, 10, 1.0, batch_size, seed=3, stream="s")
        return sample_answers(policy, tokenizer, requests[:7], settings)

    assert answers(7) == answers(3) == answers(1)
    assert len(answers(3)) == 7
    assert {answer.ended for answer in answers(3)} == {True, False}


def test_reading_answers(tokenizer):
    words = tokenizer("good luck .", add_special_tokens=False)["input_ids"]
    eos, pad = tokenizer.eos_token_id, tokenizer.pad_token_id
    responses = pad_right([[*words, eos], words, [eos]], pad, CPU)
    found = read_answers(tokenizer, responses)
    assert found == [("good luck .", (*words, eos), True), ("good luck .", tuple(words), False), ("", (eos,), True)]
