"""Real signals to this process, and to small processes that import no torch."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sft.core.errors import Interrupted
from sft.core.interruption import SIGNALS, Interruption


@pytest.fixture(autouse=True)
def handlers_before() -> Iterator[list[object]]:
    """Check after each test that every handler is the one of before."""
    before = [signal.getsignal(number) for number in SIGNALS]
    yield before
    assert [signal.getsignal(number) for number in SIGNALS] == before


def send(number: int) -> None:
    os.kill(os.getpid(), number)


def in_block(work: Callable[[Interruption], None]) -> None:
    with Interruption() as interruption:
        work(interruption)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_waits_for_the_border_of_the_step(number: signal.Signals):
    finished = []

    def loop(interruption: Interruption) -> None:
        assert interruption.requested is None
        interruption.raise_if_requested("step 0")
        send(number)
        finished.append("step 1")
        assert interruption.requested == number.name
        interruption.raise_if_requested("step 1")

    with pytest.raises(Interrupted) as error:
        in_block(loop)
    assert finished == ["step 1"]
    assert str(error.value) == f"interrupted by {number.name}; the same command carries on after step 1"
    assert error.value.exit_code == 75


def test_the_first_of_several_signals_is_named():
    def loop(interruption: Interruption) -> None:
        send(signal.SIGUSR1)
        send(signal.SIGTERM)
        interruption.raise_if_requested("step 1")

    with pytest.raises(Interrupted, match="by SIGUSR1;"):
        in_block(loop)


def test_a_second_ctrl_c_stops_at_once():
    def loop(interruption: Interruption) -> None:
        send(signal.SIGTERM)
        send(signal.SIGINT)
        assert interruption.requested == "SIGTERM"
        send(signal.SIGINT)
        pytest.fail("went on after the second Ctrl-C")

    with pytest.raises(KeyboardInterrupt):
        in_block(loop)


def test_a_request_that_nobody_answered_is_raised_at_the_end_of_the_block():
    with pytest.raises(Interrupted, match="by SIGTERM; the same command carries on after the last checkpoint"):
        in_block(lambda _: send(signal.SIGTERM))


def test_another_error_is_not_hidden_by_a_request():
    def loop(_: Interruption) -> None:
        send(signal.SIGTERM)
        raise OSError("disk")

    with pytest.raises(OSError, match="disk"):
        in_block(loop)


def test_a_signal_counts_for_all_nested_blocks():
    seen = []

    def note(interruption: Interruption) -> None:
        seen.append(interruption.requested)

    def inner(interruption: Interruption) -> None:
        send(signal.SIGTERM)
        note(interruption)

    def outer(interruption: Interruption) -> None:
        for work in (inner, note):
            with pytest.raises(Interrupted):
                in_block(work)
        note(interruption)
        send(signal.SIGUSR2)

    with pytest.raises(Interrupted, match="SIGTERM"):
        in_block(outer)
    assert seen == ["SIGTERM"] * 3


def test_a_second_ctrl_c_stops_at_once_inside_a_block_that_began_after_the_first():
    def inner(_: Interruption) -> None:
        send(signal.SIGINT)
        pytest.fail("went on after the second Ctrl-C")

    def outer(_: Interruption) -> None:
        send(signal.SIGINT)
        in_block(inner)

    with pytest.raises(KeyboardInterrupt):
        in_block(outer)


def test_an_inner_block_that_ends_leaves_the_outer_one_at_work():
    def outer(_: Interruption) -> None:
        in_block(lambda _: None)
        send(signal.SIGTERM)

    with pytest.raises(Interrupted):
        in_block(outer)


def test_an_ignored_signal_stays_ignored():
    before = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    try:
        with Interruption() as interruption:
            send(signal.SIGUSR1)
            assert interruption.requested is None
        assert signal.getsignal(signal.SIGUSR1) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_another_thread_can_use_a_block_and_handles_nothing(handlers_before: list[object]):
    seen: list[object] = []

    def work() -> None:
        with Interruption() as interruption:
            seen.append(interruption.requested)
            seen.extend(signal.getsignal(number) for number in SIGNALS)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(10)
    assert seen == [None, *handlers_before]


LOOP = """
import sys, time
from sft.core.errors import RLHFError
from sft.core.interruption import Interruption
assert "torch" not in sys.modules
try:
    with Interruption() as interruption:
        for step in range(1, 1000):
            print(f"begins {step}", flush=True)
            time.sleep(0.2)
            print(f"saved {step}", flush=True)
            interruption.raise_if_requested(f"step {step}")
