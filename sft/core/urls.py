"""Addresses of databases as people write them. Loads no database driver."""

import re

_USER_AND_PASSWORD = re.compile(r"(//[^?#]*?):[^?#]*@")
_PASSWORD_OPTION = re.compile(r"([?&][^=&#]*password[^=&#]*=)[^&#]*", re.IGNORECASE)


def without_password(url: str) -> str:
    """Return a URL with `***` in place of a password, as `USER:PASSWORD@` or as an option of its query.

    What has none comes back as it is; a password with signs that do not belong into a URL is found too.
    """
    return _PASSWORD_OPTION.sub(r"\1***", _USER_AND_PASSWORD.sub(r"\1:***@", url, count=1))


def holds_password(url: str) -> bool:
    """Tell whether a password stands in a URL: it would be stored with every run and shown by `ps`."""
    return without_password(url) != url
