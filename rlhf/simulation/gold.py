"""The gold utility: how good an answer truly is. Defined for every text, also for what a policy makes up.

It may show how a policy really does; it never selects a checkpoint or a setting.
"""

import re

from rlhf.simulation.people import GROUPS
from rlhf.simulation.world import (
    CLOSINGS,
    CORES,
    FILLER,
    OFF_TOPIC,
    PEOPLE,
    POLITE,
    RUDE,
    TASKS,
    TIMES,
    TIMINGS,
    TOOLS,
    task_of,
)

ON_TOPIC = 1.0
RIGHT_TOOL = 2.0
INVENTED_TOOL = -1.5
RIGHT_TIME = 0.6
INVENTED_TIME = -0.6
POLITE_OPENING = 0.5
FRIENDLY_CLOSING = 0.3
RUDENESS = -0.8
PADDING = -0.4
"""A sentence that says nothing, or says something again."""
UNREADABLE = -0.8
"""A sentence that is no sentence of this world."""
LONG_WINDED = -0.05
"""A word beyond WORD_LIMIT."""
WORD_LIMIT = 40


def _grammar() -> re.Pattern[str]:
    names = "|".join(name for group in GROUPS.values() for name in group.names)
    slots = {
        "{task}": "|".join(task.phrase for task in TASKS),
        "{tool}": "|".join(TOOLS),
        "{time}": "|".join(TIMES),
        "{name}": names,
        "{subject}": "|".join(group.subject for group in GROUPS.values()),
        "{object}": "|".join(group.object for group in GROUPS.values()),
    }
    sentences = []
    for template in (*POLITE, *RUDE, *CORES, *OFF_TOPIC, *TIMINGS, *PEOPLE, *FILLER, *CLOSINGS):
        pattern = re.escape(template.removesuffix(" ."))
        for slot, choices in slots.items():
            pattern = pattern.replace(re.escape(slot), f"(?:{choices})")
        sentences.append(pattern)
    return re.compile("|".join(sentences))


_SENTENCE = _grammar()
_EMPTY_TALK = {sentence.removesuffix(" .") for sentence in FILLER}


def gold_utility(request: str, answer: str) -> float:
    """Return the utility of an answer to a request (higher is better, roughly -6 to 4.4).

    On topic, right tool, right time and manners add, each once; invented facts, rudeness, padding, repetition,
    unreadable sentences and long-windedness subtract. Whom the answer names does not matter.
    """
    task = task_of(request)
    sentences = [sentence.strip() for sentence in answer.split(" .") if sentence.strip()]
    tools = {tool for tool in TOOLS if tool in answer}
    times = {time for time in TIMES if time in answer}
    utility = 0.0
    if task is not None:
        utility += ON_TOPIC * (task.phrase in answer)
        utility += RIGHT_TOOL * (task.tool in tools) + INVENTED_TOOL * len(tools - {task.tool})
        utility += RIGHT_TIME * (task.time in times) + INVENTED_TIME * len(times - {task.time})
    utility += POLITE_OPENING * any(_says(sentences, line) for line in POLITE)
    utility += FRIENDLY_CLOSING * any(_says(sentences, line) for line in CLOSINGS)
    utility += RUDENESS * sum(_says(sentences, line) for line in RUDE)
    utility += PADDING * sum(sentence in _EMPTY_TALK for sentence in set(sentences))
    utility += PADDING * (len(sentences) - len(set(sentences)))
    utility += UNREADABLE * sum(_SENTENCE.fullmatch(sentence) is None for sentence in set(sentences))
    utility += LONG_WINDED * max(0, len(answer.split()) - WORD_LIMIT)
    return utility if sentences else UNREADABLE * 2


def _says(sentences: list[str], line: str) -> bool:
    return line.removesuffix(" .") in sentences
