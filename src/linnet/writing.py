"""Files that are written whole or not at all: what every command and every store here writes goes through this."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from linnet.bits.errors import LinnetError


class FileError(LinnetError):
    """A file that cannot be read or written as what it should be."""


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A new path beside `path` that takes its place if the block ends without an error, and is removed otherwise.

    What is no ordinary file, like a named pipe or a device, is written to as it is: to replace it would destroy it. Of a
    symbolic link, what it leads to is replaced.

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
        handle, name = tempfile.mkstemp(prefix=f".{target.stem}-", suffix=target.suffix, dir=target.parent)
    except OSError as error:
        raise FileError(f"{path} cannot be written ({error.strerror})") from error
    os.close(handle)
    partial = Path(name)
    try:
        # A temporary file is private; the finished one gets what an ordinary new file would get.
        mask = os.umask(0)
        os.umask(mask)
        partial.chmod(0o666 & ~mask)
        yield partial
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Write a text file in UTF-8; FileError as `replacing`."""
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")
