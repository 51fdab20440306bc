"""A registry whose database is on a PostgreSQL server: the same answers, and folders that belong to one database."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from registries import Open, add, assert_whole
from sqlalchemy import create_engine, inspect, text
from typer.testing import CliRunner

from rlhf.registry import Registry, Tag, Verdict
from rlhf.registry.commands import app
from rlhf.registry.tables import TABLES
from sft.core.errors import StorageError, UsageError


def test_the_same_steps_give_the_same_answers(open_registry: Open, tmp_path):
    """On both databases, against one hand-written answer."""
    registry = open_registry()
    base = add(registry, "base", "b")
    sft = add(registry, "sft", "s1", parents=[("init", base)], metadata={"metrics": {"loss": 0.25}, "ü": "🙂"})
    add(registry, "sft", "s2", parents=[("init", base)])
    registry.tag(sft, [Tag("paper"), Tag("data", "HH v2")])
    registry.promote(sft, "champion", asked_by="ann", verdicts=[Verdict("e:1", "evaluation", False)], reason="demo")
    registry = open_registry()
    assert [artifact.ref for artifact in registry.artifacts()] == ["base:1", "sft:1", "sft:2"]
    found = registry.get("sft@champion")
    assert (found.ref, found.aliases, found.tags) == ("sft:1", ("champion",), (Tag("data", "HH v2"), Tag("paper")))
    assert found.metadata == {"metrics": {"loss": 0.25}, "ü": "🙂"}
    assert [promotion.as_dict() for promotion in registry.promotions()] == [
        {
            "ref": "sft:1",
            "alias": "champion",
            "asked_by": "ann",
            "created_at": registry.promotions()[0].created_at,
            "reason": "demo",
            "verdicts": [{"report": "e:1", "kind": "evaluation", "passed": False}],
        }
    ]
    assert [edge.child_ref for edge in registry.lineage("base").descendants] == ["sft:1", "sft:2"]
    assert registry.verify(registry.artifacts()) == []
    assert registry.sweep(remove=True).found == []
    assert_whole(registry)
    with registry._database.read() as catalogue, pytest.raises(Exception, match=r"read-?only"):
        catalogue.set_tag(sft, Tag("x"))


def test_the_tables_on_a_server_are_ours(postgresql_url, tmp_path):
    Registry(tmp_path / "registry", url=postgresql_url)
    engine = create_engine(postgresql_url.replace("postgresql:", "postgresql+psycopg:"))
    assert sorted(inspect(engine).get_table_names()) == sorted(TABLES.tables)
    engine.dispose()


def test_every_command_takes_the_url(postgresql_url, tmp_path):
    root = tmp_path / "registry"
    add(Registry(root, url=postgresql_url), "sft", "f")
    place = ["--registry", str(root), "--registry-url", postgresql_url]
    for command in (["list"], ["show", "sft"], ["lineage", "sft"], ["verify"], ["diff", "sft", "sft"], ["tag", "sft"]):
        assert json.loads(CliRunner().invoke(app, [*command, *place, "--json"]).stdout), command
    for command in (["promote", "sft", "--force", "x"], ["gc", "--yes"], ["upgrade"]):
        assert CliRunner().invoke(app, [*command, *place]).exit_code == 0, command


def test_a_folder_belongs_to_one_database(postgresql_url, tmp_path):
    root = tmp_path / "registry"
    add(Registry(root, url=postgresql_url), "sft", "f")
    note = json.loads((root / "registry.db.elsewhere").read_text())
    assert note["database"] == postgresql_url
    for create in (True, False):
        with pytest.raises(UsageError, match=r"keeps its database in postgresql://.*--registry-url URL"):
            Registry(root, create=create)
        with pytest.raises(UsageError, match=r"do not lie in .*other; give --registry .*registry\.db\.elsewhere"):
            Registry(tmp_path / "other", url=postgresql_url, create=create)
    assert not (root / "registry.db").exists()
    own = Registry(tmp_path / "own").root
    for create in (True, False):
        with pytest.raises(UsageError, match=r"holds a registry with a database of its own, registry\.db"):
            Registry(own, url=postgresql_url, create=create)


def test_a_database_whose_folder_was_lost_does_not_begin_another_one(postgresql_url, tmp_path):
    root = tmp_path / "registry"
    Registry(root, url=postgresql_url)
    shutil.rmtree(root)
    add(Registry(root, url=postgresql_url), "sft", "f")  # nothing was in it
    shutil.rmtree(root)
    with pytest.raises(UsageError, match="do not lie in"):
        Registry(root, url=postgresql_url)


def test_a_folder_of_another_database_is_refused(postgresql_url, tmp_path):
    """The URL is of a registry, and the folder is one's, but not the same one's."""
    root = tmp_path / "registry"
    Registry(root, url=postgresql_url)
    note = json.loads((root / "registry.db.elsewhere").read_text())
    (root / "registry.db.elsewhere").write_text(json.dumps(note | {"identity": "0" * 32}))
    for create in (True, False):
        with pytest.raises(UsageError, match="do not lie in"):
            Registry(root, url=postgresql_url, create=create)


def test_a_damaged_note_is_named(postgresql_url, tmp_path):
    root = tmp_path / "registry"
    Registry(root, url=postgresql_url)
    (root / "registry.db.elsewhere").write_text("{")
    with pytest.raises(StorageError, match=r"registry\.db\.elsewhere is damaged"):
        Registry(root, url=postgresql_url)


def test_the_database_of_another_program_is_left_alone(postgresql_url, tmp_path):
    engine = create_engine(postgresql_url.replace("postgresql:", "postgresql+psycopg:"))
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE invoices (id integer)"))
    with pytest.raises(UsageError, match=r"database of another program.*'invoices'"):
        Registry(tmp_path / "registry", url=postgresql_url)
    assert inspect(engine).get_table_names() == ["invoices"]
    engine.dispose()


def test_a_server_that_is_not_there_is_a_storage_error(tmp_path):
    with pytest.raises(StorageError, match=r"postgresql://rlhf@/x\?host=.*check the disk or the server"):
        Registry(tmp_path / "registry", url=f"postgresql://rlhf@/x?host={tmp_path}")


def test_an_empty_server_without_create_is_no_registry(postgresql_url, tmp_path):
    with pytest.raises(UsageError, match=r"there is no registry in postgresql://"):
        Registry(tmp_path, url=postgresql_url, create=False)


@pytest.mark.parametrize(
    "url", ["postgresql://ann:s3cret@host/x", "postgresql://ann@host/x?password=s3cret", "postgresql://ann:s3@cret@h/x"]
)
def test_a_password_in_a_url_is_refused_and_not_shown(tmp_path, url):
    for arguments in (["list"], ["gc", "--yes"], ["upgrade"]):
        found = CliRunner().invoke(app, [*arguments, "--registry", str(tmp_path), "--registry-url", url])
        assert isinstance(found.exception, UsageError)
        assert "PGPASSFILE, PGPASSWORD or PGSERVICE" in str(found.exception)
        assert "cret" not in str(found.exception)


@pytest.mark.parametrize("url", ["sqlite:///x.db", "mysql://host/x", "nonsense", ""])
def test_any_other_url_is_refused(tmp_path, url):
    with pytest.raises(UsageError, match="is not the URL of a registry; write postgresql://USER@HOST/NAME"):
        Registry(tmp_path, url=url)


def test_without_the_driver_the_remedy_is_named(tmp_path):
    code = (
        "import sys; sys.modules['psycopg'] = None\n"
        "from pathlib import Path; from rlhf.registry import Registry\n"
        f"Registry(Path({str(tmp_path)!r}), url='postgresql://me@nowhere/x')"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "UsageError: PostgreSQL needs its driver: pip install 'psycopg[binary]'" in found.stderr
    assert not list(Path(tmp_path).glob("registry.db*"))
