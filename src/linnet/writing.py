"""Files: written whole or not at all, as all is that a command or a store here writes, and told apart without being read."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from linnet.bits.errors import LinnetError

_KEPT = 24  # characters of a name, each up to 4 bytes long, in a temporary one, which may have 255 bytes


class FileError(LinnetError):
    """A file that cannot be read or written as what it should be."""


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A new path beside `path` that takes its place if the block ends without an error, and is removed otherwise.

    It gets the mode of the file that it replaces, or else that of an ordinary new file. What is no ordinary file, like a named
    pipe or a device, is written to as it is: to replace it would destroy it. Of a symbolic link, what it leads to is replaced.

    Raises:
        FileError: if nothing can be written there.
    """
    target = Path(path)
    if target.is_dir():
        raise FileError(f"{path or repr(path)} is a folder; name a file to write")
    if target.exists() and not target.is_file():
        yield target
        return
    target = Path(os.path.realpath(target))
    if not target.parent.is_dir():
        raise FileError(f"{path} cannot be written: the folder {target.parent} does not exist")
    try:
        handle, name = tempfile.mkstemp(target.suffix[-_KEPT:], f".{target.stem[:_KEPT]}-", target.parent)
    except OSError as error:
        raise FileError(f"{path} cannot be written ({error.strerror})") from error
    os.close(handle)
    partial = Path(name)
    try:
        yield partial
        # A temporary file is private, and whoever wrote it may have put another in its place.
        partial.chmod(stat.S_IMODE(target.stat().st_mode) if target.exists() else 0o666 & ~_umask())
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_text(path: str | Path, text: str) -> None:
    """Write a text file in UTF-8; FileError as `replacing`."""
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")


def file_identity(path: str | Path) -> str:
    """A file's size and time of change, which tell two builds or versions apart without reading them."""
    status = Path(path).stat()
    return f"{status.st_size}/{status.st_mtime_ns}"


def cache_folder() -> Path:
    """Where is kept what could be made again: the user's cache folder, by the XDG base directory specification."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "linnet"