except RLHFError as error:
    print(error, flush=True)
    sys.exit(error.exit_code)
"""


@pytest.mark.parametrize("number", SIGNALS)
def test_a_process_finishes_its_step_saves_and_exits_with_75(number: signal.Signals):
    process = subprocess.Popen([sys.executable, "-c", LOOP], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "begins 1\n"
    process.send_signal(number)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 75
    assert out.splitlines() == [
        "saved 1",
        f"interrupted by {number.name}; the same command carries on after step 1",
    ]
    assert err.startswith(f"{number.name}: this step is finished and saved first")


def test_a_process_stops_in_the_middle_of_a_step_at_the_second_ctrl_c():
    script = LOOP.replace("time.sleep(0.2)", "time.sleep(30)")
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline() == "begins 1\n"
    process.send_signal(signal.SIGINT)
    assert "press Ctrl-C again" in process.stderr.readline()
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=10)
    assert out == ""
    assert "KeyboardInterrupt" in err
    assert process.returncode == -signal.SIGINT


def ends(script: str) -> tuple[int, list[str], str]:
    """Run a script that sends itself signals; return exit code, lines, standard error."""
    head = "import os, signal, sys, time, weakref\nfrom sft.core.interruption import *\nfrom sft.core.errors import *\n"
    head += "def send(name): os.kill(os.getpid(), getattr(signal, name))\n"
    words = [sys.executable, "-c", head + textwrap.dedent(script)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout.splitlines(), done.stderr


@pytest.mark.parametrize("number", SIGNALS)
def test_outside_a_loop_a_signal_stops_at_once_and_what_is_closed_then_is_left_in_peace(number: signal.Signals):
    code, lines, err = ends(f"""
        stop_at_signals()
        try:
            try:
                send("{number.name}")
                time.sleep(30)
            finally:
                for name in ("SIGTERM", "SIGUSR1", "SIGUSR2"):
                    send(name)
                print("closed")
        except KeyboardInterrupt as stop:
            print(stop, stopped_by())
    """)
    assert (code, lines, err) == (0, ["closed", f"{number.name} {number.name}"], "")


def test_a_second_ctrl_c_disturbs_the_closing_too():
    code, lines, _ = ends("""
        stop_at_signals()
        try:
            try:
                send("SIGTERM")
            finally:
                send("SIGINT")
                print("closed")
        except KeyboardInterrupt:
            print("at once")
    """)
    assert (code, lines) == (0, ["at once"])


def test_what_python_drops_in_a_finalizer_is_raised_again():
    code, lines, err = ends("""
        class Thing:
            def __del__(self): send("SIGTERM"); time.sleep(0.01); print("never")
        stop_at_signals()
        try:
            thing = Thing()
            del thing
            print("goes on")
            time.sleep(30)
        except KeyboardInterrupt as stop:
            print(stop)
    """)
    assert (code, lines, err) == (0, ["goes on", "SIGTERM"], "")


def test_other_errors_that_python_drops_are_still_told():
    _, _, err = ends("""
        class Thing:
            def __del__(self): raise ValueError("broken")
        stop_at_signals()
        thing = Thing()
        del thing
    """)
    assert "ValueError: broken" in err


def test_what_a_library_swallows_is_heard_at_the_next_border_and_by_the_next_loop():
    code, lines, _ = ends("""
        stop_at_signals()
        raise_if_stopped()
        try:
            send("SIGUSR1")
        except BaseException:
            pass
        for ask in (raise_if_stopped, lambda: Interruption().__enter__().raise_if_requested("step 0")):
            try:
                ask()
            except Interrupted as error:
                print(error, error.signal)
    """)
    assert code == 0
    assert lines == [
        "interrupted by SIGUSR1; the same command carries on after the last stage SIGUSR1",
        "interrupted by SIGUSR1; the same command carries on after step 0 SIGUSR1",
    ]


def test_after_a_loop_that_was_interrupted_only_ctrl_c_disturbs_the_closing():
    code, lines, _ = ends("""
        stop_at_signals()
        try:
            with Interruption() as interruption:
                send("SIGTERM")
                interruption.raise_if_requested("step 1")
        except Interrupted:
            send("SIGTERM")
            print("closed", stopped_by())
    """)
    assert (code, lines) == (0, ["closed SIGTERM"])


def test_before_anything_began_and_after_everything_is_told_a_signal_ends_the_process():
    code, lines, err = ends("""
        leave_at_signals(75, "nothing began")
        send("SIGTERM")
        print("never")
    """)
    assert (code, lines, err) == (75, [], "nothing began")
    code, lines, err = ends("""
        import atexit
        atexit.register(lambda: print("first handler, which comes last", flush=True))
        stop_at_signals()
        atexit.register(lambda: (send("SIGTERM"), print("never")))
        print("told", flush=True)
        leave_at_signals(3)
    """)
    assert (code, lines, err) == (3, ["told"], "")


def test_while_the_interpreter_ends_signals_do_nothing():
    code, lines, err = ends("""
        import atexit
        atexit.register(lambda: (send("SIGTERM"), print("after all other handlers")))
        stop_at_signals()
    """)
    assert (code, lines, err) == (0, ["after all other handlers"], "")


def test_what_the_process_ignores_stays_ignored_everywhere():
    code, lines, _ = ends("""
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        leave_at_signals(75)
        stop_at_signals()
        send("SIGINT")
        print("goes on", stopped_by())
    """)
    assert (code, lines) == (0, ["goes on None"])


def test_a_whole_block_ends_before_a_signal_is_answered_but_for_a_second_ctrl_c():
    code, lines, err = ends("""
        stop_at_signals()
        try:
            with Whole(), Whole():
                send("SIGTERM")
                send("SIGUSR1")
                print("whole")
            print("never")
        except KeyboardInterrupt as stop:
            print(stop)
            with Whole():
                send("SIGTERM")
            print("closed in peace")
        try:
            with Whole():
                send("SIGINT")
                print("never")
        except KeyboardInterrupt:
            print("cut")
    """)
    assert (code, lines, err) == (0, ["whole", "SIGTERM", "closed in peace", "cut"], "")


def test_a_whole_block_of_another_thread_puts_nothing_off():
    code, lines, _ = ends("""
        import threading
        stop_at_signals()
        inside, leave = threading.Event(), threading.Event()
        def work():
            with Whole():
                inside.set()
                leave.wait(30)
        thread = threading.Thread(target=work)
        thread.start()
        inside.wait(30)
        try:
            send("SIGTERM")
            print("never")
        except KeyboardInterrupt:
            print("at once")
        leave.set()
        thread.join()
    """)
    assert (code, lines) == (0, ["at once"])


@pytest.mark.parametrize("number", SIGNALS)
def test_the_exit_code_counts_though_the_signal_came_within_exec(tmp_path: Path, number: signal.Signals):
    """As when a module with a dataclass is imported; `python -m` then ends by SIGINT for a plain KeyboardInterrupt."""
    (tmp_path / "command.py").write_text(
        "import os, signal, sys, time\n"
        "from sft.core.interruption import stop_at_signals\n"
        "stop_at_signals()\n"
        "try:\n"
        f"    exec('os.kill(os.getpid(), {int(number)}); time.sleep(30)')\n"
        "except KeyboardInterrupt:\n"
        "    sys.exit(75)\n"
    )
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}:{Path(__file__).parents[3]}"}
    done = subprocess.run((sys.executable, "-m", "command"), env=environment, timeout=60)
    assert done.returncode == 75


def test_what_was_dropped_is_not_raised_again_within_a_whole_block():
    code, lines, err = ends("""
        class Thing:
            def __del__(self): send("SIGTERM"); time.sleep(0.01)
        stop_at_signals()
        try:
            thing = Thing()
            del thing
            with Whole():
                time.sleep(0.2)
                print("whole")
            print("never")
        except KeyboardInterrupt as stop:
            print(stop)
    """)
    assert (code, lines, err) == (0, ["whole", "SIGTERM"], "")
