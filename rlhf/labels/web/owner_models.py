"""What GET /api/v1/dashboard answers: the numbers of `rlhf.labels.collection.monitor.Overview` as JSON."""

from pydantic import BaseModel, ConfigDict

from rlhf.labels.collection.people import Standing


class _Declared(BaseModel):
    """Nothing but what is declared."""

    model_config = ConfigDict(extra="forbid")


class EstimateModel(_Declared):
    """A number with its 95 % interval; null where it is undefined."""

    value: float | None
    ci: tuple[float, float] | None
    n: int


class PaceModel(_Declared):
    """See `rlhf.labels.collection.monitor.Pace`."""

    labels: int
    hours: float
    per_hour: float
    hours_left: float | None


class ProgressModel(_Declared):
    """See `rlhf.labels.collection.monitor.Progress`."""

    tasks: int
    complete: int
    by_labels: list[int]
    in_hands: int
    labels: int
    wanted: int
    missing: int
    out_of_reach: int
    people_short: int
    from_files: int
    skips: dict[str, int]
    flags: dict[str, int]
    pace: PaceModel
    hourly: list[int]


class AgreementModel(_Declared):
    """See `rlhf.labels.trust.agreement.Agreement`."""

    raw: EstimateModel
    cohen_kappa: EstimateModel
    fleiss_kappa: EstimateModel
    krippendorff_nominal: EstimateModel
    krippendorff_ordinal: EstimateModel


class AnnotatorModel(_Declared):
    """See `rlhf.labels.collection.people.AnnotatorNumbers`."""

    id: int
    name: str
    standing: Standing
    why: str
    labels: int
    skips: int
    flags: int
    gold: EstimateModel | None
    qualification: EstimateModel | None
    agreement: EstimateModel | None
    left: EstimateModel | None
    longer: EstimateModel | None
    tie: EstimateModel | None
    same_again: EstimateModel | None
    median_seconds: float | None
    fast: EstimateModel | None
    gold_drift: EstimateModel | None
    agreement_drift: EstimateModel | None
    attention: dict[str, str]


class DashboardModel(_Declared):
    """See `rlhf.labels.collection.monitor.Overview`."""

    project: str
    time: float
    newest_event: int
    progress: ProgressModel
    agreement: AgreementModel
    middle_agreement: float | None
    annotators: list[AnnotatorModel]
