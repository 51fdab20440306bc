"""Processes that train together: how they meet, how rank 0 leads, and what they tell one another.

torchrun starts all of them with the same command. Rank 0 alone runs the pipeline; the others listen for its orders in
torchrun's store and take part in the stage that it names. The process group, with its sockets and timeout, exists
during such a stage only, so that a process that leads or listens for days is like one alone.

With a world of one process everything here does nothing, and there is no process group.
"""

import json
import math
import time
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous
from torch.distributed.tensor import DTensor, distribute_tensor

from sft.core.errors import RLHFError
from sft.core.world import World

TIMEOUT = timedelta(minutes=30)
"""Longest wait for another process within a stage: it may write a checkpoint or sample longer answers meanwhile."""
POLL_S = 0.1
"""A blocking wait would keep Python from handling signals."""
BUCKET_NUMBERS = 1 << 25
"""Gradients that travel together: the copy that this takes stays small beside the model."""
TORCHRUN_PREFIXES = ("TORCHELASTIC_", "GROUP_", "ROLE_", "LOCAL_", "MASTER_")


class PeerError(RLHFError):
    """Another process of this run has died or hangs."""


class Peers:
    """The processes that torchrun started, as one of them sees them."""

    def __init__(self, world: World, store: Store, *, timeout: timedelta = TIMEOUT) -> None:
        """Use a store that all of them can reach; `timeout` is the longest wait within a stage."""
        self.world = world
        self._store = store
        self._timeout = timeout
        self._orders = 0
        self._groups = 0

    @classmethod
    def meet(cls, environ: MutableMapping[str, str], world: World) -> "Peers":
        """Reach torchrun's store, choose this process's GPU, and remove torchrun's variables.

        Libraries that found them would wait for processes that do not take part in a stage.
        """
        store, _, _ = next(iter(rendezvous("env://", timeout=TIMEOUT)))
        for name in [n for n in environ if n in ("RANK", "WORLD_SIZE") or n.startswith(TORCHRUN_PREFIXES)]:
            del environ[name]
        if torch.cuda.is_available():
            torch.cuda.set_device(world.local_rank % torch.cuda.device_count())
        return cls(world, store)

    def tell(self, order: Mapping[str, object]) -> None:
        """Give the others an order of a few words: JSON values."""
        assert self.world.rank == 0
        self._store.set(f"order-{self._orders}", json.dumps(order))
        self._orders += 1

    def listen(self, *, at_most_s: float = math.inf) -> dict[str, Any]:
        """Return the next order. Raises PeerError when none comes in time, or torchrun is gone."""
        key = f"order-{self._orders}"
        end = time.monotonic() + at_most_s
        with _lost_peers():
            while not self._store.check([key]):
                if time.monotonic() > end:
                    raise PeerError(f"rank 0 gave no order in {at_most_s:.0f} s: it has died or hangs")
                time.sleep(POLL_S)
            order: dict[str, Any] = json.loads(self._store.get(key))
        self._orders += 1
        return order

    @contextmanager
    def leading(self) -> Iterator[None]:
        """Tell the others at the end of the block to stop too, with the exit code that this process will have."""
        exit_code = 1
        try:
            yield
            exit_code = 0
        except RLHFError as error:
            exit_code = error.exit_code
            raise
        finally:
            with suppress(RuntimeError):  # torchrun is gone, and they with it
                self.tell({"exit_code": exit_code})

    @contextmanager
    def together(self) -> Iterator[World]:
        """Connect all processes while the block lasts: every one of them enters it.

        When one leaves with an error or dies, the others find their connections closed and raise PeerError.
        """
        name = f"group-{self._groups}"
        self._groups += 1
        with _lost_peers():
            dist.init_process_group(
                "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo",
                store=PrefixStore(name, self._store),
                rank=self.world.rank,
                world_size=self.world.size,
                timeout=self._timeout,
            )
            try:
                yield self.world
            finally:
                dist.destroy_process_group()


