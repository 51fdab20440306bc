"""TRL's unpaired format: single answers, each good or bad, joined by `joining.join_prompts` to make pairs."""

from rlhf.labels.formats.columns import column
from rlhf.labels.formats.compare import A_WINS, B_WINS, UNORDERED, Answer, check_prompts, judged, spelled
from rlhf.labels.formats.joining import parts_of
from rlhf.labels.records import Choice, Judgement
from sft.core.rows import Row, RowError
from sft.data import answered, prompt_from

_LABELS = {**dict.fromkeys(["true", "1", "up"], A_WINS), **dict.fromkeys(["false", "0", "down"], B_WINS)}


def kto(row: Row) -> list[Judgement]:
    """Parse joined rows of `prompt, completion, label`: each good answer (answer a) against each bad one.

    The label is true, 1 or up for a good answer, false, 0 or down for a bad one. Rows that are all good or all bad
    make no pair and are unusable together. Source: TRL's dataset formats, "unpaired preference".
    """
    good: list[str] = []
    bad: list[str] = []
    parts = parts_of(row)
    prompt = prompt_from(column(parts[0], "prompt"))
    for part in parts:
        same, answer = answered(prompt, column(part, "completion"))
        check_prompts(prompt, same)
        is_good = spelled(column(part, "label"), _LABELS).choice is Choice.A
        (good if is_good else bad).append(answer)
    if not (good and bad):
        found = "good" if good else "bad"
        raise RowError(f"only one label: all {len(parts)} answers of the prompt are {found}, a pair needs one of each")
    return [judged(row, prompt, Answer(a), Answer(b), A_WINS, UNORDERED) for a in good for b in bad]
