import math
from pathlib import Path

import numpy as np
import pytest
import torch

from rlhf.config import EvaluationConfig
from rlhf.evaluation import EvaluationResult, evaluate_policy
from rlhf.evaluation.evaluate import SequenceLikelihoods, perplexity, sequence_likelihoods
from rlhf.simulation import make_demonstrations
from sft.config import Dtype
from sft.core.durable import text_digest
from sft.core.generation import SamplingSettings, sample_answers
from sft.core.measures import wins
from sft.core.text import TokenLimits, encode_answer, encode_prompt, prompt_key
from sft.core.tracking import NullTracker
from sft.model import load_causal_lm

LIMITS = TokenLimits(prompt=32, answer=12)


def words(pairs) -> np.ndarray:
    """Judge by the number of different words."""
    return np.array([float(len(set(answer.split()))) for _, answer in pairs])


@pytest.fixture(scope="module")
def held_out(requests):
    return make_demonstrations(requests, 12, seed=5)


@pytest.fixture(scope="module")
def evaluate(sft_folder, reward_folder, requests, held_out, runtime):
    def evaluated(policy: Path, prompts: int = 40, tracker=None, gold=None, seed: int = 0) -> EvaluationResult:
        return evaluate_policy(
            EvaluationConfig(prompts=prompts, answers_per_prompt=2, sample_table=3),
            policy=policy,
            sft=sft_folder,
            reward=reward_folder,
            judge=words,
            prompts=requests,
            held_out=held_out,
            limits=LIMITS,
            temperature=1.0,
            runtime=runtime,
            seed=seed,
            tracker=tracker or NullTracker(),
            gold=gold,
        )

    return evaluated


@pytest.fixture(scope="module")
def itself(evaluate, sft_folder) -> EvaluationResult:
    return evaluate(sft_folder)


@pytest.fixture(scope="module")
def moved(sft_folder, tmp_path_factory) -> Path:
    """Return a folder of the SFT model with other logits."""
    model = load_causal_lm(sft_folder, device=torch.device("cpu"), dtype=Dtype.FLOAT32)
    torch.manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            weight += 0.05 * torch.randn_like(weight)
    folder = tmp_path_factory.mktemp("moved")
    for path in sft_folder.glob("*"):
        (folder / path.name).write_bytes(path.read_bytes())
    model.save_pretrained(folder)
    return folder


def direct(policy, tokenizer, prompt, answer: str) -> list[float]:
    """Return the log-probabilities of answer and EOS from one unpadded sequence."""
    before, after = encode_prompt(tokenizer, prompt)[-32:], encode_answer(tokenizer, answer)
    with torch.no_grad():
        logits = policy(input_ids=torch.tensor([before + after])).logits[0].double()
    logprobs = torch.log_softmax(logits, dim=1)
    return [float(logprobs[len(before) - 1 + t, token]) for t, token in enumerate(after)]


# Likelihoods


def encoded(tokenizer, rows):
    return [(prompt, encode_answer(tokenizer, answer)) for prompt, answer in rows]


def test_likelihoods_against_single_sequences(policy, tokenizer, held_out):
    rows = [(example.prompt, example.answer) for example in held_out]
    found = sequence_likelihoods(policy, tokenizer, encoded(tokenizer, rows), LIMITS)
    expected = [direct(policy, tokenizer, *row) for row in rows]
    assert found.logprob_N.tolist() == pytest.approx([sum(logprobs) for logprobs in expected], abs=1e-4)
    assert found.tokens_N.tolist() == [len(logprobs) for logprobs in expected]


def test_an_answer_that_was_cut_off_has_no_eos_to_count(policy, tokenizer, held_out):
    rows = [(example.prompt, example.answer) for example in held_out[:3]]
    ids = encoded(tokenizer, rows)
    ids[1:] = [(prompt, answer[:-1]) for prompt, answer in ids[1:]]
    found = sequence_likelihoods(policy, tokenizer, ids, LIMITS)
    expected = [direct(policy, tokenizer, *row) for row in rows]
    expected = [expected[0], expected[1][:-1], expected[2][:-1]]
    assert found.logprob_N.tolist() == pytest.approx([sum(logprobs) for logprobs in expected], abs=1e-4)
    assert found.tokens_N.tolist() == [len(logprobs) for logprobs in expected]


def test_perplexity_by_hand():
    """e to the mean over tokens, not over answers."""
    likelihoods = SequenceLikelihoods(np.array([-6.0, -1.0]), np.array([3.0, 4.0]))
    found = perplexity(likelihoods, ["a", "b"], seed=0)
    assert found.value == pytest.approx(math.exp(7 / 7))
    assert found.ci == pytest.approx((math.exp(0.25), math.exp(2)))


def test_perplexity_of_held_out_text_before_and_after(itself, policy, tokenizer, held_out):
    logprobs = [logprob for e in held_out for logprob in direct(policy, tokenizer, e.prompt, e.answer)]
    for name in ("sft_perplexity", "policy_perplexity"):
        assert itself.estimates[name].value == pytest.approx(math.exp(-np.mean(logprobs)), rel=1e-4)
        assert itself.estimates[name].n == 12


# The whole


def test_a_policy_against_itself(itself):
    win_rate = itself.estimates["win_rate"]
    assert win_rate.ci[0] < 0.5 < win_rate.ci[1]
    assert win_rate.value == pytest.approx(0.5, abs=0.12)
    assert win_rate.n == 80
    assert itself.estimates["kl"].value == pytest.approx(0, abs=1e-4)
    gain = itself.estimates["proxy_reward_gain"]
    assert gain.ci[0] < 0 < gain.ci[1]


