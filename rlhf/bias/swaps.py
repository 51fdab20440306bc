"""Counterfactual texts: the same words about someone of another group.

A group is a name and a list of terms; the i-th terms of two groups are swapped for one another.
"""

import random
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple, TypeVar

from sft.core.text import Conversation, prompt_key

Groups = Mapping[str, Sequence[str]]
T = TypeVar("T")

# After an object "her" comes one of these or no word at all; before anything else "her" is taken as a possessive.
_AFTER_OBJECT_WORDS = (
    "a about again all alone an and any are as at away back be because been before being but by can could did do "
    "does down every for from had has have he here how i if in into is it just later may might more must no not now "
    "of off on once or out over shall she should since so some that the then there these they this those through to "
    "today together tomorrow too towards under until up very was we well were what when where which while who why "
    "will with without would yesterday you"
)
_AFTER_OBJECT = frozenset(_AFTER_OBJECT_WORDS.split())


class Probe(NamedTuple):
    """An answer that names exactly one group, in one version for every group, beside the other answer of its pair."""

    prompt_key: str
    """The original prompt; probes of one prompt are not independent."""
    cluster: str
    """The rarest term that the answer names and its counterparts, such as "maria/paul"."""
    original: str
    """The group that the answer names as it was written."""
    preferred: bool
    """Whether the people who compared the pair preferred this answer to the other."""
    prompt_by_group: dict[str, Conversation]
    """The prompt; its terms are swapped too where it names the same group as the answer."""
    answer_by_group: dict[str, str]
    """The answer's versions; under `original` stands the text as it was written."""
    other: str | None
    """The other answer, never swapped; None where the prompt was swapped and this answer names someone."""
    other_by_group: dict[str, str] | None
    """Versions of the other answer where it names exactly the same group, for swaps of both answers at once."""


class CounterfactualPrompt(NamedTuple):
    """One version of a request that names exactly one group."""

    base: str
    """The key of the original request, common to all its versions."""
    group: str
    """Whom this version names."""
    cluster: str
    """The rarest term of the original and its counterparts, such as "maria/paul"."""
    prompt: Conversation


class _Candidate(NamedTuple):
    """A text that names exactly one group, and the places of its terms in the group's list."""

    group: str
    terms: frozenset[int]


def swap_terms(text: str, source_terms: Sequence[str], target_terms: Sequence[str]) -> str:
    """Replace every source term by the target term at the same place.

    Only whole words are replaced, whatever their case; "She" becomes "He", "MARIA's" becomes "PAUL's". English "her"
    is both "him" and "his": where the lists hold these words, the next word decides ("her book" -> "his book").

    Raises:
        ValueError: the lists have different lengths.
    """
    if not source_terms:
        return text
    counterpart = dict(zip((term.lower() for term in source_terms), target_terms, strict=True))
    listed = {term.lower(): term for term in source_terms}

    def replacement(match: re.Match[str]) -> str:
        found = match.group()
        key = found.lower()
        target = _possessive(key, text[match.end() :], target_terms) or counterpart[key]
        return target if found == listed[key] else _in_case_of(found, target)

    return _pattern(tuple(source_terms)).sub(replacement, text)


def swap_conversation(
    conversation: Conversation, source_terms: Sequence[str], target_terms: Sequence[str]
) -> Conversation:
    """Return the conversation with the terms of every turn swapped, as `swap_terms` does."""
    return tuple(m._replace(content=swap_terms(m.content, source_terms, target_terms)) for m in conversation)


def mentions(text: str, groups: Groups) -> set[str]:
    """Return the names of the groups of which the text holds a term as a whole word, whatever its case."""
    return {name for name, terms in groups.items() if terms and _pattern(tuple(terms)).search(text)}


def make_probes(
    pairs: Sequence[tuple[Conversation, str, str]], groups: Groups, *, limit: int, seed: int
) -> list[Probe]:
    """Make a probe of every answer that names exactly one group, at most `limit`, spread evenly over terms and groups.

    Left out is an answer whose prompt names another group: a swap would change whom the answer agrees with. Where the
    prompt names the answer's group, the prompt is swapped too, for both answers, so that the versions stay coherent.

    Args:
        pairs: prompt, preferred answer, other answer; held out from the reward model's training.
        groups: two or more, with equally many terms.
        limit: most probes.
        seed: decides which probes are kept when there are more.
    """
    found = [
        (prompt, answer, other, preferred, candidate)
        for prompt, first, second in pairs
        for answer, other, preferred in ((first, second, True), (second, first, False))
        if (candidate := _candidate(answer, groups)) and mentions(_text(prompt), groups) <= {candidate.group}
    ]
    clusters = _rarest_terms([candidate for *_, candidate in found], groups)
    probes = [
        _probe(prompt, answer, other, preferred, candidate.group, cluster, groups)
        for (prompt, answer, other, preferred, candidate), cluster in zip(found, clusters, strict=True)
    ]
    return _spread(probes, lambda probe: (probe.original, probe.cluster), limit=limit, seed=seed)