@contextmanager
def _lost_peers() -> Iterator[None]:
    """Turn what torch raises when a connection breaks or a wait ends into PeerError."""
    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, dist.DistError) and "gloo" not in str(error):
            raise
        message = str(error).strip().splitlines()[0].split(". ")[0]
        raise PeerError(
            f"another process of this run has died or hangs ({message}); its own message says why; "
            "start the same command again: it carries on after the last checkpoint"
        ) from error


def gather_json(world: World, value: object) -> list[Any]:
    """Return the JSON value of every process, in the order of ranks; floats come back exactly."""
    if world.size == 1:
        return [value]
    content = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)
    lengths = [int(x) for x in _gather(world, torch.tensor([len(content)]))]
    padded = content.new_zeros(max(lengths))
    padded[: len(content)] = content
    found = zip(_gather(world, padded), lengths, strict=True)
    return [json.loads(x[:length].numpy().tobytes()) for x, length in found]


def from_rank_0(world: World, value: Any) -> Any:
    """Return rank 0's JSON value; what the others give is not looked at."""
    return gather_json(world, value if world.rank == 0 else None)[0]


def first_given(values: Sequence[Any]) -> Any:
    """Return the first value that is not None, or None: what any process asks for, all do."""
    return next((value for value in values if value is not None), None)


def gather_rows(world: World, rows: torch.Tensor, count: int) -> torch.Tensor:
    """Return the rows 0 .. count - 1, of which each process gives its `World.share`; bit by bit, of any dtype."""
    if world.size == 1:
        return rows
    assert len(rows) == len(world.share(count))
    most = -(-count // world.size)
    padded = rows.new_zeros(most, *rows.shape[1:])
    padded[: len(rows)] = rows
    parts = _gather(world, padded.flatten().view(torch.uint8))
    whole = torch.stack([part.view(rows.dtype).view(padded.shape) for part in parts], dim=1)
    return whole.flatten(0, 1)[:count].contiguous()


def _gather(world: World, x: torch.Tensor) -> list[torch.Tensor]:
    found = [torch.empty_like(x) for _ in range(world.size)]
    dist.all_gather(found, x)
    return found


def sum_gradients(world: World, parameters: Sequence[torch.nn.Parameter]) -> None:
    """Add up the gradients of all processes, in place; one without a gradient adds zero.

    Once, after all micro-batches of a minibatch. torch's DistributedDataParallel would reduce within each backward
    pass, and hang where one process has more micro-batches than another.
    """
    if world.size == 1:
        return
    for bucket in _buckets(parameters):
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in bucket]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        dist.all_reduce(flat)
        summed = flat.split([gradient.numel() for gradient in gradients])
        for parameter, gradient, total in zip(bucket, gradients, summed, strict=True):
            parameter.grad = gradient.copy_(total.view_as(gradient))


def _buckets(parameters: Sequence[torch.nn.Parameter]) -> Iterator[list[torch.nn.Parameter]]:
    bucket: list[torch.nn.Parameter] = []
    for parameter in parameters:
        if bucket and (
            parameter.dtype != bucket[0].dtype or sum(p.numel() for p in (*bucket, parameter)) > BUCKET_NUMBERS
        ):
            yield bucket
            bucket = []
        bucket.append(parameter)
    if bucket:
        yield bucket


def wait_for_all(world: World) -> None:
    """Return when every process has come here."""
    gather_json(world, None)


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """Return a tensor that may be spread over processes as one; then every process must call this."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def spread_like(tensor: torch.Tensor, example: torch.Tensor) -> torch.Tensor:
    """Return a whole tensor, which every process has, spread as the example is."""
    if not isinstance(example, DTensor) or tensor.shape != example.shape:
        return tensor
    placed = tensor.to(example.device)
    return distribute_tensor(placed, example.device_mesh, example.placements, src_data_rank=None)
