"""How processes meet, lead and share; see tests/rlhf/ppo/test_distributed.py for what they train."""

import math
import os
import signal
import socket
import sys
import time
from pathlib import Path

import pytest
import torch
from ranks import run_ranks, start, told, wait

from sft.config import RuntimeConfig
from sft.core import distributed
from sft.core.distributed import (
    Peers,
    first_given,
    from_rank_0,
    gather_json,
    gather_rows,
    spread_like,
    sum_gradients,
    wait_for_all,
    whole,
)
from sft.core.errors import ConfigError, DataError
from sft.core.world import ALONE, World, check_world, torchrun_world


def test_torchrun_says_who_a_process_is():
    assert torchrun_world({"HOME": "/"}) == torchrun_world({"WORLD_SIZE": "2"}) == ALONE == World(0, 1)
    assert torchrun_world({"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1"}) == World(3, 4, 1)


def test_shares_are_every_nth_row_and_cover_all():
    shares = [list(World(rank, 3).share(7)) for rank in range(3)]
    assert shares == [[0, 3, 6], [1, 4], [2, 5]]
    assert list(ALONE.share(3)) == [0, 1, 2]


def test_another_number_of_processes_than_asked_for_is_refused():
    for world, asked in ((ALONE, None), (ALONE, 1), (World(1, 2), None), (World(1, 2), 2)):
        check_world(world, RuntimeConfig(world_size=asked))
    with pytest.raises(ConfigError, match=r"runtime\.world_size=2: but 1 process takes part; start it with torchrun"):
        check_world(ALONE, RuntimeConfig(world_size=2))
    with pytest.raises(ConfigError, match=r"but 2 processes take part; .* or set runtime\.world_size=2"):
        check_world(World(0, 2), RuntimeConfig(world_size=1))
    with pytest.raises(ConfigError, match=r"world_size=0: must be greater than 0"):
        RuntimeConfig(world_size=0)


def test_one_process_alone_shares_with_itself():
    rows = torch.arange(3)
    assert gather_rows(ALONE, rows, 3) is rows
    assert gather_json(ALONE, "x") == ["x"]
    assert from_rank_0(ALONE, 1.5) == 1.5
    parameter = torch.nn.Parameter(torch.zeros(1))
    sum_gradients(ALONE, [parameter])
    assert parameter.grad is None
    assert whole(rows) is spread_like(rows, rows) is rows
    wait_for_all(ALONE)
    assert not torch.distributed.is_initialized()


def test_first_given():
    assert first_given([None, "SIGTERM", "SIGUSR1"]) == "SIGTERM"
    assert first_given([None, None]) is None


def test_values_and_rows_arrive_bit_by_bit(tmp_path: Path):
    whole_rows = {
        "flags": torch.tensor([[True, False], [False, False], [True, True]]),
        "ids": torch.tensor([[1, -2], [3, 2**60], [5, 6]]),
        "numbers": torch.tensor([math.nan, -math.inf, 1e-45]),
        "doubles": torch.tensor([[0.1], [math.nan], [-0.0]], dtype=torch.float64),
    }

    def work(peers: Peers) -> None:
        with peers.together() as world:
            own = {"rank": world.rank, "third": 1 / 3, "long": "ä" * 50 * world.rank, "none": None}
            first, second = gather_json(world, own)
            assert (first["rank"], second["rank"], second["long"]) == (0, 1, "ä" * 50)
            assert first["third"] == second["third"] == 1 / 3
            assert math.isnan(gather_json(world, math.nan)[1])
            assert from_rank_0(world, world.rank + 7) == 7
            for rows in whole_rows.values():
                share = rows[list(world.share(3))]
                found = gather_rows(world, share, 3)
                assert found.dtype == rows.dtype
                assert found.shape == rows.shape
                assert found.numpy().tobytes() == rows.numpy().tobytes()

    run_ranks(2, tmp_path, work)


def test_gradients_are_summed_also_in_buckets_and_where_one_is_missing(tmp_path: Path):
    def work(peers: Peers) -> None:
        distributed.BUCKET_NUMBERS = 5
        with peers.together() as world:
            parameters = [torch.nn.Parameter(torch.zeros(shape)) for shape in ((2, 2), (3,), (7,), (1,))]
            for number, parameter in enumerate(parameters):
                if number != 1 or world.rank == 0:
                    parameter.grad = torch.full_like(parameter, 10.0**world.rank + number)
            sum_gradients(world, parameters)
            expected = [1 + 10, 1 + 1, 1 + 10 + 4, 1 + 10 + 6]
            for parameter, value in zip(parameters, expected, strict=True):
                assert torch.equal(parameter.grad, torch.full_like(parameter, value))

    run_ranks(2, tmp_path, work)


def test_rank_0_leads_and_the_others_end_as_it_does(tmp_path: Path):
    """Several stages after one another; between them no process group is there."""

    def work(peers: Peers) -> None:
        if peers.world.rank == 0:
            with peers.leading():
                for number in range(2):
                    time.sleep(0.2)
                    peers.tell({"do": number})
                    with peers.together() as world:
                        assert gather_json(world, 0) == [0, number]
                    assert not torch.distributed.is_initialized()
                raise DataError("broken")
        while "exit_code" not in (order := peers.listen()):
            with peers.together() as world:
                gather_json(world, order["do"])
        sys.exit(40 + order["exit_code"])

    assert wait(start(2, tmp_path, work)) == [1, 41]
    assert "DataError: broken" in told(tmp_path)


def test_an_error_of_one_process_reaches_the_other_at_once(tmp_path: Path):
    def work(peers: Peers) -> None:
        with peers.together() as world:
            if world.rank == 1:
                raise DataError("only here")
            wait_for_all(world)

    started = time.monotonic()
    assert wait(start(2, tmp_path, work)) == [1, 1]
    assert time.monotonic() - started < 20
    assert "PeerError: another process of this run has died or hangs" in told(tmp_path)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_process_that_dies_or_hangs_stops_the_other(number: int, tmp_path: Path):
    def work(peers: Peers) -> None:
        with peers.together() as world:
            wait_for_all(world)
            if world.rank == 1:
                os.kill(os.getpid(), number)
            wait_for_all(world)

    processes = start(2, tmp_path, work, timeout_s=3)
    assert wait(processes[:1], seconds=20) == [1]
    processes[1].kill()
    processes[1].join()
    assert "PeerError: another process of this run has died or hangs" in told(tmp_path)


def test_who_waits_for_an_order_in_vain_says_so(tmp_path: Path):
    def work(peers: Peers) -> None:
        peers.listen(at_most_s=0.3)

    assert wait(start(1, tmp_path, work)) == [1]
    assert "rank 0 gave no order in 0 s: it has died or hangs" in told(tmp_path)


def test_other_errors_stay_what_they_are(tmp_path: Path):
    def work(peers: Peers) -> None:
        with peers.together():
            raise RuntimeError("out of memory")

    assert wait(start(1, tmp_path, work)) == [1]
    assert "\nRuntimeError: out of memory" in told(tmp_path)
    assert "PeerError" not in told(tmp_path)


def test_who_meets_hides_torchruns_variables(tmp_path: Path):
    """Else Hugging Face's trainers would wait for processes that do not take part in their stage."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def work(peers: Peers) -> None:
        names = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1", "ROLE_RANK": "0"}
        names |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "TORCHELASTIC_RUN_ID": "none"}
        os.environ |= names
        alone = Peers.meet(os.environ, World(0, 1))
        assert not names.keys() & os.environ.keys()
        alone.tell({"do": "nothing"})

    run_ranks(1, tmp_path, work)
