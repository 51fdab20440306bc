"""Everything that a comparison of runs says, before it is drawn or printed."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from rlhf.runs.costs import Cost, cost, phases
from rlhf.runs.curves import (
    PPO_SERIES,
    Course,
    Frontier,
    Line,
    course,
    even_grid,
    frontier,
    kl_grid,
    kl_lines,
    reach,
    validation_course,
)
from rlhf.runs.duels import Matrix, matrix
from rlhf.runs.folder import Found, RunFolder
from rlhf.runs.groups import Group, Groups, group_runs
from rlhf.runs.measures import Across, across_seeds, difference, measure_names
from rlhf.runs.record import State
from rlhf.runs.samples import Question, questions

MOST_DUELS = 12
REWARDS = ("reward", "gold")
MOST_QUESTIONS, MOST_SPEAKERS = 8, 6
PLOT_STEPS, TABLE_STEPS = 48, 3
"""KL values of a line in the plot; of the table, within what all groups reach and beyond it."""
LOSS_STAGES = (("sft", "validation loss of SFT"), ("reward", "validation loss of the reward model"))


@dataclass(frozen=True)
class Comparison:
    """Runs, sorted into groups; each part is computed when it is asked for."""

    found: Found
    sorted: Groups

    @property
    def groups(self) -> tuple[Group, ...]:
        """The groups, in order."""
        return self.sorted.groups

    @cached_property
    def runs(self) -> list[RunFolder]:
        """All runs that count."""
        return [run for group in self.groups for run in group.runs]

    @cached_property
    def numbers(self) -> dict[str, dict[str, Across]]:
        """Name of a number -> letter of a group -> the number; names without any number are absent."""
        table = {
            name: {group.letter: value for group in self.groups if (value := across_seeds(group, name)) is not None}
            for name in measure_names(self.runs)
        }
        return {name: row for name, row in table.items() if row}

    @cached_property
    def differences(self) -> dict[str, dict[str, Across]]:
        """The same, less the first group's number with the same seed."""
        baseline, *others = self.groups
        return {
            name: {g.letter: value for g in others if (value := difference(g, baseline, name)) is not None}
            for name in self.numbers
        }

    @cached_property
    def courses(self) -> dict[str, list[Course]]:
        """Title of a quantity of PPO -> its course in every group that has one."""
        found = {title: [course(group, series) for group in self.groups] for series, title in PPO_SERIES}
        return {title: known for title, courses in found.items() if (known := [c for c in courses if c.lines])}

    @cached_property
    def losses(self) -> dict[str, list[Course]]:
        """Title -> validation losses, of those stages alone whose products differ between groups."""
        found: dict[str, list[Course]] = {}
        for stage, title in LOSS_STAGES:
            if len({self._products(group, stage) for group in self.groups}) > 1:
                courses = [known for group in self.groups if (known := validation_course(group, stage)).lines]
                found |= {title: courses} if courses else {}
        return found

    def _products(self, group: Group, stage: str) -> frozenset[str]:
        return frozenset(done.fingerprint for run in group.runs for done in run.record.stages if done.name == stage)

    @cached_property
    def kl_lines(self) -> dict[str, dict[str, tuple[Line, ...]]]:
        """`reward` and `gold` -> letter of a group -> its runs' lines over KL."""
        return {series: {group.letter: kl_lines(group, series) for group in self.groups} for series in REWARDS}

    @cached_property
    def common_kl(self) -> list[float]:
        """KL values at which groups are compared, in nats per answer; empty where no KL is known."""
        return kl_grid([reach(lines) for lines in self.kl_lines["reward"].values()], TABLE_STEPS)

    def at_common_kl(self, series: str) -> list[Frontier]:
        """Return every group's `reward` or `gold` at the common KL values; groups without a point are absent."""
        found = (frontier(letter, lines, self.common_kl) for letter, lines in self.kl_lines[series].items())
        return [known for known in found if known.points]

    def over_kl(self, series: str, letters: Sequence[str]) -> list[Frontier]:
        """Return `reward` or `gold` over all the KL that a group's runs got to; only lines where letters lack it."""
        found = (
            frontier(letter, lines, even_grid(lines, PLOT_STEPS) if letter in letters else ())
            for letter, lines in self.kl_lines[series].items()
        )
        return [known for known in found if known.lines]

    @cached_property
    def duels(self) -> Matrix:
        """Who beats whom."""
        return matrix(self.groups, MOST_DUELS)

    @cached_property
    def costs(self) -> list[Cost]:
        """What each group took."""
        return [cost(group) for group in self.groups]

    @cached_property
    def questions(self) -> list[Question]:
        """Answers side by side."""
        return questions(self.groups, prompts=MOST_QUESTIONS, models=MOST_SPEAKERS)

    @cached_property
    def remarks(self) -> list[str]:
        """What a reader has to know of the runs before believing the numbers."""
        said = []
        unfinished = [run for run in self.runs if run.record.state is not State.FINISHED]
        if unfinished:
            states = ", ".join(f"{run.record.run_id} ({run.record.state.value})" for run in unfinished[:5])
            more = f" and {len(unfinished) - 5} more" if len(unfinished) > 5 else ""
            said.append(
                f"{len(unfinished)} of {len(self.runs)} runs are not finished and have no results: {states}{more}."
            )
        trials = [run for run in self.runs if run.record.trial is not None]
        if trials:
            said.append(
                f"{len(trials)} of {len(self.runs)} runs are trials of a search: their numbers are of validation data, "
                "and called so; run a trial's settings as an experiment of their own to see them on test data."
            )
        if self.sorted.repeats:
            said.append(
                f"{len(self.sorted.repeats)} runs are left out, since they repeat a configuration and seed of another; "
                "counted twice, equal runs would make intervals too narrow."
            )
        commits = {run.record.revision.commit for run in self.runs}
        if len(commits) > 1:
            shown = ", ".join(sorted((commit or "unknown")[:10] for commit in commits))
            said.append(f"The runs are of different revisions of the code ({shown}): differences may be the code's.")
        dirty = sum(run.record.revision.dirty is True for run in self.runs)
        if dirty:
            said.append(f"{dirty} of {len(self.runs)} runs were made with code that was changed after its last commit.")
        if self.found.unreadable:
            said.append(f"{len(self.found.unreadable)} runs cannot be read: {self.found.unreadable[0]}.")
        if self.found.older:
            said.append(f"{self.found.older} folders of an older program, without run.json, are left out.")
        return said

    def as_dict(self) -> dict[str, object]:
        """Return the comparison as plain JSON."""
        tables = {name: self.at_common_kl(name) for name in REWARDS}
        return {
            "fields": list(self.sorted.fields),
            "remarks": self.remarks,
            "groups": [
                {
                    "letter": group.letter,
                    "settings": dict(group.settings),
                    "runs": [run_line(run) for run in group.runs],
                    "numbers": {
                        name: row[group.letter].as_dict() for name, row in self.numbers.items() if group.letter in row
                    },
                    "less_the_first": {
                        name: row[group.letter].as_dict()
                        for name, row in self.differences.items()
                        if group.letter in row
                    },
                    "at_equal_kl": {
                        name: [
                            point._asdict() for found in known if found.letter == group.letter for point in found.points
                        ]
                        for name, known in tables.items()
                    },
                    "stages": [stage._asdict() for stage in spent.stages],
                    "ppo_phases": [{"phase": name, "seconds": s, "n": n} for name, s, n in phases(group)],
                    "process_hours": spent.process_hours,
                }
                for group, spent in zip(self.groups, self.costs, strict=True)
            ],
            "duels": [{"row": cell.row, "column": cell.column, **cell.found.as_dict()} for cell in self.duels.cells],
            "judges": list(self.duels.judges),
        }


def run_line(run: RunFolder) -> dict[str, object]:
    """Return what names a run."""
    record = run.record
    return {
        "run_id": record.run_id,
        "folder": str(run.path),
        "state": record.state.value,
        "seed": record.seed,
        "started": record.started,
    }


def compare(found: Found) -> Comparison:
    """Return the comparison of runs."""
    return Comparison(found, group_runs(found.runs))
