"""The trust report for reading: what says something, in sections; `--json` has all of it."""

from rlhf.labels.trust.aggregation import MAX_ITERATIONS
from rlhf.labels.trust.agreement import Agreement
from rlhf.labels.trust.kappa import GradedAgreement
from rlhf.labels.trust.render import UNKNOWN, Section, coefficient, known_columns, points, share, short, zeros
from rlhf.labels.trust.report import WORTH_A_VOTE, TrustReport

DOUBTS_SHOWN = 10


def report_sections(report: TrustReport) -> list[Section]:
    """Return the report as sections, the most urgent first."""
    if not report.judgements:
        return [Section("Labels", ["none yet: import some, or let people answer tasks (rlhf labels serve)"])]
    return [
        _counts(report),
        _suspicious(report),
        agreement_section(report.agreement, report.graded),
        *_people(report),
        _ranking(report),
        _doubts(report),
    ]


def _counts(report: TrustReport) -> Section:
    left_out = {
        "said again later by the same person": report.repeated,
        "of two answers with the same text": report.identical,
        "without a name": report.unnamed,
    }
    sentences = [
        f"{_number(report.judgements, 'judgement')}, of which {_number(report.votes, 'vote')} on "
        f"{_number(report.pairs, 'pair')} by {_number(len(report.annotators), 'named person', 'named people')}"
    ]
    lines = [(name, str(count)) for name, count in left_out.items() if count]
    if not report.converged:
        sentences.append(
            f"not settled: the fit behind skills, leans and doubts still moved after {MAX_ITERATIONS} rounds, so take "
            "these as approximate and go by agreement and rates, which do not depend on it; more votes per pair settle "
            "it (a higher --overlap of rlhf labels create, or more people)"
        )
    return Section("Labels", sentences, lines, after=zeros(left_out))


def _suspicious(report: TrustReport) -> Section:
    found = [(annotator.name, "; ".join(annotator.why)) for annotator in report.annotators if annotator.why]
    return Section("Look at", [] if found else ["nobody: no annotator stands out"], found)


def agreement_section(found: Agreement, graded: GradedAgreement | None = None) -> Section:
    """Return the coefficients, the weighted ones where they were asked for."""
    title = "Agreement (95 % intervals; 1 is full agreement, 0 what chance gives; n pairs)"
    if not found.pairs:
        return Section(title, ["unknown: no pair has two labels; let several people judge the same pairs (--overlap)"])
    lines = [
        ("two labels of a pair are the same", share(found.raw)),
        ("Krippendorff's alpha, ordinal", coefficient(found.krippendorff_ordinal)),
        ("Krippendorff's alpha, nominal", coefficient(found.krippendorff_nominal)),
        ("Fleiss' kappa", coefficient(found.fleiss_kappa)),
        ("Cohen's kappa", coefficient(found.cohen_kappa)),
    ]
    if graded is None:
        return Section(title, lines=lines)
    if not graded.pairs:
        why = "no weighted kappa: no pair has labels of two named people that say how much better an answer is"
        return Section(title, lines=lines, after=[why])
    lines.append(("Cohen's kappa, linear weights", coefficient(graded.cohen_kappa_linear)))
    lines.append(("Cohen's kappa, quadratic weights", coefficient(graded.cohen_kappa_quadratic)))
    return Section(
        title, lines=lines, after=["weighted: how far apart two labels are, from clearly one to clearly the other"]
    )


def _people(report: TrustReport) -> list[Section]:
    if not report.annotators:
        return [Section("People", ["unknown: no judgement names who gave it"])]
    trusted = [
        {
            "name": one.name,
            "judgements": str(one.n),
            "right": share(one.skill),
            "with the others' consensus": share(one.against_the_others.with_others),
            "same as another's": share(one.agreement),
        }
        for one in report.annotators
    ]
    habits = [
        {
            "name": one.name,
            "left answer": share(one.left),
            "longer answer": share(one.longer),
            "tie": share(one.tie),
            "leans left by": points(one.side_bias),
        }
        for one in report.annotators
    ]
    told = f"right less than {100 * WORTH_A_VOTE:.0f} % of the time adds little to a vote; a coin has 50 %"
    known = any(one.skill is not None for one in report.annotators)
    untold = "how often they are right is unknown: nobody else judged the same pairs (--overlap)"
    lean = "leans left by: points of 100 votes, whichever answer is better; +50 is always left, -50 always right"
    return [
        Section("People: how far to believe them", rows=known_columns(trusted), after=[told if known else untold]),
        Section("People: habits", rows=known_columns(habits), after=[lean]),
    ]


def _ranking(report: TrustReport) -> Section:
    found = report.ranking
    title = "Ranking of models (log odds of being preferred over the average one)"
    if not found.models:
        return Section(title, [f"none: no vote of {report.votes} compares two different models whose names are known"])
    rows = [
        {
            "model": model.model,
            "score": coefficient(model.score),
            "wins": str(model.wins),
            "ties": str(model.ties),
            "losses": str(model.losses),
            "group": str(model.group),
        }
        for model in found.models
    ]
    grouped = any(model.group for model in found.models)
    if not grouped:
        rows = [{name: cell for name, cell in row.items() if name != "group"} for row in rows]
    after = [f"intervals clustered by {_number(found.clusters, 'prompt')}"]
    after += ["scores of different groups do not compare: no chain of votes joins them"] if grouped else []
    after += [f"left out: {_number(found.left_out, 'vote')} without two known, different models"] * bool(found.left_out)
    return Section(title, rows=rows, after=after)


def _doubts(report: TrustReport) -> Section:
    sentences = [f"{_number(len(report.noise), 'judgement')} more likely wrong than right"]
    if report.compared:
        sentences[0] += (
            f"; by the fit about {report.wrong_expected:.0f} of {report.compared:,} compared votes are wrong"
        )
    if report.cross_checked:
        sentences.append(
            f"{_number(report.cross_checked, 'pair')} with one vote alone: doubted by the other pairs of their answers"
        )
    rows = [
        {
            "who": doubt.annotator or UNKNOWN,
            "said": doubt.choice.value,
            "likely": doubt.likely.value,
            "wrong": f"{100 * doubt.wrong:.0f} %" if doubt.wrong < 0.995 else "over 99 %",
            "line": str(doubt.line) if doubt.line else UNKNOWN,
            "row": short(doubt.digest),
            "pair": short(doubt.pair),
        }
        for doubt in report.noise[:DOUBTS_SHOWN]
    ]
    more = len(report.noise) - len(rows)
    after = [f"{more} more, and whole digests: the same command with --json" if more else "whole digests: with --json"]
    return Section("Doubtful judgements", sentences, rows=known_columns(rows), after=after if rows else ())


def _number(count: int, one: str, several: str = "") -> str:
    return f"{count:,} {one if count == 1 else several or one + 's'}"
