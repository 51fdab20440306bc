"""Listens to a trial's training and ends it where the search sees it do worse than the others."""

from collections.abc import Mapping

from rlhf.search.config import Objective, SearchConfig
from sft.core.errors import Pruned
from sft.core.tracking import Listener

_LEARNS = {
    Objective.SFT_LOSS: "sft",
    Objective.REWARD_ACCURACY: "reward",
    Objective.WIN_RATE: "policy",
    Objective.HELD_OUT_REWARD: "policy",
}
"""Objective -> the kind of product whose training shows how it will be."""


def listener(config: SearchConfig, kind: str) -> Listener | None:
    """Return what hears the training of a product; None where it shows nothing that trials are pruned by.

    What is returned raises Pruned, or StorageError where the study's database refuses.

    Args:
        config: of the search that the run is a trial of.
        kind: of the product.
    """
    watched = config.watched
    if watched is None or config.study is None or _LEARNS[Objective(config.objectives[0])] != kind:
        return None

    def hear(step: int, metrics: Mapping[str, float]) -> None:
        if watched not in metrics:
            return
        from rlhf.search.study import tell_on_the_way

        reason = tell_on_the_way(config, metrics[watched], step)
        if reason is not None:
            raise Pruned(f"pruned: {reason}")

    return hear
