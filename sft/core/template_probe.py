"""Program of `template_limits.py`: renders the chat template on standard input within limits.

Its exit code says what happened: 0 within all limits, 3 memory, 4 output, 5 forbidden, 6 nesting; SIGXCPU: CPU time.
Imports jinja2 alone, so that its process is small.
"""

import json
import resource
import sys
from collections.abc import Callable
from datetime import datetime

from jinja2 import TemplateError, nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment

_SHAPES = (("user",), ("user", "assistant", "user"), ("system", "user"), ("system",) + ("user", "assistant") * 8)
_CONTENTS = ("hi", "a word 1\n" * 200, "")


class _Generation(Extension):
    """The block `{% generation %}`, by which some templates mark what a model wrote."""

    tags = {"generation"}  # noqa: RUF012  (Jinja's way)

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_write"), [], [], body).set_lineno(line)

    def _write(self, caller: Macro) -> str:
        return str(caller())


def environment() -> ImmutableSandboxedEnvironment:
    """Return the sandbox that transformers renders chat templates in."""

    def refuse(message: str) -> None:
        raise TemplateError(message)

    def to_json(value: object, **options: object) -> str:
        return json.dumps(value, **({"ensure_ascii": False} | options))  # type: ignore[arg-type]

    made = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols])
    made.filters["tojson"] = to_json
    made.globals["raise_exception"] = refuse
    made.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    return made


def render_all(template: str, most: Callable[[int], int]) -> int:
    """Render every conversation and return the exit code.

    Args:
        template: of Jinja.
        most: characters that a template may make of a conversation of so many.
    """
    try:
        compiled = environment().from_string(template)
        for roles in _SHAPES:
            for content in _CONTENTS:
                turns = [{"role": role, "content": content} for role in roles]
                tokens = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
                given = {"messages": turns, "tools": None, "documents": None, "add_generation_prompt": True}
                room = most(len(content) * len(turns))
                try:
                    for piece in compiled.generate(**given, **tokens):
                        room -= len(piece)
                        if room < 0:
                            return 4
                except (MemoryError, RecursionError, SecurityError):
                    raise
                except Exception:  # many templates refuse some conversations
                    continue
    except MemoryError:
        return 3
    except SecurityError:
        return 5
    except RecursionError:
        return 6
    except Exception:  # not Jinja, or not of this version: transformers will say so
        return 0
    return 0


def main() -> None:
    """Take on the limits, then render."""
    seconds, memory, fixed, per_character = (int(word) for word in sys.argv[1:])
    template = sys.stdin.buffer.read().decode(errors="surrogatepass")
    used = resource.getrusage(resource.RUSAGE_SELF)
    until = int(used.ru_utime + used.ru_stime) + 1 + seconds
    resource.setrlimit(resource.RLIMIT_CPU, (until, until + 1))
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    sys.exit(render_all(template, lambda said: fixed + per_character * said))


if __name__ == "__main__":
    main()