def counterfactual_prompts(
    prompts: Iterable[Conversation], groups: Groups, *, limit: int, seed: int
) -> list[CounterfactualPrompt]:
    """Return, for each of at most `limit` requests that name exactly one group, its versions for every group.

    Args:
        prompts: held-out requests; those that name no group or several are left out, repeated ones used once, in
            the wording that came last.
        groups: two or more, with equally many terms.
        limit: most requests (not versions), spread evenly over terms and groups.
        seed: decides which requests are kept when there are more.

    Returns:
        All versions of one request follow one another, in the order of `groups`.
    """
    unique = {prompt_key(prompt): prompt for prompt in prompts}
    found = [(key, p, candidate) for key, p in unique.items() if (candidate := _candidate(_text(p), groups))]
    clusters = _rarest_terms([candidate for *_, candidate in found], groups)
    requests = [
        [
            CounterfactualPrompt(key, name, cluster, swap_conversation(prompt, groups[candidate.group], terms))
            for name, terms in groups.items()
        ]
        for (key, prompt, candidate), cluster in zip(found, clusters, strict=True)
    ]
    origin = {key: candidate.group for key, _, candidate in found}
    kept = _spread(requests, lambda r: (origin[r[0].base], r[0].cluster), limit=limit, seed=seed)
    return [version for request in kept for version in request]


@lru_cache(maxsize=256)
def _pattern(terms: tuple[str, ...]) -> re.Pattern[str]:
    longest_first = sorted(terms, key=len, reverse=True)
    return re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, longest_first))})(?!\w)", re.IGNORECASE)


def _possessive(found: str, following: str, target_terms: Sequence[str]) -> str | None:
    wanted = {"her": "his", "his": "her"}.get(found)
    next_word = re.match(r"\s+(\w+)", following)
    if wanted not in target_terms or next_word is None or next_word[1].lower() in _AFTER_OBJECT:
        return None
    return wanted


def _in_case_of(found: str, target: str) -> str:
    if found.isupper():
        return target.upper()
    if found.islower():
        return target.lower()
    return target[:1].upper() + target[1:]


def _text(conversation: Conversation) -> str:
    return "\n".join(message.content for message in conversation)


def _candidate(text: str, groups: Groups) -> _Candidate | None:
    """Return None unless the text names exactly one group."""
    named = mentions(text, groups)
    if len(named) != 1:
        return None
    group = named.pop()
    places = {term.lower(): place for place, term in enumerate(groups[group])}
    hits = _pattern(tuple(groups[group])).findall(text)
    return _Candidate(group, frozenset(places[hit.lower()] for hit in hits))


def _rarest_terms(candidates: Sequence[_Candidate], groups: Groups) -> list[str]:
    """Return for each text the term that the fewest texts hold: a name rather than the pronoun beside it."""
    counts = Counter(place for candidate in candidates for place in candidate.terms)
    rarest = [min(candidate.terms, key=lambda place: (counts[place], place)) for candidate in candidates]
    return ["/".join(terms[place] for terms in groups.values()) for place in rarest]


def _probe(
    prompt: Conversation, answer: str, other: str, preferred: bool, original: str, cluster: str, groups: Groups
) -> Probe:
    source = groups[original]
    prompt_is_swapped = original in mentions(_text(prompt), groups)
    other_names = mentions(other, groups)
    return Probe(
        prompt_key=prompt_key(prompt),
        cluster=cluster,
        original=original,
        preferred=preferred,
        prompt_by_group={name: swap_conversation(prompt, source, terms) for name, terms in groups.items()}
        | {original: prompt},
        answer_by_group={name: swap_terms(answer, source, terms) for name, terms in groups.items()}
        | {original: answer},
        other=None if prompt_is_swapped and other_names else other,
        other_by_group={name: swap_terms(other, source, terms) for name, terms in groups.items()} | {original: other}
        if other_names == {original}
        else None,
    )


def _spread(items: Sequence[T], key: Callable[[T], tuple[str, str]], *, limit: int, seed: int) -> list[T]:
    """Return at most `limit` items, taking one of each key in turn, in their original order."""
    order = list(range(len(items)))
    random.Random(f"spread-{seed}").shuffle(order)
    turns: Counter[tuple[str, str]] = Counter()
    ranked = []
    for position, index in enumerate(order):
        turns[key(items[index])] += 1
        ranked.append((turns[key(items[index])], position, index))
    return [items[index] for index in sorted(index for *_, index in sorted(ranked)[:limit])]
