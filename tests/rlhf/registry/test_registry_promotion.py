import json
from pathlib import Path

import pytest
from registries import add
from typer.testing import CliRunner, Result

from rlhf.registry import CANDIDATE, Artifact, Registry, Tag, Verdict, parse_tag
from rlhf.registry.commands import app
from rlhf.registry.promotion import objections
from sft.core.errors import DataError, UsageError

PASSED = (Verdict("evaluation:1", "evaluation", True), Verdict("bias:1", "bias", True))


@pytest.fixture
def registry(memory_path: Path) -> Registry:
    return Registry(memory_path / "registry")


def invoke(registry: Registry, *args: str) -> Result:
    return CliRunner().invoke(app, [*args, "--registry", str(registry.root)])


def policy(registry: Registry, number: int = 1) -> Artifact:
    return add(registry, "policy", f"p{number}", kind="policy")


def report(registry: Registry, kind: str, about: Artifact, passed: bool | None, *, role: str = "policy") -> Artifact:
    stage = {"metrics": {}} | ({} if passed is None else {"passed": passed})
    number = len(registry.artifacts())
    return add(registry, kind, f"{kind}-{number}", kind=kind, parents=[(role, about)], stage=stage)


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        (PASSED, []),
        (PASSED[:1], ["it has no report of kind 'bias'"]),
        ((), ["it has no report of kind 'evaluation'", "it has no report of kind 'bias'"]),
        ((PASSED[0]._replace(passed=False), PASSED[1]), ["evaluation:1 did not pass"]),
        ((PASSED[0], PASSED[1]._replace(passed=None)), ["bias:1 holds no verdict (an older program made it): "]),
    ],
)
def test_what_stands_against_a_promotion(verdicts, expected):
    found = objections("champion", verdicts)
    assert len(found) == len(expected)
    assert all(line.startswith(start) for line, start in zip(found, expected, strict=True))
    assert objections(CANDIDATE, verdicts) == []


def test_passing_reports_about_the_very_version_earn_the_alias(registry):
    first, second = policy(registry, 1), policy(registry, 2)
    report(registry, "evaluation", first, True)
    report(registry, "bias", first, True)
    assert invoke(registry, "promote", "policy:1").stdout == "policy:1 is policy@champion now\n"
    assert registry.get("policy@champion").ref == first.ref
    with pytest.raises(UsageError, match=r"policy:2 has not earned 'champion': it has no report of kind 'evaluation'"):
        registry.promote(second, "champion", asked_by="test")
    assert registry.get("policy@champion").ref == first.ref
    assert [promotion.ref for promotion in registry.promotions()] == ["policy:1"]


def test_a_report_that_only_used_the_version_says_nothing_of_it(registry):
    """An evaluation compares the policy with the SFT model: it is no report about the SFT model."""
    sft, made = add(registry, "sft", "s"), policy(registry)
    stage = {"metrics": {}, "passed": True}
    for kind in ("evaluation", "bias"):
        add(registry, kind, kind, kind=kind, parents=[("sft", sft), ("policy", made)], stage=stage)
    assert registry.reports(sft) == []
    assert [found.kind for found in registry.reports(made)] == ["evaluation", "bias"]
    with pytest.raises(UsageError, match="sft:1 has not earned"):
        registry.promote(sft, "champion", asked_by="test")


def test_the_latest_report_of_a_kind_decides(registry):
    made = policy(registry)
    report(registry, "bias", made, True)
    report(registry, "evaluation", made, True)
    report(registry, "evaluation", made, False)
    with pytest.raises(UsageError, match="evaluation:2 did not pass"):
        registry.promote(made, "champion", asked_by="test")
    report(registry, "evaluation", made, True)
    assert registry.promote(made, "champion", asked_by="test").aliases == ("champion",)
    assert [verdict.report for verdict in registry.promotions()[0].verdicts] == ["evaluation:3", "bias:1"]


def test_force_wants_a_reason_and_both_are_shown(registry):
    made = policy(registry)
    report(registry, "bias", made, False)
    refused = invoke(registry, "promote", "policy")
    assert isinstance(refused.exception, UsageError)
    assert '--force "REASON"' in str(refused.exception)
    assert isinstance(invoke(registry, "promote", "policy", "--force", " ").exception, UsageError)
    forced = invoke(registry, "promote", "policy", "--alias", "staging", "--force", "demo on Monday", "--json")
    record = json.loads(forced.stdout)["promotion"]
    assert record == json.loads(invoke(registry, "show", "policy", "--json").stdout)["promotions"][0]
    assert (record["alias"], record["reason"]) == ("staging", "demo on Monday")
    assert record["verdicts"] == [{"report": "bias:1", "kind": "bias", "passed": False}]
    assert "@" in record["asked_by"]
    assert "forced: demo on Monday" in invoke(registry, "show", "policy").stdout
    assert registry.get("policy@staging").ref == "policy:1"


def test_the_same_again_is_not_recorded_and_a_return_is(registry):
    one, two = policy(registry, 1), policy(registry, 2)
    for version in (one, one, two, one):
        registry.promote(version, "champion", asked_by="test", verdicts=PASSED)
    registry.promote(one, "champion", asked_by="test", reason="other grounds")
    assert [promotion.ref for promotion in registry.promotions()] == ["policy:1", "policy:2", "policy:1", "policy:1"]
    assert registry.get("policy@champion").ref == "policy:1"
    assert [promotion.ref for promotion in registry.promotions(two)] == ["policy:2"]


def test_damaged_files_are_not_promoted_whatever_the_reason(registry):
    made = policy(registry)
    bias = report(registry, "bias", made, False)
    path = bias.path / "stage.json"
    path.write_text(path.read_text().replace("false", "true "))
    found = invoke(registry, "promote", "policy", "--force", "I know")
    assert isinstance(found.exception, DataError)
    assert str(path) in str(found.exception)
    assert registry.promotions() == []


def test_tags_are_words_or_keys_with_one_value_each(registry):
    made = policy(registry)
    found = invoke(registry, "tag", "policy", "paper", "dataset=HH v2 = best", "--json")
    assert json.loads(found.stdout)["tags"] == ["dataset=HH v2 = best", "paper"]
    assert registry.tag(made, [Tag("dataset", "other")]).tags == (Tag("dataset", "other"), Tag("paper"))
    assert invoke(registry, "tag", "policy", "--remove", "dataset").stdout == "policy:1: paper\n"
    assert "paper" in invoke(registry, "list").stdout
    with pytest.raises(UsageError, match=r"policy:1 has no tag 'ever' and no tag 'never'; it has: paper"):
        registry.tag(made, [Tag("new")], drop=["paper", "never", "ever"])
    assert invoke(registry, "tag", "policy").stdout == "policy:1: paper\n"
    assert registry.tag(made, drop=["paper"]).tags == ()
    assert invoke(registry, "tag", "policy").stdout == "policy:1: no tags\n"
    refused = invoke(registry, "tag", "policy", "--remove", "paper").exception
    assert isinstance(refused, UsageError)
    assert str(refused) == "policy:1 has no tag 'paper'; it has none"


@pytest.mark.parametrize("text", ["", "=x", "Upper", "key=", "key=a\nb", "a b", "key=" + "x" * 201])
def test_odd_tags_are_refused(text):
    with pytest.raises(UsageError, match="tag"):
        parse_tag(text)
