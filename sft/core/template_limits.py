"""Limits of a chat template that came with a model: a small program of a stranger, run for every conversation.

transformers runs it in Jinja's sandbox, which keeps it from Python's inner parts and not from time and memory: loops
may nest, texts may grow. Only the kernel really bounds those. So before its first use a template renders a few
conversations in a process of its own with limits of CPU time, memory and output (`template_probe.py`).
"""

import subprocess
import sys
from functools import lru_cache
from pathlib import Path

from sft.core.errors import DataError

MAX_TEMPLATE_BYTES = 128 * 1024
"""The largest templates of known models have about 20 KiB."""
MAX_CPU_S = 2
"""For all conversations together; known templates take milliseconds."""
MAX_MEMORY_BYTES = 512 << 20
"""Address space of the process, the interpreter included."""
MAX_WALL_S = 60
"""For a machine that is busy or asleep."""
_FIXED_CHARACTERS, _PER_CHARACTER = 256 * 1024, 4
"""A template may write a long preamble, and what was said a few times."""
_RULES = {
    -24: f"takes more than {MAX_CPU_S} s of CPU time",  # SIGXCPU
    -9: f"takes more than {MAX_CPU_S} s of CPU time",
    3: f"takes more than {MAX_MEMORY_BYTES >> 20} MiB of memory",
    4: "writes far more than was said",
    5: "reaches for what the sandbox forbids",
    6: "nests too deeply",
}
"""What the exit codes of template_probe.py mean."""


def most_characters(said: int) -> int:
    """Return how many characters a template may make of a conversation of so many."""
    return _FIXED_CHARACTERS + _PER_CHARACTER * said


@lru_cache(maxsize=16)
def check_template(template: str) -> None:
    """Raise DataError when a template breaks a limit on any of a few short and long conversations.

    A template that is merely wrong passes: transformers says so at the first conversation. One that waits for a
    certain word before it misbehaves passes too.
    """
    size = len(template.encode(errors="surrogatepass"))
    if size > MAX_TEMPLATE_BYTES:
        raise _refused(f"has {size} bytes; at most {MAX_TEMPLATE_BYTES} are read")
    limits = [str(number) for number in (MAX_CPU_S, MAX_MEMORY_BYTES, _FIXED_CHARACTERS, _PER_CHARACTER)]
    program = str(Path(__file__).with_name("template_probe.py"))
    try:
        run = subprocess.run(  # -P: the files beside the program are no modules of its own
            [sys.executable, "-P", program, *limits],
            input=template.encode(errors="surrogatepass"),
            capture_output=True,
            timeout=MAX_WALL_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise _refused(f"takes more than {MAX_WALL_S} s") from error
    if run.returncode:
        told = run.stderr.decode(errors="replace").strip()[-300:]
        raise _refused(_RULES.get(run.returncode, f"cannot be tried (exit code {run.returncode}: {told})"))


def _refused(rule: str) -> DataError:
    return DataError(f"the chat template {rule}; use the template of the model's authors, or another model")
