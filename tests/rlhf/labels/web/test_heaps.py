import platform

from rlhf.labels.web.heaps import share_heaps


def test_who_says_how_many_heaps_by_the_environment_is_heard(monkeypatch):
    monkeypatch.setenv("MALLOC_ARENA_MAX", "4")
    assert not share_heaps()


def test_another_allocator_is_left_alone(monkeypatch):
    monkeypatch.delenv("MALLOC_ARENA_MAX", raising=False)
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    assert not share_heaps()
