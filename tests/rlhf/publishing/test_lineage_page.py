"""The picture of a lineage: everything is in it, and nothing that somebody wrote does anything."""

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest
from playwright.sync_api import Page, sync_playwright
from published import SECRET, Published

from rlhf.publishing.claims import Claim
from rlhf.publishing.graph import PEOPLE, Graph, Link, Node, lineage_graph
from rlhf.publishing.label_sources import LabelSource, label_sources
from rlhf.publishing.page import render

CHROMIUM = Path("/usr/bin/chromium")
HOSTILE = "\"><script>document.title='pwned'</script><img src=//evil.example onerror=\"document.title='pwned'\">\u202e"


def graph_of(published: Published, ref: str) -> tuple[Graph, list[LabelSource]]:
    registry = published.place.registry
    lineage = registry.lineage(ref)
    sources = label_sources(registry, lineage)
    return lineage_graph(registry, lineage, sources), sources


@pytest.fixture(scope="module")
def hostile() -> str:
    """Return a page all of whose words attack."""
    node = Node("policy:1", HOSTILE, HOSTILE, (HOSTILE, HOSTILE), HOSTILE)
    people = Node("people of labels:1", HOSTILE, PEOPLE, (HOSTILE,), "")
    links = [Link("people of labels:1", "policy:1", HOSTILE)]
    counts = {HOSTILE: 1}
    source = LabelSource(HOSTILE, HOSTILE, 1, {HOSTILE: 1}, 1, counts, counts, counts, None)
    claim = Claim(HOSTILE, {HOSTILE: HOSTILE}, [HOSTILE], [HOSTILE], [HOSTILE])
    return render(Graph(HOSTILE, [people, node], links), [source], [claim])


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    if not CHROMIUM.exists():
        pytest.skip(f"no {CHROMIUM}")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        yield browser.new_page(viewport={"width": 1440, "height": 900})
        browser.close()


