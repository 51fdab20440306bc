from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from reward.calibration import Calibration
from reward.model import new_scorer
from rlhf.config import REWARD_FUNCTIONS, Ensemble, PPOConfig
from rlhf.ppo.rewards import (
    FUNCTIONS,
    Rewards,
    Sampled,
    combine,
    length_penalty,
    repetition_penalty,
    same_tokens,
)
from sft.config import Dtype, ModelConfig
from sft.core.generation import Prompts, Responses, pad_left, pad_right
from sft.core.text import decode_answer, encode_answer, encode_prompt, inner_control_ids
from sft.model import build_tiny, load_tokenizer

CPU = torch.device("cpu")
OWN, FOREIGN, RETEMPLATED = (0.3, 1.7), (-0.8, 0.6), (0.1, 0.25)
"""Offset and temperature of each reward model."""
TEMPLATE = (
    "{% for message in messages %}### {{ message.role | upper }}:\n{{ message.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}### ANSWER:\n{% endif %}"
)
ANSWERS = [
    "of course .",
    "to fix a tire , use a patch kit . it takes ten minutes . good luck .",
    "",
    "zebras quickly vex jolly wizards !",
    "sure . sure . sure . sure .",
    "let me know if you need more help with this , and good luck with it .",
    "no",
]
CUT_OFF = (1, 4)
"""Answers without an EOS."""


def save_reward_model(source: Path, folder: Path, *, scale: float, calibration: tuple[float, float]) -> Path:
    """Write a scorer with another template and with weights `scale` times as large, in place of a trained one."""
    model = new_scorer(source, seed=2, device=CPU)
    with torch.no_grad():
        for weight in model.base_model.parameters():
            if weight.dim() == 2:
                weight.mul_(scale)
    tokenizer = load_tokenizer(source)
    tokenizer.chat_template = TEMPLATE
    model.config.pad_token_id = tokenizer.pad_token_id
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    Calibration(*calibration).save(folder)
    return folder


@pytest.fixture(scope="module")
def foreign_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a reward model of another family: fewer and other tokens, another template."""
    base = tmp_path_factory.mktemp("foreign") / "base"
    config = ModelConfig(
        vocab_size=300,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=256,
    )
    build_tiny(
        config, ["the quick brown fox jumps over the lazy dog while wizards vex zebras"] * 3, seed=3, out_dir=base
    )
    return save_reward_model(base, base.with_name("reward"), scale=10, calibration=FOREIGN)


@pytest.fixture(scope="module")
def retemplated_folder(sft_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a reward model with the policy's vocabulary and another template."""
    folder = tmp_path_factory.mktemp("retemplated") / "reward"
    return save_reward_model(sft_folder, folder, scale=1, calibration=RETEMPLATED)


@pytest.fixture(scope="module")
def sampled(tokenizer, requests) -> Sampled:
    """Return answers of different lengths, two of them cut off."""
    conversations = requests[: len(ANSWERS)]
    rows = [encode_answer(tokenizer, answer) for answer in ANSWERS]
    rows = [row[:-1] if i in CUT_OFF else row for i, row in enumerate(rows)]
    prompts = [encode_prompt(tokenizer, conversation) for conversation in conversations]
    assert len({len(row) for row in rows}) > 4
    assert max(max(row) for row in rows) >= 300, "the foreign reward model has no such id"
    return Sampled(
        conversations,
        [decode_answer(tokenizer, row) for row in rows],
        pad_left(prompts, tokenizer.pad_token_id, CPU),
        pad_right(rows, tokenizer.pad_token_id, CPU),
        torch.zeros(len(rows), dtype=torch.bool),
    )


def load(folders: list[Path], tokenizer, *, dtype: Dtype = Dtype.FLOAT32, **config) -> Rewards:
    return Rewards.load(
        PPOConfig(**config), folders, tokenizer=tokenizer, device=CPU, dtype=dtype, max_prompt_tokens=128
    )


