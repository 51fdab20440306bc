"""A trial's place: the number by which people know it, and its folder's name."""

from pathlib import Path


def folder_name(place: int) -> str:
    """Return the name of a trial's folder."""
    return f"{place:03d}"


def place_of(folder: Path, trial: int) -> int:
    """Return the place that a folder is named after; a trial that no search has started has its own number."""
    return int(folder.name) if folder.name.isdecimal() else trial
