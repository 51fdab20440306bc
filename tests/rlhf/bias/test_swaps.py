import pytest

from rlhf.bias.swaps import counterfactual_prompts, make_probes, mentions, swap_conversation, swap_terms
from sft.core.text import Message, user

GROUPS = {"women": ["maria", "anna", "she", "her"], "men": ["paul", "jonas", "he", "him"]}
WOMEN, MEN = GROUPS["women"], GROUPS["men"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ask maria , she knows .", "ask paul , he knows ."),
        ("She said MARIA and Maria came.", "He said PAUL and Paul came."),
        ("Anna's hat; Maria’s too; she'll go", "Jonas's hat; Paul’s too; he'll go"),
        ("sheep, there, annabel, mariachi, the_her", "sheep, there, annabel, mariachi, the_her"),
        ("", ""),
    ],
)
def test_whole_words_are_swapped_and_keep_their_case(text: str, expected: str) -> None:
    assert swap_terms(text, WOMEN, MEN) == expected


def test_swapping_back_restores_the_text() -> None:
    text = "Maria told him that Jonas and Anna know her."
    there = swap_terms("Maria and Anna know she was here, ask her.", WOMEN, MEN)
    assert swap_terms(there, MEN, WOMEN) == "Maria and Anna know she was here, ask her."
    assert swap_terms(text, WOMEN, MEN) == "Paul told him that Jonas and Jonas know him."


def test_a_term_as_listed_becomes_its_counterpart_as_listed() -> None:
    assert swap_terms("McKenzie and mckenzie", ["McKenzie"], ["de Vries"]) == "de Vries and de vries"


def test_the_longer_of_two_terms_wins_and_signs_are_plain_text() -> None:
    women, men = ["girl", "girl friend", "(f.)"], ["boy", "lad", "(m.)"]
    assert swap_terms("a girl friend, a girl (f.)", women, men) == "a lad, a boy (m.)"


@pytest.mark.parametrize(
    ("women", "men"),
    [
        ("she lost her book", "he lost his book"),
        ("Her mother", "His mother"),
        ("ask her", "ask him"),
        ("tell her that it is late", "tell him that it is late"),
        ("ask her. She", "ask him. He"),
    ],
)
def test_her_is_him_or_his_by_the_next_word(women: str, men: str) -> None:
    her, his = ["she", "her", "hers"], ["he", "him", "his"]
    assert swap_terms(women, her, his) == men
    assert swap_terms(men, his, her) == women


def test_his_without_a_noun_is_hers() -> None:
    assert swap_terms("it is his, his and not mine", ["he", "him", "his"], ["she", "her", "hers"]) == (
        "it is hers, hers and not mine"
    )


def test_unequal_lists_are_refused() -> None:
    with pytest.raises(ValueError, match="shorter"):
        swap_terms("she", ["she", "her"], ["he"])


def test_a_swap_leaves_the_conversation_it_was_given() -> None:
    prompt = (Message("user", "Anna asks."), Message("assistant", "What does she ask?"))
    swapped = swap_conversation(prompt, WOMEN, MEN)
    assert swapped == (Message("user", "Jonas asks."), Message("assistant", "What does he ask?"))
    assert prompt[0].content == "Anna asks."


def test_mentions_finds_groups_in_any_case() -> None:
    assert mentions("HE and Maria", GROUPS) == {"women", "men"}
    assert mentions("sheer theory", GROUPS) == set()
    assert mentions("she", {"women": ["she"], "empty": []}) == {"women"}


def test_a_probe_has_every_version_and_the_original_as_written() -> None:
    (probe,) = make_probes([(user("how ?"), "ask Maria .", "figure it out .")], GROUPS, limit=10, seed=0)
    assert probe.original == "women"
    assert probe.cluster == "maria/paul"
    assert probe.preferred
    assert probe.answer_by_group == {"women": "ask Maria .", "men": "ask Paul ."}
    assert probe.prompt_by_group == {"women": user("how ?"), "men": user("how ?")}
    assert (probe.other, probe.other_by_group) == ("figure it out .", None)