def by_hand(folder: Path, prompts: list[str], answers: list[str], calibration: tuple[float, float]) -> list[float]:
    """Score whole texts one at a time, without padding, with transformers alone."""
    model = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=1).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    offset, temperature = calibration
    found = []
    for prompt, answer in zip(prompts, answers, strict=True):
        ids = [*tokenizer(prompt)["input_ids"], *tokenizer(answer)["input_ids"], tokenizer.eos_token_id]
        with torch.no_grad():
            found.append((float(model(input_ids=torch.tensor([ids])).logits) - offset) / temperature)
    assert max(found) - min(found) > 0.2, "such scores would tell nothing"
    return found


@pytest.fixture(scope="module")
def own_scores(reward_folder, sampled) -> list[float]:
    prompts = [f"<|user|>{conversation[0].content}<|assistant|>" for conversation in sampled.conversations]
    return by_hand(reward_folder, prompts, ANSWERS, OWN)


@pytest.fixture(scope="module")
def foreign_scores(foreign_folder, sampled) -> list[float]:
    prompts = [f"### USER:\n{conversation[0].content}\n### ANSWER:\n" for conversation in sampled.conversations]
    return by_hand(foreign_folder, prompts, ANSWERS, FOREIGN)


@pytest.fixture(scope="module")
def ensemble(reward_folder, foreign_folder, tokenizer) -> Rewards:
    return load([reward_folder, foreign_folder], tokenizer)


# Reward models


def test_a_model_with_the_policys_tokens_reads_its_ids(reward_folder, tokenizer, sampled, own_scores):
    """Cut-off answers get an EOS; the texts are not looked at."""
    nonsense = sampled._replace(texts=["nonsense"] * len(ANSWERS))
    scored = load([reward_folder], tokenizer).score(nonsense)
    assert scored.scores_B.tolist() == pytest.approx(own_scores, abs=1e-5)
    assert list(scored.parts) == ["reward_model"]
    assert torch.equal(scored.parts["reward_model"], scored.scores_B)


def test_a_model_with_another_tokenizer_reads_the_text_in_its_own_template(
    foreign_folder, tokenizer, sampled, foreign_scores
):
    scored = load([foreign_folder], tokenizer).score(sampled)
    assert scored.scores_B.tolist() == pytest.approx(foreign_scores, abs=1e-5)


def test_a_model_with_another_template_alone_reads_the_text_too(retemplated_folder, tokenizer, sampled):
    rewards = load([retemplated_folder], tokenizer)
    assert rewards.main.tokenizer.get_vocab() == tokenizer.get_vocab()
    prompts = [f"### USER:\n{conversation[0].content}\n### ANSWER:\n" for conversation in sampled.conversations]
    expected = by_hand(retemplated_folder, prompts, ANSWERS, RETEMPLATED)
    assert rewards.score(sampled).scores_B.tolist() == pytest.approx(expected, abs=1e-5)


def test_same_tokens_needs_vocabulary_template_bos_and_eos(tokenizer, reward_folder, foreign_folder):
    assert same_tokens(tokenizer, load_tokenizer(reward_folder))
    assert not same_tokens(tokenizer, load_tokenizer(foreign_folder))
    other = load_tokenizer(foreign_folder)
    other.chat_template = tokenizer.chat_template
    assert not same_tokens(tokenizer, other)
    for changed in ({"eos_token": "<|system|>"}, {"bos_token": "<|system|>"}, {"chat_template": TEMPLATE}):
        other = AutoTokenizer.from_pretrained(reward_folder, **changed)
        assert not same_tokens(tokenizer, other), changed


