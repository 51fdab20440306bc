"""`rlhf models gc`: what nothing refers to goes, and nothing else, in whatever order things happened."""

import json
import os
import shutil
import signal
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from registries import Open, add, assert_whole, leftovers, start, wait_for
from typer.testing import CliRunner, Result

from rlhf.registry import Artifact, Registry, Tag, Verdict
from rlhf.registry.commands import app
from sft.core.durable import seal
from sft.core.errors import UsageError


@pytest.fixture
def registry(memory_path: Path) -> Registry:
    return Registry(memory_path / "registry")


def invoke(registry: Registry, *args: str) -> Result:
    return CliRunner().invoke(app, ["gc", *args, "--registry", str(registry.root)])


def swept(registry: Registry, *, remove: bool = True) -> list[str]:
    return [useless.what for useless in registry.sweep(remove=remove).found]


def runs(registry: Registry, count: int) -> dict[str, Artifact]:
    """Register so many times: sft -> policy, and a report on each policy."""
    made = {}
    for number in range(1, count + 1):
        sft = add(registry, "sft", f"s{number}")
        policy = add(registry, "policy", f"p{number}", kind="policy", parents=[("sft", sft)])
        parents = [("sft", sft), ("policy", policy)]
        report = add(registry, "bias", f"r{number}", kind="bias", parents=parents, stage={"passed": True})
        made |= {artifact.ref: artifact for artifact in (sft, policy, report)}
    return made


def test_what_nothing_refers_to_goes_and_the_latest_of_each_name_stays(registry):
    runs(registry, 3)
    everything = ["bias:1", "bias:2", "policy:1", "policy:2", "sft:1", "sft:2"]
    assert swept(registry, remove=False) == everything
    assert len(registry.artifacts()) == 9
    assert swept(registry) == everything
    assert [artifact.ref for artifact in registry.artifacts()] == ["bias:3", "policy:3", "sft:3"]
    assert sorted(path.name for path in (registry.root / "sft").iterdir()) == ["3"]
    assert leftovers(registry) == []
    assert swept(registry) == []


@pytest.mark.parametrize(
    ("refer", "stays"),
    [
        (lambda registry, made: registry.set_alias(made["policy:1"], "old"), {"policy:1", "sft:1", "bias:1"}),
        (lambda registry, made: registry.tag(made["policy:1"], [Tag("paper")]), {"policy:1", "sft:1", "bias:1"}),
        (lambda registry, made: registry.tag(made["sft:1"], [Tag("paper")]), {"sft:1"}),
        (lambda registry, made: registry.tag(made["bias:1"], [Tag("paper")]), {"policy:1", "sft:1", "bias:1"}),
        (
            lambda registry, made: add(registry, "other", "o", parents=[("init", made["policy:1"])]),
            {"policy:1", "sft:1", "bias:1"},
        ),
    ],
)
def test_what_is_referred_to_stays_with_all_it_was_made_from_and_the_reports_about_it(registry, refer, stays):
    made = runs(registry, 2)
    refer(registry, made)
    assert {"bias:1", "policy:1", "sft:1"} - set(swept(registry)) == stays


def test_what_was_once_promoted_stays_with_the_reports_that_it_rests_on(registry):
    made = runs(registry, 3)
    grounds = [Verdict("bias:2", "bias", True)]
    registry.promote(made["policy:1"], "champion", asked_by="test", verdicts=grounds, reason="forced")
    registry.promote(made["policy:3"], "champion", asked_by="test", reason="forced")
    assert swept(registry) == []


def test_an_erasure_stays_as_long_as_the_labels_that_it_speaks_of(registry):
    labels = add(registry, "labels", "l", kind="dataset")
    registry.tag(labels, [Tag("study")])
    add(registry, "erasure", "e1", kind="erasure", parents=[("dataset", labels)])
    add(registry, "erasure", "e2", kind="erasure", parents=[("dataset", labels)])
    assert swept(registry) == []


@pytest.mark.parametrize(
    ("kind", "about", "measured_with"),
    [
        ("evaluation", ["policy"], ["sft", "reward", "judge"]),
        ("validation-evaluation", ["policy"], ["sft", "reward", "judge"]),
        ("validation-bias", ["policy"], ["sft", "reward"]),
        ("reward-report", ["reward", "judge"], ["comparisons"]),
        ("erasure", ["dataset"], []),
        ("toxicity-report", ["sft"], ["labels"]),
        ("comparisons", [], ["labels"]),
    ],
)
def test_a_report_of_any_kind_stays_for_what_it_speaks_of_alone(registry, kind, about, measured_with):
    for number in (1, 2):
        parents = [(role, add(registry, role, f"{role}{number}", kind=role)) for role in (*measured_with, *about)]
        add(registry, "report", f"r{number}", kind=kind, parents=parents)
    for role, first in [(role, registry.get(f"{role}:1")) for role in (*about, *measured_with)]:
        registry.tag(first, [Tag("paper")])
        stays = "report:1" not in swept(registry, remove=False)
        assert (role, stays) == (role, role in about)
        assert [report.ref for report in registry.reports(first)] == (["report:1"] if role in about else [])
        registry.tag(first, drop=["paper"])


