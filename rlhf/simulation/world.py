"""What happens in the simulated world: people ask how to do a household task, assistants answer more or less well.

All chance comes from the seed that is passed in; the same seed gives the same texts.
"""

import random
from typing import NamedTuple

from rlhf.simulation.people import GROUPS, Group
from sft.core.text import Conversation, user
from sft.data import Example


class Task(NamedTuple):
    """Something people ask about, with the tool and the time that are right for it."""

    phrase: str
    tool: str
    time: str


TASKS = (
    Task("fix a tire", "patch kit", "ten minutes"),
    Task("bake bread", "hot oven", "two hours"),
    Task("clean a window", "dry cloth", "five minutes"),
    Task("paint a wall", "wide roller", "two hours"),
    Task("water the garden", "long hose", "half an hour"),
    Task("hang a picture", "small nail", "five minutes"),
    Task("sew a button", "thin needle", "ten minutes"),
    Task("cut the grass", "sharp mower", "half an hour"),
    Task("cook rice", "deep pot", "twenty minutes"),
    Task("plant a tree", "big shovel", "twenty minutes"),
)
TOOLS = tuple(task.tool for task in TASKS)
TIMES = tuple(sorted({task.time for task in TASKS}))

REQUESTS = (
    "how do i {task} {context} ?",
    "what is the best way to {task} {context} ?",
    "can you tell me how to {task} {context} ?",
    "please help me {task} {context} .",
    "i want to {task} {context} , what do i need ?",
    "i never learned how to {task} {context} .",
)
CONTEXTS = (
    "today",
    "before dinner",
    "on a rainy day",
    "in my new flat",
    "with little money",
    "for the first time",
    "for an old friend",
    "without much noise",
    "while the kids sleep",
    "at work",
    "for a party",
    "by myself",
)
REQUESTS_WITH_NAME = (
    "{name} asks how to {task} .",
    "{name} wants to {task} , what do i tell {object} ?",
    "i help {name} to {task} , what should {subject} use ?",
    "how can {name} and i {task} ?",
)

POLITE = ("happy to help .", "of course .", "thanks for asking .", "good question .")
RUDE = ("figure it out .", "what a silly question .")
CORES = ("to {task} , use a {tool} .", "you can {task} with a {tool} .", "to {task} , get a {tool} .")
OFF_TOPIC = ("use a {tool} .", "try a {tool} .")
TIMINGS = ("it takes {time} .", "plan {time} .")
PEOPLE = ("ask {name} , {subject} knows .", "{name} showed me .", "i saw {name} do it , thanks to {object} .")
FILLER = ("it depends on many things .", "some say this , some say that .", "this is interesting .", "life is hard .")
CLOSINGS = ("let me know .", "good luck .")


def make_requests(count: int, *, seed: int) -> list[Conversation]:
    """Return `count` different requests; about a third name a person. Fewer only if the grammar has no more."""
    generator = random.Random(f"requests-{seed}")
    seen: dict[str, None] = {}
    for _ in range(count * 50):
        if len(seen) == count:
            break
        seen[_request(generator)] = None
    return [user(text) for text in seen]


def _request(generator: random.Random) -> str:
    task = generator.choice(TASKS)
    if generator.random() < 0.65:
        return generator.choice(REQUESTS).format(task=task.phrase, context=generator.choice(CONTEXTS))
    group = GROUPS[generator.choice(list(GROUPS))]
    template = generator.choice(REQUESTS_WITH_NAME)
    names = {"name": generator.choice(group.names), "subject": group.subject, "object": group.object}
    return template.format(task=task.phrase, **names)


def task_of(request: str) -> Task | None:
    """Return the task that a request is about, or None for a request from outside this world."""
    return next((task for task in TASKS if task.phrase in request), None)


def make_answer(task: Task, generator: random.Random) -> str:
    """Write one answer of random quality: right, wrong or missing facts, manners, padding, slips of the pen.

    Some answers are about another task altogether, and some say a thing twice.
    """
    sentences = []
    if generator.random() < 0.1:
        task = generator.choice(TASKS)
    if generator.random() < 0.45:
        sentences.append(generator.choice(RUDE if generator.random() < 0.25 else POLITE))
    sentences += _facts(task, generator)
    if generator.random() < 0.4:
        sentences.append(_person(GROUPS[generator.choice(list(GROUPS))], generator))
    for _ in range(generator.choice((0, 0, 0, 1, 1, 2))):
        sentences.insert(generator.randint(0, len(sentences)), generator.choice(FILLER))
    if sentences and generator.random() < 0.12:
        sentences.insert(generator.randint(0, len(sentences)), generator.choice(sentences))
    if generator.random() < 0.3:
        sentences.append(generator.choice(CLOSINGS))
    words = " ".join(sentences or [generator.choice(FILLER)]).split()
    if generator.random() < 0.06 and len(words) > 4:
        del words[generator.randrange(len(words) - 1)]
    return " ".join(words)


def _facts(task: Task, generator: random.Random) -> list[str]:
    facts = []
    if generator.random() < 0.85:
        tool = task.tool if generator.random() < 0.6 else generator.choice(TOOLS)
        templates = OFF_TOPIC if generator.random() < 0.2 else CORES
        facts.append(generator.choice(templates).format(task=task.phrase, tool=tool))
    if generator.random() < 0.45:
        time = task.time if generator.random() < 0.6 else generator.choice(TIMES)
        facts.append(generator.choice(TIMINGS).format(time=time))
    return facts


def _person(group: Group, generator: random.Random) -> str:
    name = generator.choice(group.names)
    return generator.choice(PEOPLE).format(name=name, subject=group.subject, object=group.object)


def make_demonstrations(requests: list[Conversation], count: int, *, seed: int) -> list[Example]:
    """Return `count` request-answer pairs of mixed quality, the requests taken in turn."""
    generator = random.Random(f"demonstrations-{seed}")
    return [Example(prompt, _answer_to(prompt, generator)) for prompt in _in_turn(requests, count)]


def make_pairs(requests: list[Conversation], count: int, *, seed: int) -> list[tuple[Conversation, str, str]]:
    """Return `count` requests with two different answers each."""
    generator = random.Random(f"pairs-{seed}")
    pairs = []
    for prompt in _in_turn(requests, count):
        first = second = _answer_to(prompt, generator)
        while second == first:
            second = _answer_to(prompt, generator)
        pairs.append((prompt, first, second))
    return pairs


def _in_turn(requests: list[Conversation], count: int) -> list[Conversation]:
    return [requests[index % len(requests)] for index in range(count)]


def _answer_to(prompt: Conversation, generator: random.Random) -> str:
    task = task_of(prompt[-1].content)
    assert task is not None, "requests of this world name a task"
    return make_answer(task, generator)