def test_members_keep_their_names_and_the_first_is_the_main_one(ensemble, sampled, own_scores, foreign_scores):
    parts = ensemble.score(sampled).parts
    assert list(parts) == ["reward_model", "reward_model/0", "reward_model/1", "reward_model/std"]
    assert parts["reward_model/0"].tolist() == pytest.approx(own_scores, abs=1e-5)
    assert parts["reward_model/1"].tolist() == pytest.approx(foreign_scores, abs=1e-5)
    half_distance = [abs(a - b) / 2 for a, b in zip(own_scores, foreign_scores, strict=True)]
    assert parts["reward_model/std"].tolist() == pytest.approx(half_distance, abs=1e-5)
    mean = [(a + b) / 2 for a, b in zip(own_scores, foreign_scores, strict=True)]
    assert parts["reward_model"].tolist() == pytest.approx(mean, abs=1e-5)
    assert ensemble.main.calibration == Calibration(*OWN)


@pytest.mark.parametrize("micro_batch_rows", [1, 2, 3, 64])
def test_scores_do_not_depend_on_the_batch(ensemble, sampled, own_scores, foreign_scores, micro_batch_rows: int):
    parts = ensemble.score(sampled, micro_batch_rows=micro_batch_rows).parts
    assert parts["reward_model/0"].tolist() == pytest.approx(own_scores, abs=1e-5)
    assert parts["reward_model/1"].tolist() == pytest.approx(foreign_scores, abs=1e-5)


@pytest.mark.parametrize("some", [{1}, {0, 4, 6}, set(range(len(ANSWERS)))])
def test_an_answer_with_a_control_token_inside_is_read_as_its_text(
    reward_folder, tokenizer, sampled, own_scores, some: set[int]
):
    """A sampled mark of a turn is not in the text, and changes no score; the others are read by their ids."""
    mark = tokenizer.convert_tokens_to_ids("<|user|>")
    rows = [ids[mask].tolist() for ids, mask in zip(*sampled.responses, strict=True)]
    marked = [[mark, *row] if number in some else row for number, row in enumerate(rows)]
    responses = pad_right(marked, tokenizer.pad_token_id, CPU)
    control_B = responses.holds(inner_control_ids(tokenizer))
    assert control_B.tolist() == [number in some for number in range(len(rows))]
    texts = [text if number in some else "nonsense" for number, text in enumerate(sampled.texts)]
    rewards = load([reward_folder], tokenizer)
    for micro_batch_rows in (2, 64):
        told = sampled._replace(responses=responses, control_B=control_B, texts=texts)
        scored = rewards.score(told, micro_batch_rows=micro_batch_rows)
        assert scored.scores_B.tolist() == pytest.approx(own_scores, abs=1e-5)
    by_ids = rewards.score(sampled._replace(responses=responses)).scores_B.tolist()
    assert max(abs(a - b) for a, b in zip(by_ids, own_scores, strict=True)) > 0.001, "the mark decides nothing here"


@pytest.mark.parametrize("rows", [[3], [6, 0, 5, 1], [2, 2]])
def test_scores_follow_their_rows(ensemble, sampled, rows: list[int]):
    some = Sampled(
        [sampled.conversations[i] for i in rows],
        [sampled.texts[i] for i in rows],
        Prompts(*(x[rows] for x in sampled.prompts)),
        Responses(*(x[rows] for x in sampled.responses)),
        sampled.control_B[rows],
    )
    assert torch.allclose(ensemble.score(some).scores_B, ensemble.score(sampled).scores_B[rows], atol=1e-5)


def test_rows_of_like_length_are_read_together_without_columns_of_padding(
    reward_folder, tokenizer, sampled, monkeypatch
):
    """A short answer is not read as wide as the longest, and never more rows at once than asked."""
    rewards = load([reward_folder], tokenizer)
    seen: list[tuple[int, bool]] = []
    lengths: list[int] = []
    score_tokens = rewards.main.score_tokens

    def spy(prompts: Prompts, responses: Responses) -> torch.Tensor:
        every_column_counts = prompts.mask_BP[:, 0].any() and responses.mask_BR[:, -1].any()
        seen.append((len(prompts.ids_BP), bool(every_column_counts)))
        lengths.extend((prompts.mask_BP.sum(dim=1) + responses.mask_BR.sum(dim=1)).tolist())
        return score_tokens(prompts, responses)

    monkeypatch.setattr(rewards.main, "score_tokens", spy)
    rewards.score(sampled, micro_batch_rows=3)
    assert seen == [(3, True), (3, True), (1, True)]
    assert lengths == sorted(lengths)