def test_the_card_of_a_policy_keeps_what_measured_its_reward_model(registry):
    """The report on a reward model is older than the latest, the reward model is behind a policy that stays."""
    for number in (1, 2):
        reward = add(registry, "reward", f"w{number}", kind="reward")
        add(registry, "reward-report", f"v{number}", kind="reward-report", parents=[("reward", reward)])
        policy = add(registry, "policy", f"p{number}", kind="policy", parents=[("reward", reward)])
        registry.tag(policy, [Tag("paper")])
    assert swept(registry) == []


def test_a_removed_version_keeps_its_row_and_its_number(registry):
    made = runs(registry, 2)
    runs(registry, 3)
    swept(registry)
    with pytest.raises(UsageError, match=r"policy:1 was removed at 20.*what is there"):
        registry.get("policy:1")
    gone = registry.get("policy:1", removed=True)
    assert gone.sha256 == made["policy:1"].sha256
    assert [edge.parent_ref for edge in registry.lineage("policy:1").ancestors] == ["sft:1"]
    assert registry.find("p1") is None
    again = add(registry, "policy", "p1", kind="policy")
    assert (again.ref, again.sha256) == ("policy:4", made["policy:1"].sha256)
    assert registry.find("p1") == again
    with pytest.raises(UsageError, match=r"policy:1 was removed .*make it again first"):
        registry.set_alias(made["policy:1"], "champion")
    with pytest.raises(UsageError, match="sft:1 was removed"):
        add(registry, "other", "o", parents=[("init", made["sft:1"])])
    shown = CliRunner().invoke(app, ["show", "policy:1", "--registry", str(registry.root)])
    assert "removed" in shown.stdout
    assert_whole(registry)


def test_leftovers_of_kills_and_of_older_programs_go(registry):
    add(registry, "sft", "f")
    work = registry.root / ".work"
    (work / "old.lock").touch()
    (work / ".trash-1").mkdir()
    (work / "killed" / "checkpoints").mkdir(parents=True)
    (work / "killed" / "checkpoints" / "big").write_bytes(b"x" * 1000)
    for place in (registry.root / "sft" / "2", registry.root / "never" / "1"):
        place.mkdir(parents=True)
        (place / "weights").touch()
        seal(place)
    report = registry.sweep(remove=False)
    assert [(useless.what, useless.why) for useless in report.found] == [
        ("never/1", "is not listed"),
        ("sft/2", "is not listed"),
        (".work/.trash-1", "nobody works in it"),
        (".work/killed", "nobody works in it"),
        (".work/old.lock", "nobody works in it"),
    ]
    assert report.found[3].size == 1000
    assert (work / "killed").exists()
    registry.sweep(remove=True)
    assert leftovers(registry) == []
    assert not (registry.root / "never").exists()
    assert_whole(registry)


def test_what_is_not_the_registrys_is_named_and_left_alone(registry):
    add(registry, "sft", "f")
    mine = [registry.root / "notes.txt", registry.root / "sft" / "2", registry.root / "data" / "7"]
    mine[0].write_text("mine")
    for folder in mine[1:]:
        folder.mkdir(parents=True)
        (folder / "file").touch()  # no manifest: no registry made it
    report = registry.sweep(remove=True)
    assert report.found == []
    assert sorted(report.not_ours) == ["data/7", "notes.txt", "sft/2"]
    assert all(path.exists() for path in mine)


def test_a_link_is_not_followed(registry, tmp_path):
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").touch()
    (registry.root / ".work" / "link").symlink_to(tmp_path / "precious")
    (registry.root / "linked").symlink_to(tmp_path / "precious")
    report = registry.sweep(remove=True)
    assert [useless.what for useless in report.found] == [".work/link"]
    assert report.not_ours == ["linked"]
    assert (tmp_path / "precious" / "file").exists()


def hold(opened: Open, begun: Path) -> None:
    with opened().workspace("busy") as folder:
        (folder / "half").touch()
        begun.touch()
        time.sleep(600)


def test_while_anybody_is_at_work_no_version_goes_and_no_workspace_that_is_held(open_registry, memory_path):
    registry = open_registry()
    runs(registry, 2)
    (registry.root / ".work" / "left").mkdir()
    holder = start(hold, open_registry, memory_path / "begun")
    wait_for(memory_path / "begun")
    report = registry.sweep(remove=True)
    assert [useless.what for useless in report.found] == [".work/left"]
    assert len(report.busy) == 1
    assert f"process {holder.pid} on" in report.busy[0]
    assert (registry.root / ".work" / "busy" / "half").exists()
    os.kill(holder.pid, signal.SIGKILL)
    holder.join(30)
    assert swept(registry) == ["bias:1", "policy:1", "sft:1", ".work/busy"]
    with registry._database.read() as catalogue:
        assert catalogue.leases.all() == []
    assert_whole(registry)


def test_a_run_between_two_stages_keeps_what_it_may_use(registry):
    runs(registry, 2)
    with registry.in_use():
        assert swept(registry) == []
    assert swept(registry) == ["bias:1", "policy:1", "sft:1"]