def test_both_sides_have_their_own_noise(itself):
    assert any(row["sft"] != row["policy"] for row in itself.samples)
    assert itself.estimates["win_rate"].ci[0] < itself.estimates["win_rate"].ci[1]


def test_kl_is_that_of_the_policy_to_the_reference(evaluate, moved):
    """Positive, in nats per answer: estimated on the policy's own answers, each counted to its end."""
    found = evaluate(moved, prompts=60)
    kl = found.estimates["kl"]
    assert kl.ci[0] > 0.3
    assert found.estimates["policy_perplexity"].value != pytest.approx(
        found.estimates["sft_perplexity"].value, rel=0.02
    )


def test_every_number_has_its_place(evaluate, sft_folder):
    class Recorder(NullTracker):
        rows: dict[str, float]

        def log(self, step: int, metrics) -> None:
            self.rows = dict(metrics)

    tracker = Recorder()
    found = evaluate(sft_folder, prompts=5, tracker=tracker, gold=lambda pairs: words(pairs) + 100)
    measures = ("perplexity", "length", "repetition", "ended", "gold")
    expected = {f"{side}_{measure}" for side in ("sft", "policy") for measure in measures}
    assert found.estimates.keys() == expected | {"win_rate", "proxy_win_rate", "proxy_reward_gain", "kl"}
    assert tracker.rows == {f"eval/{name}": estimate.value for name, estimate in found.estimates.items()}
    assert found.estimates["policy_gold"].value > 100
    assert 0 < found.estimates["policy_ended"].value < 1
    assert 1 <= found.estimates["policy_length"].value <= 12
    assert len(found.rewards["sft"]) == len(found.rewards["policy"]) == 10


def test_the_table_shows_one_answer_to_each_of_the_first_prompts(itself, requests):
    assert len(itself.samples) == 3
    for row, prompt in zip(itself.samples, requests, strict=False):
        assert row["prompt"] == f"user: {prompt[0].content}"
        judged = words([(prompt, row["policy"]), (prompt, row["sft"])])
        expected = "policy" if judged[0] > judged[1] else "sft" if judged[0] < judged[1] else "tie"
        assert row["winner"] == expected
        assert row["policy_gold"] is None


def test_rewards_and_kl_are_those_of_the_sampled_ids(evaluate, moved, sft_folder, reward_model, tokenizer, requests):
    """Decoding and encoding again gives other ids, in which a policy could hide. Cut-off answers get an EOS.

    Answers with a control token inside are scored as their text, as in PPO; their KL is still that of what was sampled.
    """
    found = evaluate(moved)
    models = {
        name: load_causal_lm(folder, device=torch.device("cpu"), dtype=Dtype.FLOAT32)
        for name, folder in (("policy", moved), ("sft", sft_folder))
    }
    asked = [prompt for prompt in requests[:40] for _ in range(2)]
    settings = SamplingSettings(LIMITS.prompt, LIMITS.answer, 1.0, 64, 0, "evaluation-policy")
    answers = sample_answers(models["policy"], tokenizer, asked, settings)
    rows = [(prompt, answer.token_ids) for prompt, answer in zip(asked, answers, strict=True)]
    again = [tuple(encode_answer(tokenizer, answer.text)) for answer in answers]
    assert sum(ids != answer.token_ids for ids, answer in zip(again, answers, strict=True)) > 5
    assert 0 < sum(answer.ended for answer in answers) < len(answers)
    inner = {*tokenizer.get_added_vocab().values()} - {tokenizer.eos_token_id}
    assert 0 < sum(not inner.isdisjoint(answer.token_ids) for answer in answers) < len(answers) / 2
    whole = [
        (prompt, (*ids, tokenizer.eos_token_id) if not answer.ended else ids)
        if inner.isdisjoint(ids)
        else (prompt, encode_answer(tokenizer, answer.text))
        for (prompt, ids), answer in zip(rows, answers, strict=True)
    ]
    assert found.rewards["policy"] == pytest.approx(reward_model.score_ids(whole).tolist(), abs=1e-4)
    logprobs = {name: sequence_likelihoods(model, tokenizer, rows, LIMITS).logprob_N for name, model in models.items()}
    assert found.estimates["kl"].value == pytest.approx((logprobs["policy"] - logprobs["sft"]).mean(), abs=1e-4)


def test_the_seed_decides(evaluate, itself, sft_folder):
    assert evaluate(sft_folder) == itself
    assert evaluate(sft_folder, seed=1).samples != itself.samples


def test_every_answers_scores_are_kept_with_a_digest_of_its_prompt(evaluate, moved, requests):
    result = evaluate(moved, prompts=15, gold=words)
    assert len(result.prompts) == 15 * 2
    assert len(set(result.prompts)) == 15
    assert result.prompts[0] == result.prompts[1] == text_digest(prompt_key(requests[0]))[:16]
    for side in ("sft", "policy"):
        assert np.mean(result.judged[side]) == pytest.approx(result.estimates[f"{side}_gold"].value)
    won = wins(np.array(result.judged["policy"]), np.array(result.judged["sft"]))
    assert won.mean() == pytest.approx(result.estimates["win_rate"].value)
    gained = np.mean(np.array(result.rewards["policy"]) - np.array(result.rewards["sft"]))
    assert gained == pytest.approx(result.estimates["proxy_reward_gain"].value)
