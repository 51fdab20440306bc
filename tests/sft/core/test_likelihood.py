import pytest
import torch

from sft.core.generation import Prompts, Responses, pad_left, pad_right
from sft.core.likelihood import chosen_statistics, token_statistics
from sft.core.text import encode_answer, encode_prompt

CPU = torch.device("cpu")
ANSWERS = ["of course .", "to fix a tire , use a patch kit . it takes ten minutes .", "good luck ."]


@pytest.fixture(scope="module")
def rows(tokenizer, requests) -> list[tuple[list[int], list[int]]]:
    return [
        (encode_prompt(tokenizer, requests[i])[3 * i :], encode_answer(tokenizer, answer))
        for i, answer in enumerate(ANSWERS)
    ]


@pytest.fixture(scope="module")
def batch(rows, tokenizer) -> tuple[Prompts, Responses]:
    pad = tokenizer.pad_token_id
    return pad_left([p for p, _ in rows], pad, CPU), pad_right([a for _, a in rows], pad, CPU)


def alone(policy, prompt: list[int], answer: list[int], temperature: float) -> tuple[list[float], list[float]]:
    """Return log-probabilities and entropies of one sequence, token by token, without padding."""
    logprobs, entropies = [], []
    for t, token in enumerate(answer):
        logits = policy(input_ids=torch.tensor([prompt + answer[:t]])).logits[0, -1].double() / temperature
        probs = torch.exp(logits) / torch.exp(logits).sum()
        logprobs.append(float(torch.log(probs[token])))
        entropies.append(float(-(probs * torch.log(probs)).sum()))
    return logprobs, entropies


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_against_one_sequence_at_a_time(policy, rows, batch, temperature: float):
    found = token_statistics(policy, *batch, temperature=temperature)
    for i, (prompt, answer) in enumerate(rows):
        logprobs, entropies = alone(policy, prompt, answer, temperature)
        assert found.logprobs_BR[i, : len(answer)].tolist() == pytest.approx(logprobs, abs=1e-5)
        assert found.entropy_BR[i, : len(answer)].tolist() == pytest.approx(entropies, abs=1e-5)


def test_padding_on_either_side_changes_nothing(policy, batch):
    prompts, responses = batch
    found = token_statistics(policy, prompts, responses).logprobs_BR
    no, junk = torch.zeros(3, 11, dtype=torch.bool), torch.full((3, 11), 99)
    wider = token_statistics(
        policy,
        Prompts(torch.cat([junk, prompts.ids_BP], dim=1), torch.cat([no, prompts.mask_BP], dim=1)),
        Responses(torch.cat([responses.ids_BR, junk], dim=1), torch.cat([responses.mask_BR, no], dim=1)),
    ).logprobs_BR[:, :-11]
    assert torch.allclose(found[responses.mask_BR], wider[responses.mask_BR], atol=1e-5)


def test_learned_positions_are_counted_from_the_first_token(absolute_models, rows, batch):
    model, _ = absolute_models
    found = token_statistics(model, *batch).logprobs_BR
    for i, (prompt, answer) in enumerate(rows):
        logprobs, _ = alone(model, prompt, answer, 1.0)
        assert found[i, : len(answer)].tolist() == pytest.approx(logprobs, abs=1e-5)


def test_the_last_token_needs_no_successor(policy, rows, batch):
    """The response's own later tokens never reach back: causality."""
    prompts, responses = batch
    found = token_statistics(policy, prompts, responses).logprobs_BR
    cut = token_statistics(policy, prompts, Responses(responses.ids_BR[:, :2], responses.mask_BR[:, :2])).logprobs_BR
    assert torch.allclose(found[:, :2], cut, atol=1e-5)


def test_gradients_are_those_of_autograd():
    """Of log-probabilities and entropies together, in more than one chunk."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2000, 700, generator=generator) * 3
    tokens = torch.randint(700, (2000,), generator=generator)
    weights = torch.randn(2, 2000, generator=generator)

    def gradient(statistics):
        leaf = logits.clone().requires_grad_(True)
        logprobs, entropy = statistics(leaf * 1.0)
        (weights[0] * logprobs + weights[1] * entropy).sum().backward()
        return logprobs.detach(), entropy.detach(), leaf.grad

    def plain(z):
        log_p = torch.log_softmax(z / 0.7, dim=1)
        return log_p.gather(1, tokens[:, None])[:, 0], -(log_p.exp() * log_p).sum(1)

    for found, expected in zip(gradient(lambda z: chosen_statistics(z, tokens, 0.7)), gradient(plain), strict=True):
        assert torch.allclose(found, expected, atol=1e-5)


def test_gradient_of_logprobs_alone():
    logits = torch.tensor([[0.0, 1.0, 2.0]], requires_grad=True)
    logprobs, _ = chosen_statistics(logits * 1.0, torch.tensor([1]), 2.0)
    (3 * logprobs).sum().backward()
    p = torch.softmax(torch.tensor([0.0, 0.5, 1.0]), dim=0)
    assert torch.allclose(logits.grad[0], 3 * (torch.tensor([0.0, 1.0, 0.0]) - p) / 2, atol=1e-6)


def test_gradient_of_a_sure_token_in_bfloat16():
    """1 - p of a likely token keeps its digits, where p in bfloat16 would round to 1."""
    logits = torch.tensor([[9.0, 1.0, 0.0]], dtype=torch.bfloat16, requires_grad=True)
    logprobs, _ = chosen_statistics(logits * 1.0, torch.tensor([0]), 1.0)
    logprobs.sum().backward()
    p = torch.softmax(torch.tensor([9.0, 1.0, 0.0], dtype=torch.float64), dim=0)
    assert torch.allclose(logits.grad[0].double(), torch.tensor([1.0, 0.0, 0.0]) - p, rtol=2**-7, atol=0)


def test_logits_are_held_once():
    """For the backward pass nothing of their size is kept beside them, and their gradient takes their place."""
    logits = torch.randn(50, 3000, generator=torch.Generator().manual_seed(0)).requires_grad_(True)
    used_up = logits * 1.0
    kept: list[torch.Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x) or x, lambda x: x):
        logprobs, _ = chosen_statistics(used_up, torch.zeros(50, dtype=torch.long), 1.0)
    assert sum(x.numel() for x in kept) <= used_up.numel() + 3 * 50
    place = used_up.data_ptr()
    (gradient,) = torch.autograd.grad(logprobs.sum(), used_up)
    assert gradient.data_ptr() == place