class Tags(HTMLParser):
    """Every tag of a page with its attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def test_nodes_and_links(published: Published):
    graph, _ = graph_of(published, "policy")
    nodes = {node.name: node for node in graph.nodes}
    assert {"policy:1", "reward:1", "labels:1", "labels-p:1", "people of labels:1", "evaluation:1"} <= nodes.keys()
    assert nodes["people of labels:1"] == Node(
        "people of labels:1", "2 people", PEOPLE, ("person 1: 2", "person 2: 1"), ""
    )
    assert nodes["policy:1"].lines == ("win rate 75.4 %", "[62.9, 81.6] n=40")
    assert nodes["reward:1"].lines == ("accuracy 86.4 %", "[73.9, 92.7] n=77")
    assert nodes["bias:1"].lines == ("2 checks", "1 failed")
    assert nodes["labels:1"].lines == ("4 judgements",)
    assert nodes["policy:1"].digest == published.policy.sha256
    assert Link("reward:1", "policy:1", "reward") in graph.links
    assert Link("people of labels-p:1", "labels-p:1", "label events") in graph.links


def test_a_parent_in_two_roles_is_one_link(published: Published):
    registry = published.place.registry
    lineage = registry.lineage("policy")
    twice = lineage.ancestors[0]._replace(role="start")
    graph = lineage_graph(registry, type(lineage)(lineage.ref, (*lineage.ancestors, twice), (), lineage.kinds), [])
    assert Link(twice.parent_ref, twice.child_ref, f"{lineage.ancestors[0].role}, start") in graph.links


def test_everything_stands_on_the_page(published: Published):
    text = render(*graph_of(published, "policy"), [])
    registry = published.place.registry
    for ref in registry.lineage("policy").kinds:
        assert f"<code>{ref}</code>" in text
        assert registry.get(ref).sha256 in text
    assert "person 1 (2), person 2 (1); 1 events of unknown people" in text
    assert "cc-by-4.0 (1)" in text
    assert SECRET not in text
    assert "Ottokar" not in text


def test_the_page_loads_and_runs_nothing(hostile: str):
    allowed = {
        "html",
        "head",
        "meta",
        "title",
        "style",
        "body",
        "main",
        "header",
        "div",
        "h1",
        "h2",
        "p",
        "span",
        "i",
        "code",
    }
    allowed |= {
        "svg",
        "g",
        "path",
        "rect",
        "clippath",
        "text",
        "figure",
        "figcaption",
        "table",
        "thead",
        "tbody",
        "tr",
        "th",
        "td",
    }
    tags = Tags(hostile).found
    assert {tag for tag, _ in tags} <= allowed
    names = {name for _, attributes in tags for name in attributes}
    assert not [name for name in names if name.startswith("on") or name in ("href", "src", "xlink:href", "srcset")]
    policies = [attributes["content"] for tag, attributes in tags if "http-equiv" in attributes]
    assert policies == [
        "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
    ]
    assert "\u202e" not in hostile
    assert "⟨U+202E⟩" in hostile


def test_a_browser_shows_it_and_nothing_happens(page: Page, hostile: str, tmp_path: Path):
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("dialog", lambda dialog: asked.append(dialog.message))
    file = tmp_path / "page.html"
    file.write_text(hostile)
    page.goto(file.as_uri())
    assert asked == [file.as_uri()]
    assert "pwned" not in page.title().replace(HOSTILE.replace("\u202e", "⟨U+202E⟩"), "")
    assert page.locator("script, img").count() == 0


def test_texts_stay_within_their_nodes(page: Page, published: Published, tmp_path: Path):
    graph, sources = graph_of(published, "policy")
    words = ("labels of a very long name " * 3, "[55.4, 78.5] n=15650", "2581880fac4c: 15650")
    graph.nodes.append(Node("long:1", "labels-run-0123456789abcdef:123", "collection" * 6, words, "a" * 64))
    file = tmp_path / "page.html"
    file.write_text(render(graph, sources, []))
    page.goto(file.as_uri())
    wide = page.evaluate(
        """() => [...document.querySelectorAll('g.node')].flatMap(node => {
            const card = node.querySelector('rect.card').getBoundingClientRect();
            return [...node.querySelectorAll('text')].filter(text => {
                const box = text.getBoundingClientRect();
                return box.right > card.right || box.bottom > card.bottom || box.left < card.left;
            }).map(text => text.textContent);
        })"""
    )
    assert wide == []
    assert page.locator("g.node").count() == len(graph.nodes)
    assert page.locator("g.node .title").last.text_content() == "labels-run-0…:123"
    assert page.locator("g.node g[clip-path]").count() == len(graph.nodes), "wide letters are cut off at the border"
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


def test_people_and_their_labels_stand_at_the_left_also_of_a_later_round():
    names = ["labels:1", "labels:2", "comparisons:1", "comparisons:2", "reward:1", "policy:1", "reward:2", "policy:2"]
    made = [("labels:1", "comparisons:1"), ("comparisons:1", "reward:1"), ("reward:1", "policy:1")]
    made += [("labels:2", "comparisons:2"), ("comparisons:2", "reward:2"), ("reward:2", "policy:2")]
    people = [Node(f"people of labels:{n}", "1 person", PEOPLE, (), "") for n in (1, 2)]
    links = [Link(f"people of labels:{n}", f"labels:{n}", "label events") for n in (1, 2)]
    links += [Link(a, b, "x") for a, b in (*made, ("policy:1", "policy:2"))]
    nodes = [*people, *(Node(name, name, name[:-2], (), "") for name in names)]
    sources = [LabelSource(f"labels:{n}", "labels", 1, {"a": 1}, 0, None, None, None, None) for n in (1, 2)]
    text = render(Graph("policy:2", nodes, links), sources, [])
    places = re.findall(r'translate\(([\d.]+) [\d.]+\)">\n<title>([^\n]+)', text)
    column = sorted({float(x) for x, _ in places})
    assert {float(x) for x, name in places if name == "1 person"} == {column[0]}
    assert {float(x) for x, name in places if name.startswith("labels")} == {column[1]}
    assert {float(x) for x, name in places if name == "comparisons:2"} == {column[3]}


def test_the_people_stand_at_the_left(published: Published):
    text = render(*graph_of(published, "policy"), [])
    places = re.findall(r'<g class="node (\w+)[^"]*" transform="translate\(([\d.]+)', text)
    assert {float(x) for family, x in places if family == "people"} == {0.0}
    assert min(float(x) for family, x in places if family != "people") > 0


def test_a_version_without_relatives(published: Published, tmp_path: Path):
    alone = Graph("x:1", [Node("x:1", "x:1", "sft", (), "a" * 64)], [])
    text = render(alone, [], [])
    assert "nothing that is registered" in text
    assert "Who labelled" not in text
