"""Files that are written: whole or not at all, and nothing becomes a file that was none."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from harness.errors import HarnessError, UsageError
from harness.files import check_writable, write_whole


def write(path: Path) -> None:
    write_whole(path, "the text\n", "record", "--record")


def test_a_device_stays_a_device() -> None:
    """/dev/null takes it; /dev/full says that it cannot."""
    write(Path("/dev/null"))
    assert Path("/dev/null").is_char_device()
    with pytest.raises(HarnessError, match="cannot be written to /dev/full"):
        write(Path("/dev/full"))
    assert Path("/dev/full").is_char_device()


def test_a_pipe_is_written_to(tmp_path: Path) -> None:
    """By name or by descriptor; one that nobody reads is an error, and no wait."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with pytest.raises(HarnessError):
        write(fifo)
    read: list[str] = []
    opened = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    write(fifo)
    os.set_blocking(opened, True)
    with os.fdopen(opened) as reader:
        read.append(reader.read())
    assert fifo.is_fifo()
    here, there = os.pipe()
    thread = threading.Thread(target=write, args=(Path(f"/dev/fd/{there}"),))
    thread.start()
    thread.join()
    os.close(there)
    with os.fdopen(here) as reader:
        read.append(reader.read())
    assert read == ["the text\n"] * 2


def test_a_link_is_followed(tmp_path: Path) -> None:
    """It stays a link, and what it names has the text, whether it was there or not."""
    link, target = tmp_path / "link", tmp_path / "folder" / "target"
    target.parent.mkdir()
    link.symlink_to(target)
    for _ in range(2):
        write(link)
        assert link.is_symlink()
        assert target.read_text() == "the text\n"
    assert sorted(p.name for p in target.parent.iterdir()) == ["target"]


def test_what_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    """The old file stays as it was, and nothing half written lies beside it."""
    (tmp_path / "folder").mkdir()
    with pytest.raises(HarnessError, match="give another --record"):
        write(tmp_path / "nowhere" / "record.json")
    with pytest.raises(HarnessError):
        write(tmp_path / "folder")
    assert [p.name for p in tmp_path.iterdir()] == ["folder"]


def test_a_folder_that_says_yes_and_means_no_is_found_out_before(tmp_path: Path) -> None:
    """Root may write to /proc, as far as the mode says; trying it leaves nothing where it can be written."""
    with pytest.raises(UsageError, match=r"cannot be written to /proc/page\.html"):
        check_writable(Path("/proc/page.html"), "page", "--html")
    (tmp_path / "old.html").write_text("old")
    for name in ("old.html", "new.html"):
        check_writable(tmp_path / name, "page", "--html")
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("old.html", "old")]