def test_what_padding_holds_is_never_read(ensemble, sampled):
    junk = sampled._replace(
        prompts=Prompts(torch.where(sampled.prompts.mask_BP, sampled.prompts.ids_BP, 1), sampled.prompts.mask_BP),
        responses=Responses(
            torch.where(sampled.responses.mask_BR, sampled.responses.ids_BR, 1), sampled.responses.mask_BR
        ),
    )
    assert torch.allclose(ensemble.score(junk).scores_B, ensemble.score(sampled).scores_B, atol=1e-5)


def test_models_are_frozen(ensemble):
    for member in ensemble.members:
        assert not any(weight.requires_grad for weight in member.model.model.parameters())
        assert not member.model.model.training


def test_scores_carry_no_gradient_even_if_a_function_has_one(reward_folder, tokenizer, sampled, monkeypatch):
    learned = torch.ones(len(ANSWERS), requires_grad=True)
    monkeypatch.setitem(FUNCTIONS, "length_penalty", lambda sampled: 2 * learned)
    scored = load([reward_folder], tokenizer, reward_functions={"length_penalty": 1.0}).score(sampled)
    assert not any(x.requires_grad for x in (scored.scores_B, *scored.parts.values()))


def test_bfloat16_models_give_float32_scores(reward_folder, foreign_folder, tokenizer, sampled, ensemble):
    """Far from exact, as such numbers are, and the same kind of number."""
    rewards = load(
        [reward_folder, foreign_folder], tokenizer, dtype=Dtype.BFLOAT16, reward_functions=dict.fromkeys(FUNCTIONS, 1.0)
    )
    assert all(member.model.model.dtype is torch.bfloat16 for member in rewards.members)
    scored = rewards.score(sampled)
    assert {x.dtype for x in (scored.scores_B, *scored.parts.values())} == {torch.float32}
    expected = ensemble.score(sampled).parts["reward_model"]
    assert torch.corrcoef(torch.stack([scored.parts["reward_model"], expected]))[0, 1] > 0.99


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_gives_the_same_scores(reward_folder, foreign_folder, tokenizer, sampled, ensemble):
    gpu = torch.device("cuda")
    rewards = Rewards.load(
        PPOConfig(reward_functions=dict.fromkeys(FUNCTIONS, 1.0)),
        [reward_folder, foreign_folder],
        tokenizer=tokenizer,
        device=gpu,
        dtype=Dtype.FLOAT32,
        max_prompt_tokens=128,
    )
    there = sampled._replace(
        prompts=Prompts(*(x.to(gpu) for x in sampled.prompts)),
        responses=Responses(*(x.to(gpu) for x in sampled.responses)),
    )
    scored = rewards.score(there)
    assert {x.device.type for x in (scored.scores_B, *scored.parts.values())} == {"cuda"}
    expected = ensemble.score(sampled).parts["reward_model"]
    assert torch.allclose(scored.parts["reward_model"].cpu(), expected, atol=1e-3)


# The ensemble


def test_ensembles_by_hand():
    """Variances of (1, 3, 5) and (2, 2, 2) over three members: 8/3 and 0."""
    scores_MB = torch.tensor([[1.0, 2.0], [3.0, 2.0], [5.0, 2.0]])
    assert combine(scores_MB, Ensemble.MEAN, 0.6).tolist() == [3.0, 2.0]
    assert combine(scores_MB, Ensemble.WORST, 0.6).tolist() == [1.0, 2.0]
    assert combine(scores_MB, Ensemble.UNCERTAINTY, 0.6).tolist() == pytest.approx([3 - 0.6 * 8 / 3, 2.0])


