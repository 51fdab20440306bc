"""A chat template is a stranger's program: what it may cost and reach."""

import json
import sys
from pathlib import Path

import pytest
from chat_kinds import QWEN, TEMPLATES, byte_level
from transformers import PreTrainedTokenizerFast

from sft.core import template_limits
from sft.core.errors import DataError
from sft.core.template_limits import MAX_TEMPLATE_BYTES, check_template, most_characters
from sft.core.template_probe import environment, render_all
from sft.core.text import encode_prompt, render_prompt, user
from sft.model import CHAT_TEMPLATE, load_tokenizer

FORBIDDEN = [
    "{{ ''.__class__.__mro__ }}",
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
    "{{ self.__init__.__globals__ }}",
    "{{ '{0.__class__.__mro__}'.format('') }}",
    "{{ (messages|map(attribute='__class__')|list)[0].mro() }}",
    "{{ messages.append(1) }}",
    "{{ messages[0].update(content='else') }}",
]
LARGE = [
    ("{{ 'a' * 10**9 }}", "memory"),
    ("{% set n = 10**9 %}{{ messages[0].role * n }}", "memory"),
    ("{{ ([0] * 10**9)|length }}", "memory"),
    ("{{ 'a'|center(10**10) }}", "memory"),
    ("{{ '%1000000000d'|format(1) }}", "memory"),
    ("{% set t = namespace(x='a') %}{% for i in range(60) %}{% set t.x = t.x ~ t.x %}{% endfor %}", "memory"),
    ("{% for a in range(2000) %}{% for b in range(2000) %}x{% endfor %}{% endfor %}", "far more than was said"),
    ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "nests too deeply"),
    ("{% for a in [messages] recursive %}{{ loop([messages]) }}{% endfor %}", "nests too deeply"),
    ("{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}", "nests too deeply"),
]

INDENTED = "{% for m in messages %}\n  {% if m.role == 'user' %}\n{{ m.content }}\n  {% endif %}\n{% endfor %}"
"""As people write templates: transformers leaves out the line breaks and the indents of blocks."""
STOPS_EARLY = "{% for m in messages %}{{ m.content }}{% break %}{% endfor %}"


@pytest.mark.parametrize("template", FORBIDDEN)
def test_what_the_sandbox_forbids(template: str):
    assert render_all(template, lambda said: 10**6) == 5


@pytest.mark.parametrize(("template", "rule"), LARGE, ids=[template[:30] for template, _ in LARGE])
def test_templates_that_grow_are_refused_by_the_limits_of_a_process(template: str, rule: str):
    with pytest.raises(DataError, match=rf"{rule}.*; use the template of the model's authors"):
        check_template(template)


@pytest.mark.parametrize("probe", ["tools is not none", "documents is not none"])
def test_a_template_cannot_tell_the_trial_by_what_is_missing(probe: str):
    """transformers passes both as null: a template that found them missing could behave in the trial alone."""
    hides = "{% if " + probe + " %}{{ raise_exception('this is the trial') }}{% endif %}"
    with pytest.raises(DataError, match="far more than was said"):
        check_template(hides + LARGE[6][0])


def test_endless_work_is_stopped(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(template_limits, "MAX_CPU_S", 1)
    with pytest.raises(DataError, match="CPU time"):
        check_template("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}")
    monkeypatch.setattr(template_limits, "MAX_WALL_S", 0.01)
    with pytest.raises(DataError, match=r"more than 0\.01 s"):
        check_template("{{ 'another' }}")


def test_a_large_template_is_not_even_tried(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "executable", "no such program")
    with pytest.raises(DataError, match=rf"has {MAX_TEMPLATE_BYTES + 1} bytes"):
        check_template("x" * (MAX_TEMPLATE_BYTES + 1))


@pytest.mark.parametrize("template", [*filter(None, TEMPLATES.values()), QWEN, CHAT_TEMPLATE, INDENTED, STOPS_EARLY])
def test_templates_of_known_kinds_pass_and_are_rendered_as_transformers_does(template: str):
    check_template(template)
    tokenizer = byte_level()
    tokenizer.chat_template = template
    turns = [{"role": role, "content": f" {role} <b>\n"} for role in ("user", "assistant", "user")]
    words = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}
    rendered = environment().from_string(template).render(messages=turns, add_generation_prompt=True, **words)
    assert rendered == tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)


@pytest.mark.parametrize(
    "template",
    [
        "{{ messages|tojson(indent=2) }}{{ strftime_now('%Y')|length }}{% break %}",
        "{% if messages[0].role == 'system' %}{{ raise_exception('no system turns') }}{% endif %}{{ 'x' }}",
        "{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}{% continue %}{% endfor %}",
        "{% not jinja %}",
    ],
)
def test_other_faults_are_left_to_transformers(template: str):
    assert render_all(template, lambda said: 10**6) == 0


def saved(folder: Path, template: str) -> Path:
    tokenizer = byte_level()
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    return folder


def test_a_hostile_folder_is_refused_when_its_tokenizer_is_loaded(tmp_path: Path):
    good = "{% for m in messages %}{{ m.content }}{% endfor %}"
    assert isinstance(load_tokenizer(saved(tmp_path / "good", good)), PreTrainedTokenizerFast)
    folder = saved(tmp_path / "bad", "{{ 'a' * 10**9 }}")
    with pytest.raises(DataError, match="the chat template takes more than 512 MiB of memory"):
        load_tokenizer(folder)


def test_of_several_templates_the_default_is_used(tmp_path: Path):
    folder = saved(tmp_path, "unused")
    (folder / "chat_template.jinja").unlink()
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    turns = "{% for m in messages %}<s>{{ m.content }}{% endfor %}"
    settings["chat_template"] = [{"name": "rag", "template": "no"}, {"name": "default", "template": turns}]
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    tokenizer = load_tokenizer(folder)
    assert render_prompt(tokenizer, user("hi")) == "<s>hi"
    assert encode_prompt(tokenizer, user("hi<s>")).count(tokenizer.bos_token_id) == 1


def test_a_template_that_waits_for_a_word_may_not_write_without_end():
    tokenizer = byte_level()
    tokenizer.chat_template = (
        "{% for m in messages %}{% if 'go' in m.content %}{{ 'x' * 10**6 }}{% endif %}{{ m.content }}{% endfor %}"
    )
    check_template(tokenizer.chat_template)
    assert render_prompt(tokenizer, user("hi")) == "hi"
    with pytest.raises(DataError, match=rf"1000002 characters.*'go'; at most {most_characters(2)} are read"):
        render_prompt(tokenizer, user("go"))
