"""Files written whole or not at all, and what is written to: links, modes, devices, pipes."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from omnivox.writing import atomic


def write(path: Path, text: str = "new") -> None:
    with atomic(path) as place:
        place.write_text(text)


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_a_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    (tmp_path / "far" / "target").write_text("old")
    (tmp_path / "link").symlink_to(Path("far") / "target")
    (tmp_path / "dangling").symlink_to(Path("far") / "fresh")
    write(tmp_path / "link")
    write(tmp_path / "dangling")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "dangling").is_symlink()
    assert {path.name: path.read_text() for path in (tmp_path / "far").iterdir()} == {"target": "new", "fresh": "new"}


@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_a_new_file_has_the_mode_of_any_other(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        write(tmp_path / "new")
        (tmp_path / "other").write_text("")
    finally:
        os.umask(before)
    assert mode(tmp_path / "new") == mode(tmp_path / "other") == 0o666 & ~umask


@pytest.mark.parametrize("kept", [0o600, 0o664])
def test_an_old_file_keeps_its_mode(tmp_path: Path, kept: int) -> None:
    (tmp_path / "old").write_text("old")
    (tmp_path / "old").chmod(kept)
    write(tmp_path / "old")
    assert (tmp_path / "old").read_text() == "new"
    assert mode(tmp_path / "old") == kept


def test_a_pipe_is_written_to_and_stays_one(tmp_path: Path) -> None:
    pipe, heard = tmp_path / "pipe", list[str]()
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: heard.append(pipe.read_text()), daemon=True)
    reader.start()
    write(pipe)
    reader.join(10)
    assert heard == ["new"]
    assert pipe.is_fifo()
    assert list(tmp_path.iterdir()) == [pipe]


def test_an_open_pipe_without_a_name_is_written_to() -> None:
    read, written = os.pipe()  # as the shell's >(...)
    write(Path(f"/dev/fd/{written}"))
    os.close(written)
    with os.fdopen(read) as file:
        assert file.read() == "new"


def test_a_device_stays_one(tmp_path: Path) -> None:
    null = tmp_path / "null"
    try:
        os.mknod(null, 0o666 | 0o020000, os.makedev(1, 3))
        null.write_text("")
    except PermissionError:
        pytest.skip("only root may make a device")
    write(null)
    assert null.is_char_device()
    assert list(tmp_path.iterdir()) == [null]


def test_a_folder_is_refused_and_named(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError, match=str(tmp_path)):
        write(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_failure_that_names_no_file_is_given_its_name(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"No space left on device: '.*/a'"), atomic(tmp_path / "a"):
        raise OSError(28, "No space left on device")
    with pytest.raises(OSError, match="'elsewhere'"), atomic(tmp_path / "a"):
        raise OSError(28, "No space left on device", "elsewhere")
    assert list(tmp_path.iterdir()) == []
