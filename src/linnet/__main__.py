"""The command `linnet`, and `python -m linnet`, which torchrun needs."""

from __future__ import annotations

import signal
import sys
from types import FrameType


class Stopped(KeyboardInterrupt):
    """A signal that ends a command. Not a KeyboardInterrupt itself: after one, even caught, Python may end by SIGINT."""


def main() -> None:
    """Run the command line. Ctrl-C, SIGTERM and SIGHUP end it at any time: what was begun is removed, and nothing is said."""
    stopped = 0

    def stop(number: int, _: FrameType | None) -> None:
        nonlocal stopped
        stopped = number
        raise Stopped

    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)  # not every system has all
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:  # as nohup asks
            signal.signal(number, stop)
    try:
        from linnet.cli import main as command

        command()
    except BaseException:
        # An import that is interrupted may end with any error.
        if stopped:
            sys.exit(128 + stopped)
        raise


if __name__ == "__main__":
    main()
