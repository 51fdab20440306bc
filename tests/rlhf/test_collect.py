"""`rlhf labels create`: from a file, and from registered policies in an order by uncertainty."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import select
from typer.testing import CliRunner

from rlhf.answer_pairs import BATCH_SIZE, Sampled, Source, sample_pairs, score_margins, uncertainty
from rlhf.cli import app
from rlhf.labels.collection.study import guidelines, study
from rlhf.labels.collection.tasks import Pair
from rlhf.labels.store import LabelStore, default_url
from rlhf.labels.tables import QUARANTINE, QUEUE, TASK
from rlhf.registry import Registry
from sft.config import RuntimeConfig
from sft.core.errors import DataError, RLHFError
from sft.core.text import Conversation, TokenLimits, encode_answer
from sft.model import load_tokenizer


def test_uncertainty_of_several_models_is_the_spread_of_their_scaled_margins() -> None:
    margins = np.array([[3.0, -4.0], [0.0, -10.0]])
    scaled = [[3 / 12.5**0.5, -4 / 12.5**0.5], [0.0, -(2**0.5)]]
    expected = [abs(scaled[0][0] - scaled[1][0]) / 2, abs(scaled[0][1] - scaled[1][1]) / 2]
    assert uncertainty(margins) == pytest.approx(expected)
    assert uncertainty(margins * [[100.0], [1.0]]) == pytest.approx(expected)  # scales do not matter
    assert uncertainty(margins * [1.0, -1.0]) == pytest.approx(expected)  # nor which answer comes first
    assert uncertainty(np.array([[0.0, 0.0], [1.0, 1.0]])) == pytest.approx([0.5, 0.5])


def test_uncertainty_of_one_model_is_a_small_margin() -> None:
    assert list(uncertainty(np.array([[2.0, -0.5, 0.0]]))) == [-2.0, -0.5, 0.0]


def test_answers_depend_on_the_seed_and_differ_by_chance(
    sft_folder: Path, requests, runtime: RuntimeConfig, limits: TokenLimits
) -> None:
    def sample(seed: int):
        source = Source(sft_folder, "sft:1")
        return sample_pairs(
            source, source, requests, limits=limits, temperature=1.0, runtime=runtime, seed=seed, advance=seen.append
        )

    seen: list[int] = []
    first = sample(0)
    assert seen[-1] == 2 * len(requests)
    assert first == sample(0)
    assert first != sample(1)
    assert len(requests) <= BATCH_SIZE
    assert sum(p.response_a != p.response_b for p in first.pairs) > 0.9 * len(requests)
    assert [p.prompt for p in first.pairs] == requests
    assert {(p.model_a, p.model_b) for p in first.pairs} == {("sft:1", "sft:1")}


def test_each_model_gives_the_answers_of_its_side(
    sft_folder: Path, base_folder: Path, requests, runtime: RuntimeConfig, limits: TokenLimits
) -> None:
    def sample(first: Source, second: Source) -> Sampled:
        return sample_pairs(first, second, requests[:8], limits=limits, temperature=1.0, runtime=runtime, seed=0)

    sft, base = Source(sft_folder, "sft:1"), Source(base_folder, "base:1")
    both, lefts, rights = sample(sft, base), sample(sft, sft), sample(base, base)
    assert [p.response_a for p in both.pairs] == [p.response_a for p in lefts.pairs]
    assert [p.response_b for p in both.pairs] == [p.response_b for p in rights.pairs]
    assert {(p.model_a, p.model_b) for p in both.pairs} == {("sft:1", "base:1")}


def test_every_batch_has_chance_of_its_own_and_cut_answers_are_counted(
    sft_folder: Path, requests, runtime: RuntimeConfig, limits: TokenLimits, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rlhf.answer_pairs.BATCH_SIZE", 4)
    source, short = Source(sft_folder, "sft:1"), TokenLimits(limits.prompt, 2)
    made = sample_pairs(source, source, [requests[0]] * 8, limits=short, temperature=1.0, runtime=runtime, seed=0)
    texts = [pair.response_a for pair in made.pairs]
    assert texts[:4] != texts[4:]
    assert 8 < made.cut_off <= 16  # the EOS is about one token in ten


def test_no_pair_is_made_that_the_reward_model_could_not_take(
    sft_folder: Path, requests, runtime: RuntimeConfig, limits: TokenLimits
) -> None:
    source = Source(sft_folder, "sft:1")

    def sample(longest: int | None) -> Sampled:
        wide = {"limits": limits, "temperature": 1.0, "runtime": runtime, "seed": 0, "longest": longest}
        return sample_pairs(source, source, requests, **wide)

    everything, some = sample(None), sample(8)
    assert everything.too_long == 0
    tokenizer = load_tokenizer(sft_folder)

    def length(text: str) -> int:
        return len(encode_answer(tokenizer, text)) - 1

    short = [p for p in everything.pairs if max(length(p.response_a), length(p.response_b)) <= 8]
    assert some.pairs == short
    assert some.too_long == len(requests) - len(short)
    assert 0 < some.too_long < len(requests)


def test_margins_are_those_of_the_reward_model(
    reward_folder: Path, reward_model, requests, runtime: RuntimeConfig, limits: TokenLimits
) -> None:
    pairs = [Pair(requests[0], "use a dry cloth .", "figure it out ."), Pair(requests[1], "of course .", "good luck .")]
    found = score_margins([reward_folder] * 2, pairs, max_prompt_tokens=limits.prompt, runtime=runtime)
    assert found.shape == (2, 2)
    for number, pair in enumerate(pairs):
        scores = reward_model.score_texts([(pair.prompt, pair.response_a), (pair.prompt, pair.response_b)])
        assert found[0, number] == pytest.approx(scores[0] - scores[1], abs=1e-5)


@pytest.fixture(scope="module")
def registry(
    tmp_path_factory: pytest.TempPathFactory, base_folder: Path, sft_folder: Path, reward_folder: Path
) -> Path:
    """Return a registry with two language models and two reward models."""
    root = tmp_path_factory.mktemp("collect") / "registry"
    store = Registry(root)
    for kind, source in (
        ("base", base_folder),
        ("sft", sft_folder),
        ("reward", reward_folder),
        ("reward", reward_folder),
    ):
        fingerprint = f"{kind}{len(store.artifacts())}"
        with store.workspace(fingerprint) as folder:
            for file in source.iterdir():
                (folder / file.name).write_bytes(file.read_bytes())
            store.register(folder, name=kind, kind=kind, fingerprint=fingerprint, metadata={}, parents=[])
    return root


def create(root: Path, database: Path, *words: str) -> dict:
    where = ["--registry", str(root), "--database", f"sqlite:///{database}", "--json"]
    result = CliRunner().invoke(app, ["labels", "create", "trial", *words, *where])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def write(path: Path, rows: Sequence[object]) -> str:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return str(path)


def test_a_file_becomes_tasks_gold_tasks_and_a_study(tmp_path: Path) -> None:
    rows: list[object] = [{"prompt": f"q{n}", "answers": ["x", "y"]} for n in range(4)]
    rows += [{"prompt": "known", "answers": ["x", "y"], "gold": "a"}, {"prompt": "bad", "answers": ["x"]}]
    test = [{"prompt": "test", "answers": ["x", "y"], "gold": "b"}]
    (tmp_path / "guide.md").write_text("Be fair.")
    words = ["--from", write(tmp_path / "f.jsonl", rows), "--qualification", write(tmp_path / "t.jsonl", test)]
    words += ["--attribute", "helpful", "--question", "Which one?", "--guidelines", str(tmp_path / "guide.md")]
    found = create(tmp_path / "none", tmp_path / "labels.sqlite", *words, "--overlap", "3")
    assert (found["label"]["queued"], found["gold"]["queued"], found["qualification"]["queued"]) == (4, 1, 1)
    (unused,) = found["unused_rows"]
    assert (unused["quarantined"], unused["first"]) == (
        1,
        ["line 6: no pair of answers: found 1 of them, needed are 2 to 32"],
    )
    assert found["next"].startswith("rlhf labels serve --project trial --database sqlite:///")
    store = LabelStore(f"sqlite:///{tmp_path / 'labels.sqlite'}")
    with store.changing("trial") as (connection, project):
        settings = study(connection, project)
        assert (settings.question, settings.attributes, settings.overlap) == ("Which one?", ("helpful",), 3)
        assert guidelines(connection, project).text == "Be fair."
        assert connection.execute(select(QUARANTINE.c.line, QUARANTINE.c.kind)).all() == [(6, "no pair of answers")]
    again = create(tmp_path / "none", tmp_path / "labels.sqlite", *words[:2], "--overlap", "2")
    assert (again["label"]["queued"], again["label"]["already"]) == (0, 4)
    assert again["changed_settings"] == ["overlap: 3 -> 2"]


def test_policies_answer_and_uncertain_pairs_come_first(registry: Path, tmp_path: Path, requests) -> None:
    prompts = write(tmp_path / "p.jsonl", [{"prompt": request[0].content} for request in requests[:20]])
    words = ["--policy", "sft", "--against", "base", "--prompts", prompts, "--max-tokens", "16"]
    words += ["--select", "uncertainty", "--reward", "reward:1", "--random-share", "0.25"]
    found = create(registry, tmp_path / "labels.sqlite", *words)
    assert (found["policy"], found["against"], found["prompts"], found["pairs"]) == ("sft:1", "base:1", 20, 20)
    made = found["label"]
    assert made["queued"] + made["already"] + made["identical"] + made["empty"] == 20
    assert made["at_random"] == round(0.25 * made["queued"])
    with LabelStore(f"sqlite:///{tmp_path / 'labels.sqlite'}").changing("trial") as (connection, _):
        rows = connection.execute(
            select(QUEUE.c.score, TASK.c.model_a, TASK.c.model_b).join_from(QUEUE, TASK).order_by(QUEUE.c.position)
        ).all()
    scores = [row.score for row in rows if row.score is not None]
    assert scores == sorted(scores, reverse=True)
    assert max(scores) <= 0  # minus the absolute margin
    assert {frozenset((row.model_a, row.model_b)) for row in rows} == {frozenset(("sft:1", "base:1"))}
    assert create(registry, tmp_path / "labels.sqlite", *words)["label"]["queued"] == 0  # the same answers again


def test_prompt_and_answer_together_fit_the_model(
    registry: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[TokenLimits] = []

    def spy(first: Source, second: Source, prompts: Sequence[Conversation], **settings) -> Sampled:
        seen.append(settings["limits"])
        return Sampled([Pair(prompt, "x", "y") for prompt in prompts], 0, 0)

    monkeypatch.setattr("rlhf.answer_pairs.sample_pairs", spy)
    prompts = write(tmp_path / "p.jsonl", [{"prompt": "q"}])
    create(registry, tmp_path / "labels.sqlite", "--policy", "sft", "--prompts", prompts, "--max-tokens", "100")
    assert seen == [TokenLimits(prompt=28, answer=100)]  # the models read 128


TWICE = ["--select", "uncertainty", "--reward", "reward", "--reward", "reward:2"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "--from FILE, or have them made with --policy"),
        (["--policy", "sft"], "--policy and --prompts belong together"),
        (["--from", "f", "--select", "best"], "use one of random, uncertainty"),
        (["--from", "f", "--select", "uncertainty"], "--select uncertainty and --reward REF belong together"),
        (["--from", "f", "--temperature", "0"], "greater than 0"),
        (["--policy", "reward", "--prompts", "PROMPTS"], "reward:2 is of kind 'reward', needed is one of sft"),
        (["--policy", "sft", "--prompts", "PROMPTS", "--max-tokens", "128"], "leaves no room for a prompt"),
        (
            ["--policy", "sft", "--prompts", "PROMPTS", "--max-tokens", "4", *TWICE],
            "reward:2 is given twice",
        ),
    ],
)
def test_wrong_words_say_what_to_do(registry: Path, tmp_path: Path, words: list[str], message: str) -> None:
    prompts = write(tmp_path / "p.jsonl", [{"prompt": "how do i bake bread ?"}])
    with pytest.raises(RLHFError, match=message):
        create(registry, tmp_path / "labels.sqlite", *(prompts if word == "PROMPTS" else word for word in words))
    assert not (tmp_path / "labels.sqlite").exists()


def test_the_database_lies_beside_the_registry(tmp_path: Path) -> None:
    file = write(tmp_path / "f.jsonl", [{"prompt": "q", "answers": ["x", "y"]}])
    root = tmp_path / "registry"
    result = CliRunner().invoke(app, ["labels", "create", "trial", "--from", file, "--registry", str(root)])
    assert result.exit_code == 0
    assert f"rlhf labels serve --project trial --registry {root}" in result.stdout
    with LabelStore(default_url(root)).changing("trial") as (connection, _):
        assert connection.scalar(select(TASK.c.response_a)) == "x"


def test_a_file_of_pairs_that_nobody_can_compare_makes_no_project(tmp_path: Path) -> None:
    rows = [{"prompt": "a", "answers": ["x", "x"]}, {"prompt": "b", "answers": ["", "y"]}]
    with pytest.raises(DataError, match="1 pairs have twice the same answer, 1 have one without text"):
        create(tmp_path / "none", tmp_path / "labels.sqlite", "--from", write(tmp_path / "f.jsonl", rows))
    found = create(
        tmp_path / "none",
        tmp_path / "labels.sqlite",
        "--from",
        write(tmp_path / "f.jsonl", [*rows, {"prompt": "c", "answers": ["x", "y"]}]),
    )
    assert found["label"]["queued"] == 1
