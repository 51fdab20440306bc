import json
import subprocess
import sys
import time

import pytest
import typer
from entrants import PROJECT, invited, joined, new_store, opening, session
from typer.testing import CliRunner

from rlhf.labels import people_commands
from rlhf.labels.accounts.users import Role, account, open_invite
from rlhf.labels.people_commands import serve_command, users_app
from rlhf.labels.store import LabelStore
from sft.core.errors import UsageError


@pytest.fixture
def store(tmp_path) -> LabelStore:
    return new_store(tmp_path)


def place(folder) -> list[str]:
    return ["--database", f"sqlite:///{folder}/labels.sqlite", "--project", PROJECT]


def document(folder, *words: str) -> dict[str, object]:
    result = CliRunner().invoke(users_app, [*words, *place(folder), "--json"])
    assert result.exit_code == 0, result.exception
    return json.loads(result.stdout)


def refused(folder, *words: str) -> str:
    result = CliRunner().invoke(users_app, [*words, *place(folder)])
    assert isinstance(result.exception, UsageError), result.output
    return str(result.exception)


def link_of(store, link, begin="http://127.0.0.1:8000"):
    assert link.startswith(f"{begin}/invite/")
    with opening(store)() as (connection, project):
        return open_invite(connection, project, link.rpartition("/")[2], time.time())


def test_invite(store, tmp_path):
    found = document(tmp_path, "invite", "--role", "annotator", "--days", "2")
    invite = link_of(store, found["link"])
    assert (invite.role, invite.account) == (Role.ANNOTATOR, None)
    assert 2 * 86_400 - 60 < invite.expires_at - time.time() < 2 * 86_400
    assert found["good_until"] == time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime(invite.expires_at))
    owner = document(tmp_path, "invite", "--role", "owner", "--address", "https://labels.example.org/")
    assert link_of(store, owner["link"], "https://labels.example.org").role is Role.OWNER
    assert "--role boss is not known; use one of owner, annotator" in refused(tmp_path, "invite", "--role", "boss")
    assert "give more than 0" in refused(tmp_path, "invite", "--role", "owner", "--days", "0")


def test_reset_pause_resume_disable_and_list(store, tmp_path):
    token = joined(store, "Bo", now=time.time())
    joined(store, "Ada", Role.OWNER)
    assert link_of(store, document(tmp_path, "reset", "Bo")["link"]).account.name == "Bo"
    assert document(tmp_path, "pause", "Bo", "--reason", "on leave")["paused"] is True
    bo, ada = document(tmp_path, "list")["users"]
    assert (bo["name"], bo["role"], bo["paused_reason"], bo["disabled"]) == ("Bo", "annotator", "on leave", False)
    assert bo["paused_at"][:2] == "20"
    assert (ada["name"], ada["role"], ada["paused_at"]) == ("Ada", "owner", None)
    assert document(tmp_path, "resume", "Bo") == {"name": "Bo", "paused": False}
    assert session(store, token, time.time()) is not None
    assert document(tmp_path, "disable", "Bo") == {"name": "Bo", "disabled": True}
    assert session(store, token, time.time()) is None
    assert [user["disabled"] for user in document(tmp_path, "list")["users"]] == [True, False]
    for command in ("reset", "pause", "resume", "disable"):
        assert "no account 'Cy'; there are: Bo, Ada" in refused(tmp_path, command, "Cy")
    with opening(store)() as (connection, project):
        assert account(connection, project, "Bo").paused_at is None


def test_a_project_is_not_made_by_a_typing_error(store, tmp_path):
    words = ["list", "--database", f"sqlite:///{tmp_path}/labels.sqlite", "--project", "q"]
    assert "there is no project 'q'" in str(CliRunner().invoke(users_app, words).exception)
    assert "make it: rlhf labels create q --from FILE" in str(CliRunner().invoke(users_app, words).exception)


def test_what_the_page_needs_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(people_commands, "_NEEDED", ("json", "nowhere_to_be_found"))
    app = typer.Typer()
    app.command()(serve_command)
    result = CliRunner().invoke(app, place(tmp_path))
    assert str(result.exception) == "the label page needs nowhere_to_be_found: pip install 'rlhf[labels]'"


def test_the_commands_load_neither_the_page_nor_the_database():
    code = (
        "import sys, rlhf.labels.people_commands; "
        "sys.exit(any(name in sys.modules for name in ('fastapi', 'uvicorn', 'argon2', 'sqlalchemy', 'torch')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_people_are_managed_without_the_extra(store):
    assert invited(store)
    code = (
        "import sys, rlhf.labels.accounts.users, rlhf.labels.accounts.sessions, rlhf.labels.accounts.attempts; "
        "sys.exit(any(name in sys.modules for name in ('fastapi', 'uvicorn', 'argon2')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