def sweep_with_crash(opened: Open, at: int) -> None:
    left = [at]
    original = os.rename, os.rmdir, os.unlink

    def crashing(function):
        def before(*args, **kwargs):
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left[0] -= 1
            return function(*args, **kwargs)

        return before

    os.rename, os.rmdir, os.unlink = map(crashing, original)
    opened().sweep(remove=True)


def test_a_kill_in_the_middle_leaves_the_rest_to_the_next(memory_path):
    runs(Registry(memory_path / "first"), 2)
    (memory_path / "first" / ".work" / "left").mkdir()
    for at in range(100):
        root = memory_path / str(at)
        shutil.copytree(memory_path / "first", root)
        registry = Registry(root)
        child = start(sweep_with_crash, lambda root=root: Registry(root), at)
        child.join(30)
        assert_whole(registry)
        registry.sweep(remove=True)
        assert_whole(registry)
        assert [artifact.ref for artifact in registry.artifacts()] == ["bias:2", "policy:2", "sft:2"]
        assert [path.name for path in (root / "sft").iterdir()] == ["2"]
        assert leftovers(registry) == []
        if child.exitcode == 0:
            break
    assert child.exitcode == 0
    assert at > 10


def test_the_command_lists_first_and_removes_with_yes(registry):
    runs(registry, 2)
    listed = invoke(registry)
    assert "sft:1" in listed.stdout
    assert "nothing was removed; with --yes: 3 things" in listed.stdout
    assert len(registry.artifacts()) == 6
    document = json.loads(invoke(registry, "--yes", "--json").stdout)
    assert document["removed"] is True
    assert [useless["what"] for useless in document["found"]] == ["bias:1", "policy:1", "sft:1"]
    assert document["bytes"] > 0
    assert len(registry.artifacts()) == 3
    shown = CliRunner().invoke(app, ["list", "--all", "--registry", str(registry.root)]).stdout
    assert shown.count("(removed)") == 3


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["make", "make", "make", "die", "alias", "tag", "untag", "promote", "sweep"]),
        st.integers(0, 3),
        st.lists(st.integers(0, 30), max_size=3),
    ),
    max_size=25,
)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
def test_no_order_of_stages_kills_and_sweeps_loses_what_is_referred_to(memory_path, steps):
    """Against a plain model: who is referred to, followed from each reference by hand."""
    root = memory_path / str(len(list(memory_path.iterdir())))
    registry = Registry(root)
    promoted: set[str] = set()
    tags: dict[str, set[str]] = {}
    for action, number, picks in steps:
        there = registry.artifacts()
        chosen = [there[pick % len(there)] for pick in picks] if there else []
        if action == "make":
            inputs = ",".join(artifact.fingerprint[:8] for artifact in chosen)
            fingerprint = f"f{number}-{abs(hash(inputs))}"
            before = registry.find(fingerprint)
            made = add(registry, f"name{number}", fingerprint, parents=[("input", parent) for parent in chosen])
            assert before is None or made == before
        elif action == "die":
            leave_as_a_kill_does(registry, number, placed=bool(picks))
        elif action == "sweep":
            must_stay = referred_to(registry, promoted, tags)
            registry.sweep(remove=True)
            assert {artifact.ref for artifact in registry.artifacts()} == must_stay
            assert leftovers(registry) == []
        for artifact in chosen:
            if action == "alias":
                registry.set_alias(artifact, f"alias{number}")
            elif action == "tag":
                registry.tag(artifact, [Tag(f"tag{number}")])
                tags.setdefault(artifact.ref, set()).add(f"tag{number}")
            elif action == "untag":
                registry.tag(artifact, drop=tags.get(artifact.ref, set()) & {f"tag{number}"})
                tags.get(artifact.ref, set()).discard(f"tag{number}")
            elif action == "promote":
                registry.promote(artifact, "champion", asked_by="test", reason="forced")
                promoted.add(artifact.ref)
        assert_whole(registry)


def leave_as_a_kill_does(registry: Registry, number: int, *, placed: bool) -> None:
    """Leave a workspace, or a folder that was renamed into place but not listed."""
    folder = registry.root / ".work" / f"killed{number}"
    (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
    name = f"name{number}"
    if placed:
        versions = [artifact.version for artifact in registry.artifacts(removed=True) if artifact.name == name]
        target = registry.root / name / str(len(versions) + 1)
        if not target.exists():
            seal(folder)
            target.parent.mkdir(exist_ok=True)
            os.rename(folder, target)


def referred_to(registry: Registry, promoted: set[str], tags: dict[str, set[str]]) -> set[str]:
    there = {artifact.ref: artifact for artifact in registry.artifacts()}
    highest: dict[str, int] = {}
    for artifact in there.values():
        highest[artifact.name] = max(artifact.version, highest.get(artifact.name, 0))
    found = {f"{name}:{version}" for name, version in highest.items()} | promoted
    found |= {ref for ref, artifact in there.items() if artifact.aliases} | {
        ref for ref, words in tags.items() if words
    }
    while True:
        more = found | {parent.ref for ref in found for parent in there[ref].parents}
        if more == found:
            return found
        found = more
