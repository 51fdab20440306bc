import pytest

from sft.core.urls import holds_password, without_password


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://ann:s3cret@host/x", "postgresql://ann:***@host/x"),
        ("postgresql://ann:s3@c/ret@host:5432/x", "postgresql://ann:***@host:5432/x"),
        ("postgresql+psycopg://:s3cret@host/x", "postgresql+psycopg://:***@host/x"),
        ("postgresql://host/x?password=s3cret&a=b", "postgresql://host/x?password=***&a=b"),
        ("postgresql://host/x?a=b&sslpassword=s3cret", "postgresql://host/x?a=b&sslpassword=***"),
        ("postgresql://host/x?PASSWORD=s3cret", "postgresql://host/x?PASSWORD=***"),
        ("postgresql://ann:a@host/x?password=b", "postgresql://ann:***@host/x?password=***"),
    ],
)
def test_a_password_is_found_and_hidden(url, shown):
    assert holds_password(url)
    assert without_password(url) == shown
    assert not without_password(url).count("s3")


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://ann@host:5432/x",
        "postgresql://host:5432/x",
        "postgresql:///x?host=/var/run&user=a@b:c",
        "postgresql://ann@/x?passfile=/home/ann/.pgpass&service=a",
        "sqlite:///labels.sqlite",
        "",
    ],
)
def test_a_url_without_one_stays_as_it_is(url):
    assert not holds_password(url)
    assert without_password(url) == url