def test_both_answers_are_probes_and_both_versions_exist_where_both_name_one_group() -> None:
    first, second = make_probes([(user("how ?"), "ask paul .", "jonas knows .")], GROUPS, limit=10, seed=0)
    assert (first.preferred, second.preferred) == (True, False)
    assert (first.other, second.other) == ("jonas knows .", "ask paul .")
    assert first.other_by_group == {"women": "anna knows .", "men": "jonas knows ."}


def test_the_original_stays_as_written_where_its_case_is_odd() -> None:
    (probe,) = make_probes([(user("how ?"), "ask mARIA .", "no .")], GROUPS, limit=10, seed=0)
    assert probe.answer_by_group == {"women": "ask mARIA .", "men": "ask Paul ."}


def test_both_are_not_swapped_where_the_other_answer_names_two_groups() -> None:
    (probe,) = make_probes([(user("how ?"), "ask maria .", "ask anna or paul .")], GROUPS, limit=10, seed=0)
    assert (probe.other, probe.other_by_group) == ("ask anna or paul .", None)


def test_answers_that_name_no_group_or_two_make_no_probe() -> None:
    pairs = [(user("how ?"), "ask maria or paul .", "no .")]
    assert make_probes(pairs, GROUPS, limit=10, seed=0) == []


def test_a_prompt_that_names_the_answers_group_is_swapped_with_it() -> None:
    (probe,) = make_probes([(user("maria asks"), "tell maria so .", "no .")], GROUPS, limit=10, seed=0)
    assert probe.prompt_by_group == {"women": user("maria asks"), "men": user("paul asks")}
    assert probe.other == "no ."


def test_a_prompt_that_names_another_group_makes_no_probe() -> None:
    assert make_probes([(user("paul asks"), "tell maria so .", "no .")], GROUPS, limit=10, seed=0) == []


def test_one_answer_is_not_swapped_alone_when_the_prompt_is_and_the_other_answer_names_someone() -> None:
    probes = make_probes([(user("maria asks"), "tell maria so .", "anna knows .")], GROUPS, limit=10, seed=0)
    assert [probe.other for probe in probes] == [None, None]
    assert probes[0].other_by_group == {"women": "anna knows .", "men": "jonas knows ."}


def test_the_cluster_is_the_rarest_term() -> None:
    pairs = [(user(f"q{i}"), f"{name} says she knows .", "no .") for i, name in enumerate(["maria", "anna"])]
    assert [p.cluster for p in make_probes(pairs, GROUPS, limit=9, seed=0)] == ["maria/paul", "anna/jonas"]


def test_the_limit_keeps_rare_terms_and_groups() -> None:
    common = [(user(f"c{i}"), "she knows .", "no .") for i in range(90)]
    rare = [(user(f"r{i}"), answer, "no .") for i, answer in enumerate(["he knows .", "anna knows .", "ask paul ."])]
    probes = make_probes([*common, *rare], GROUPS, limit=10, seed=3)
    assert len(probes) == 10
    assert {p.cluster for p in probes} == {"she/he", "anna/jonas", "maria/paul"}
    assert sum(p.original == "men" for p in probes) == 2
    assert probes == make_probes([*common, *rare], GROUPS, limit=10, seed=3)
    assert probes != make_probes([*common, *rare], GROUPS, limit=10, seed=4)


def test_counterfactual_prompts_come_in_every_version() -> None:
    prompts = [user("Anna asks"), user("nobody asks"), user("anna and paul ask"), user("anna  asks")]
    women, men = counterfactual_prompts(prompts, GROUPS, limit=5, seed=0)
    assert (women.group, women.prompt) == ("women", user("anna  asks"))
    assert (men.group, men.prompt) == ("men", user("jonas  asks"))
    assert women.base == men.base
    assert women.cluster == "anna/jonas"


def test_the_limit_of_counterfactual_prompts_counts_requests() -> None:
    prompts = [user(f"{name} asks {i}") for i in range(9) for name in ("anna", "paul")]
    versions = counterfactual_prompts(prompts, GROUPS, limit=4, seed=0)
    assert len(versions) == 8
    assert len({version.base for version in versions}) == 4
    assert {version.cluster for version in versions} == {"anna/jonas", "maria/paul"}
