import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from rlhf.runs.lock import LOCK_FILE, only_writer
from rlhf.runs.process import this_process
from sft.core.errors import UsageError

HOLDS = """
import sys
from pathlib import Path
from rlhf.runs.lock import only_writer
with only_writer(Path(sys.argv[1])):
    print("holds", flush=True)
    input()
"""


def holder(folder: Path) -> subprocess.Popen[str]:
    child = subprocess.Popen([sys.executable, "-c", HOLDS, str(folder)], stdin=-1, stdout=-1, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "holds\n"
    return child


def test_a_second_process_is_refused_and_a_killed_ones_lock_is_taken_over(tmp_path: Path):
    with holder(tmp_path) as child:
        with (
            pytest.raises(UsageError, match=f"written by process {child.pid} of .*hydra.run.dir=DIR"),
            only_writer(tmp_path),
        ):
            pass
        child.send_signal(signal.SIGSTOP)  # a process that sleeps holds it, too
        with pytest.raises(UsageError, match="written by process"), only_writer(tmp_path):
            pass
        child.send_signal(signal.SIGKILL)
        child.wait()
        assert json.loads((tmp_path / LOCK_FILE).read_text())["pid"] == child.pid
        with only_writer(tmp_path):
            assert json.loads((tmp_path / LOCK_FILE).read_text())["pid"] == this_process().pid


def test_the_same_process_is_refused_too_and_the_first_keeps_its_lock(tmp_path: Path):
    with only_writer(tmp_path):
        for _ in range(2):
            with pytest.raises(UsageError, match="is being written"), only_writer(tmp_path):
                pass
    with only_writer(tmp_path):
        pass
    assert (tmp_path / LOCK_FILE).read_text() == ""


def test_an_error_inside_frees_the_folder(tmp_path: Path):
    with pytest.raises(ZeroDivisionError), only_writer(tmp_path):
        _ = 1 / 0
    assert (tmp_path / LOCK_FILE).read_text() == ""


def test_a_machine_whose_locks_cannot_be_seen_is_believed(tmp_path: Path):
    elsewhere = this_process()._replace(host="node-7", boot_id="another", pid=12)
    (tmp_path / LOCK_FILE).write_text(json.dumps(elsewhere._asdict()))
    with pytest.raises(UsageError, match=r"process 12 of node-7.*remove .*run\.lock"), only_writer(tmp_path):
        pass
    assert json.loads((tmp_path / LOCK_FILE).read_text())["host"] == "node-7"


@pytest.mark.parametrize("content", ['{"host": "he', "[]", '{"pid": null}'])
def test_what_no_process_wrote_whole_holds_nothing(tmp_path: Path, content: str):
    (tmp_path / LOCK_FILE).write_text(content)
    with only_writer(tmp_path):
        pass


def test_a_lock_from_before_a_reboot_is_taken_over(tmp_path: Path):
    (tmp_path / LOCK_FILE).write_text(json.dumps(this_process()._replace(boot_id="before", pid=12)._asdict()))
    with only_writer(tmp_path):
        pass
