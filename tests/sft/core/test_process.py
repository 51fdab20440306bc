"""What Linux says of this boot and of processes."""

import os
import subprocess
import sys

from sft.core.process import boot_id, stat


def test_this_process_runs_since_before_its_child():
    own = stat(os.getpid())
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        of_child = stat(child.pid)
        assert own is not None
        assert of_child is not None
        assert of_child.started >= own.started
        assert of_child.state in "RSD"
        child.communicate(b"\n")
    assert stat(child.pid) is None


def test_a_child_nobody_waited_for_is_a_zombie():
    child = subprocess.Popen(["true"])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    ended = stat(child.pid)
    assert ended is not None
    assert ended.state == "Z"
    child.wait()


def test_a_name_with_spaces_and_brackets_is_read_past(tmp_path):
    odd = tmp_path / "a) b (c"
    odd.symlink_to("/bin/sleep")
    with subprocess.Popen([odd, "60"]) as child:
        of_child = stat(child.pid)
        child.kill()
    assert of_child is not None
    assert of_child.started >= stat(os.getpid()).started


def test_boot_id_stays_the_same():
    assert boot_id()
    assert boot_id() == boot_id()


def test_a_name_that_is_no_text_is_read_past():
    program = "open('/proc/self/comm', 'wb').write(b'\\xff) R'); print(flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        of_child = stat(child.pid)
        child.communicate(b"\n")
    assert of_child is not None
    assert of_child.started >= stat(os.getpid()).started
