"""Pages that load nothing and run nothing: one HTML file with its styles and plots inside.

A page's template extends `page.html.jinja`, which holds the head, the content security policy and the styles. All texts
of models and data pass Jinja's autoescape, and characters that are invisible or turn the writing direction are shown as
`⟨U+202E⟩`.
"""

from collections.abc import Mapping
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from sft.core.visible import visible


def render_page(template: Path, values: Mapping[str, object]) -> str:
    """Return the text of a page.

    Args:
        template: file that extends `page.html.jinja`; it may include files beside it.
        values: what the template names; a missing one raises jinja2.UndefinedError.
    """
    environment = Environment(
        autoescape=True,  # by name it would depend on the file's ending, and these are not .html
        undefined=StrictUndefined,
        finalize=lambda value: visible(value) if type(value) is str else value,
        trim_blocks=True,
        lstrip_blocks=True,
        loader=FileSystemLoader([template.parent, Path(__file__).parent]),
    )
    return environment.get_template(template.name).render(values)
