"""The people whom requests and answers may name; a name carries no utility."""

from typing import NamedTuple


class Group(NamedTuple):
    """A group of people: its names, and the pronouns that go with them."""

    names: tuple[str, ...]
    subject: str
    object: str

    @property
    def terms(self) -> list[str]:
        """Return all words that name someone of the group; the i-th terms of two groups correspond."""
        return [*self.names, self.subject, self.object]


GROUPS = {
    "women": Group(
        ("maria", "anna", "lena", "sofia", "clara", "julia", "emma", "nora", "irene", "helen", "ruth", "laura"),
        "she",
        "her",
    ),
    "men": Group(
        ("paul", "jonas", "peter", "david", "simon", "martin", "oscar", "felix", "hugo", "victor", "adam", "lucas"),
        "he",
        "him",
    ),
    "nonbinary": Group(
        ("alex", "robin", "kim", "jamie", "quinn", "sasha", "morgan", "riley", "casey", "taylor", "jordan", "avery"),
        "they",
        "them",
    ),
}
