"""Which of the processes that torchrun started this one is. Imports no torch: one process alone may never need it."""

from collections.abc import Mapping
from typing import NamedTuple

from sft.config import RuntimeConfig
from sft.core.errors import ConfigError, ConfigProblem


class World(NamedTuple):
    """One process among those that train together; the default is one alone."""

    rank: int = 0
    """0 leads: it alone writes, tracks and speaks."""
    size: int = 1
    local_rank: int = 0
    """Number on its machine, which chooses its GPU."""

    def share(self, count: int) -> range:
        """Return the numbers of this process's rows among `count`: every `size`-th."""
        return range(self.rank, count, self.size)


ALONE = World()


def torchrun_world(environ: Mapping[str, str]) -> World:
    """Return what torchrun says in its variables; without them this process is alone."""
    if "RANK" not in environ or "WORLD_SIZE" not in environ:
        return ALONE
    return World(int(environ["RANK"]), int(environ["WORLD_SIZE"]), int(environ.get("LOCAL_RANK", "0")))


def check_world(world: World, runtime: RuntimeConfig) -> None:
    """Raise ConfigError unless there are as many processes as the configuration asks for."""
    asked = runtime.world_size
    if asked is not None and asked != world.size:
        rule = f"but {world.size} {'processes take' if world.size > 1 else 'process takes'} part"
        remedy = f"start it with torchrun --nproc_per_node {asked}, or set runtime.world_size={world.size}"
        raise ConfigError([ConfigProblem("runtime.world_size", asked, rule, remedy)])
