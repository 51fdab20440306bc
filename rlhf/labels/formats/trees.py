"""OpenAssistant's conversation trees: ranked replies to the same prompt become pairs."""

from rlhf.labels.formats.columns import Fields, column, name_in, number, object_of, objects_at
from rlhf.labels.formats.compare import UNORDERED, answer, by_score, compared, pairs_of
from rlhf.labels.records import Judgement
from sft.core.rows import Row, RowError
from sft.core.text import Conversation, Message
from sft.data import check_turns, text_from

MAX_TURNS = 50
"""A deeper tree is unusable."""
_ROLES = {"prompter": "user", "assistant": "assistant"}


def oasst(row: Row) -> list[Judgement]:
    """Parse a tree: of each two ranked replies of the assistant to one message the lower `rank` (0: best) is better.

    Replies that are deleted, failed their review, or have no rank are part of no pair, and what follows a deleted or
    failed one is left out; the row is still used. The ranks join several people's, so nobody is the annotator.
    Source: Köpf et al. 2023, arXiv 2304.07327.
    """
    found: list[Judgement] = []
    waiting: list[tuple[Conversation, Fields]] = [((), object_of(column(row.value, "prompt"), "prompt"))]
    while waiting:
        before, node = waiting.pop()
        if not _is_kept(node):
            continue
        path = (*before, _message(node))
        if len(path) > MAX_TURNS:
            raise RowError(f"nested too deep: the tree has more than {MAX_TURNS} turns")
        replies = objects_at(node, "replies")
        found += _pairs(row, path, replies)
        waiting += [(path, reply) for reply in reversed(replies)]
    if not found:
        raise RowError("no pair of answers: the tree has no two ranked replies to one message")
    return found


def _is_kept(node: Fields) -> bool:
    return node.get("deleted") is not True and node.get("review_result") is not False


def _message(node: Fields) -> Message:
    role = _ROLES.get(str(column(node, "role")))
    if role is None:
        raise RowError(f"unknown role: a message has {str(node['role'])[:40]!r}, known are {', '.join(_ROLES)}")
    return Message(role, text_from(node.get("text"), "turn"))


def _pairs(row: Row, prompt: Conversation, replies: list[dict[str, object]]) -> list[Judgement]:
    ranked = [reply for reply in replies if _is_kept(reply) and reply.get("rank") is not None]
    if prompt[-1].role != "user" or len(ranked) < 2:
        return []
    if any(reply.get("role") != "assistant" for reply in ranked):
        raise RowError("turns do not alternate: a user's message follows a user's")
    check_turns(prompt)
    ranks = [number(reply["rank"], "rank", 0, 1e6) for reply in ranked]
    answers = [answer(column(reply, "text"), name_in(reply, "model_name")) for reply in ranked]
    verdicts = [by_score(ranks[j], ranks[i])._replace(strength=None) for i, j in pairs_of(len(ranked))]
    return compared(row, prompt, answers, verdicts, UNORDERED)
