import os
import signal
import subprocess
import sys

from rlhf.runs.process import Life, life, this_process

NAMED = "from rlhf.runs.process import this_process as p; print(*p(), flush=True); input()"


def test_a_process_lives_until_it_is_killed():
    me = this_process()
    with subprocess.Popen([sys.executable, "-c", NAMED], stdin=-1, stdout=-1, text=True) as child:
        assert child.stdout is not None
        host, boot_id, pid, started = child.stdout.readline().split()
        named = me._replace(host=host, boot_id=boot_id, pid=int(pid), started=int(started))
        assert (named.host, named.boot_id, named.pid) == (me.host, me.boot_id, child.pid)
        assert named.started > me.started
        assert life(named, seen_from=me) is Life.ALIVE
        child.send_signal(signal.SIGKILL)
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # it has ended, and nobody has asked how
        assert life(named, seen_from=me) is Life.DEAD
        child.wait()
    assert life(named, seen_from=me) is Life.DEAD
    assert life(named._replace(started=0), seen_from=me) is Life.DEAD  # as where the system tells no start
    assert life(me, seen_from=me) is Life.ALIVE


def test_a_later_process_with_the_same_number_is_another_one():
    me = this_process()
    assert me.pid == os.getpid()
    assert life(me._replace(started=me.started - 1), seen_from=me) is Life.DEAD


def test_nothing_survives_a_reboot_and_other_machines_cannot_be_seen():
    me = this_process()
    assert life(me._replace(boot_id="before"), seen_from=me) is Life.DEAD
    assert life(me._replace(host="elsewhere"), seen_from=me) is Life.UNKNOWN