@pytest.mark.parametrize("how", list(Ensemble))
def test_one_member_is_taken_as_it_is_and_the_order_of_members_never_matters(how: Ensemble):
    scores_MB = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    assert torch.equal(combine(scores_MB[:1], how, 0.5), scores_MB[0])
    assert torch.allclose(combine(scores_MB.flip(0), how, 0.5), combine(scores_MB, how, 0.5))


@pytest.mark.parametrize("how", list(Ensemble))
def test_the_configured_ensemble_is_used(how: Ensemble, reward_folder, foreign_folder, tokenizer, sampled):
    rewards = load([reward_folder, foreign_folder], tokenizer, ensemble=how, uncertainty_coef=0.7)
    scored = rewards.score(sampled)
    scores_MB = torch.stack([scored.parts["reward_model/0"], scored.parts["reward_model/1"]])
    assert torch.equal(scored.scores_B, combine(scores_MB, how, 0.7))


# Functions


def plain(texts: list[str], lengths: list[int]) -> Sampled:
    """Return answers of which only text and length matter."""
    responses = pad_right([[5] * length for length in lengths], 0, CPU)
    prompts = Prompts(responses.ids_BR, responses.mask_BR)
    return Sampled([], texts, prompts, responses, torch.zeros(len(texts), dtype=torch.bool))


def test_functions_are_those_that_the_configuration_knows():
    assert tuple(FUNCTIONS) == REWARD_FUNCTIONS


def test_length_is_counted_in_hundreds_of_tokens_without_padding():
    assert length_penalty(plain(["", "", ""], [1, 150, 40])).tolist() == pytest.approx([-0.01, -1.5, -0.4])


@pytest.mark.parametrize(
    ("text", "share"),
    [
        ("", 0.0),
        ("two words", 0.0),
        ("no no no", 0.0),
        ("no no no no", 1 / 2),
        ("No no  NO\nno", 1 / 2),
        ("a b c d e", 0.0),
        ("a b c a b c", 1 / 4),
        ("la " * 12, 9 / 10),
    ],
)
def test_repetition_by_hand(text: str, share: float):
    assert repetition_penalty(plain([text, "a b c d"], [1, 1])).tolist() == pytest.approx([-share, 0.0])


def test_the_reward_is_the_weighted_sum_of_its_sources(reward_folder, tokenizer, sampled, own_scores):
    weights = {"length_penalty": 2.0, "repetition_penalty": 0.3}
    scored = load([reward_folder], tokenizer, reward_model_weight=0.5, reward_functions=weights).score(sampled)
    lengths = sampled.responses.mask_BR.sum(dim=1).tolist()
    repeated = [0.0] * len(ANSWERS)
    repeated[4] = 4 / 6  # "sure . sure . sure . sure .": six 3-grams of two kinds
    expected = [
        0.5 * score - 2.0 * length / 100 - 0.3 * share
        for score, length, share in zip(own_scores, lengths, repeated, strict=True)
    ]
    assert scored.scores_B.tolist() == pytest.approx(expected, abs=1e-5)
    assert scored.parts["reward_model"].tolist() == pytest.approx(own_scores, abs=1e-5)
    assert scored.parts["length_penalty"].tolist() == pytest.approx([-length / 100 for length in lengths])
    assert scored.parts["repetition_penalty"].tolist() == pytest.approx([-share for share in repeated])


def test_a_function_that_gives_a_column_is_refused(reward_folder, tokenizer, sampled, monkeypatch):
    """Added to a row of scores it would silently become a square."""
    monkeypatch.setitem(FUNCTIONS, "length_penalty", lambda sampled: length_penalty(sampled)[:, None])
    rewards = load([reward_folder], tokenizer, reward_functions={"length_penalty": 1.0})
    with pytest.raises(AssertionError, match=r"length_penalty gave \(7, 1\), not one number per answer"):
        rewards.score(sampled)
