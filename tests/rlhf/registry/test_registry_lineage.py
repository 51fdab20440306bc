from io import StringIO

from rich.console import Console

from rlhf.registry.lineage import Edge, trace
from rlhf.registry.render import lineage_tree

# labels -> comparisons -> reward -> policy; base -> sft -> reward, policy; policy, sft -> report. `other` is elsewhere.
LABELS = Edge("comparisons:1", "labels", "labels:1")
COMPARISONS = Edge("reward:1", "comparisons", "comparisons:1")
REWARD_INIT = Edge("reward:1", "init", "sft:1")
BASE = Edge("sft:1", "init", "base:1")
POLICY_INIT = Edge("policy:1", "init", "sft:1")
POLICY_REFERENCE = Edge("policy:1", "reference", "sft:1")
POLICY_REWARD = Edge("policy:1", "reward", "reward:1")
REPORT = Edge("report:1", "policy", "policy:1")
REPORT_BASELINE = Edge("report:1", "baseline", "sft:1")
OTHER = Edge("other:2", "init", "other:1")
EDGES = [
    LABELS,
    BASE,
    COMPARISONS,
    REWARD_INIT,
    POLICY_INIT,
    POLICY_REFERENCE,
    POLICY_REWARD,
    REPORT,
    REPORT_BASELINE,
    OTHER,
]
KINDS = {ref: ref.split(":")[0] for edge in EDGES for ref in (edge.child_ref, edge.parent_ref)}


def test_a_diamond_gives_each_edge_once_nearest_first():
    lineage = trace("policy:1", EDGES, KINDS)
    assert lineage.ancestors == (POLICY_INIT, POLICY_REFERENCE, POLICY_REWARD, BASE, COMPARISONS, REWARD_INIT, LABELS)
    assert lineage.descendants == (REPORT,)
    assert set(lineage.kinds) == {"policy:1", "sft:1", "reward:1", "base:1", "comparisons:1", "labels:1", "report:1"}


def test_descendants_of_a_shared_ancestor():
    lineage = trace("sft:1", EDGES, KINDS)
    assert lineage.ancestors == (BASE,)
    assert lineage.descendants == (
        REWARD_INIT,
        POLICY_INIT,
        POLICY_REFERENCE,
        REPORT_BASELINE,
        POLICY_REWARD,
        REPORT,
    )


def test_chains_name_every_way_once_though_two_roles_lead_the_same_way():
    assert list(trace("policy:1", EDGES, KINDS).chains()) == [
        ("base:1", "sft:1", "policy:1"),
        ("labels:1", "comparisons:1", "reward:1", "policy:1"),
        ("base:1", "sft:1", "reward:1", "policy:1"),
    ]


def test_an_artifact_alone():
    lineage = trace("labels:1", [], {"labels:1": "labels"})
    assert (lineage.ancestors, lineage.descendants, dict(lineage.kinds)) == ((), (), {"labels:1": "labels"})
    assert list(lineage.chains()) == [("labels:1",)]


def test_hundred_stacked_diamonds_and_long_lines_take_no_time_and_no_recursion():
    edges = []
    for i in range(3000):
        edges += [Edge(f"x:{i + 2}", "left", f"l:{i + 1}"), Edge(f"l:{i + 1}", "up", f"x:{i + 1}")]
        edges += [Edge(f"x:{i + 2}", "right", f"r:{i + 1}"), Edge(f"r:{i + 1}", "up", f"x:{i + 1}")]
    kinds = {ref: "x" for edge in edges for ref in (edge.child_ref, edge.parent_ref)}
    lineage = trace("x:3001", edges, kinds)
    assert len(lineage.ancestors) == 12000
    assert len(next(lineage.chains())) == 6001


def test_what_was_removed_is_marked_wherever_it_stands():
    """Only what the lineage reaches: other:1 is elsewhere."""
    lineage = trace("policy:1", EDGES, KINDS, {"labels:1", "report:1", "other:1"})
    assert lineage.removed == ("labels:1", "report:1")
    assert lineage.as_dict()["removed"] == ["labels:1", "report:1"]
    console = Console(width=200, markup=False, record=True, file=StringIO())
    console.print(lineage_tree(lineage))
    shown = console.export_text()
    assert "labels:1 (removed) -> comparisons:1 -> reward:1 -> policy:1" in shown
    assert "report:1 (removed) [report], used as policy" in shown
    assert shown.count("(removed)") == 2
    assert trace("policy:1", EDGES, KINDS).removed == ()


def test_as_dict_names_the_parts_of_an_edge():
    assert trace("labels:1", EDGES, KINDS).as_dict()["descendants"][0] == {
        "child_ref": "comparisons:1",
        "role": "labels",
        "parent_ref": "labels:1",
    }
