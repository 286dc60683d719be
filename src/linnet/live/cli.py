"""`linnet send` and `linnet recv`, sound over UDP in real time, and `linnet live`, a loop back with a meter."""

from __future__ import annotations

import secrets
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click

import linnet
from linnet import files
from linnet.bits import Redundancy, Session, WrongModelError
from linnet.bits.sdp import NOISE_TYPE, frames_in
from linnet.live.devices import LOUDSPEAKER, MICROPHONE, LiveError, open_sink, open_source
from linnet.live.loopback import Meter, loop_back
from linnet.live.network import open_socket, parse_address, receive
from linnet.live.network import send as send_source
from linnet.options import (
    DURATION,
    background_option,
    copies_options,
    kbps_option,
    loss_options,
    model_option,
    refuse_same,
    say,
)
from linnet.runtime.codec import Codec
from linnet.runtime.loss import loss_model
from linnet.runtime.session import RtpReceiver, RtpSender

_METER_S = 0.2  # between two looks at a meter


@click.command()
@click.argument("source", metavar="IN")
@click.argument("address", metavar="HOST:PORT")
@kbps_option
@model_option
@copies_options
@click.option(
    "--packet", "packet_ms", type=DURATION, default="60ms", show_default=True, metavar="TIME", help="Sound in a packet."
)
@click.option("--dtx", is_flag=True, help="Send no frames while nobody speaks.")
@click.option("--sdp", type=click.Path(), help="Write a description of the session, for recv.")
def send(
    source: str, address: str, kbps: float | None, model: str, copies: int, spacing_ms: float, packet_ms: float, dtx: bool,
    sdp: str | None,
) -> None:  # fmt: skip
    """Send a recording, a pipe ('-') or the microphone ('mic') over UDP, in real time.

    --kbps is the rate of frames and copies; headers come on top, the less the longer --packet is.
    """
    codec = linnet.load(model)
    redundancy, frame_ms = _redundancy(codec, copies, spacing_ms), _frame_ms(codec)
    frames = frames_in(packet_ms, frame_ms)
    host, port = parse_address(address)
    session = Session(
        codec.card.model_id, codec.card.sample_rate, port, redundancy, packet_ms=frames * frame_ms,
        noise_type=NOISE_TYPE if dtx else None,
    )  # fmt: skip
    out, to = open_socket((host, port), listen=False)
    with out, _until_interrupted() as stop, open_source(source, codec.card.sample_rate) as opened:
        sender = RtpSender(
            codec, opened.sample_rate, kbps, redundancy, frames=frames, ssrc=secrets.randbits(32),
            sequence=secrets.randbits(16), timestamp=secrets.randbits(32), discontinuous=dtx,
        )  # fmt: skip
        if sdp:
            with files.open_output(sdp) as file:
                file.write(session.describe(to[0]).encode())
        sent = send_source(sender, opened, out, to, frame_ms / 1000, stop)
    say(
        f"sent {sent.seconds:.2f} s in {sent.packets} packets, {sender.kbps:g} kbit/s, "
        f"{sent.kbps:.1f} kbit/s with the headers of IP, UDP and RTP"
    )


@click.command()
@click.argument("address", metavar="[HOST]:PORT")
@click.argument("target", metavar="OUT")
@model_option
@copies_options
@click.option("--sdp", type=click.Path(), help="Take copies and payload type from this description.")
@click.option("--rate", type=click.IntRange(8000, 192000), help="Sample rate of OUT [the model's].")
@click.option("--idle", "idle_ms", type=DURATION, metavar="TIME", help="Stop when the stream has paused so long [never].")
@click.option(
    "--min-delay", "min_ms", type=DURATION, default="40ms", show_default=True, metavar="TIME", help="Least of the buffer."
)
@click.option(
    "--max-delay", "max_ms", type=DURATION, default="1s", show_default=True, metavar="TIME", help="Most of the buffer."
)
@kbps_option
@background_option
def recv(
    address: str, target: str, model: str, copies: int, spacing_ms: float, sdp: str | None, rate: int | None,
    idle_ms: float | None, min_ms: float, max_ms: float, kbps: float | None, background: float,
) -> None:  # fmt: skip
    """Receive from UDP to a recording, a pipe ('-') or the loudspeaker ('speaker'), until Ctrl-C or --idle.

    --kbps uses only the first layers of what arrives.

    Model, --redundancy and --spacing must be the sender's, or come from its --sdp.
    """
    codec = linnet.load(model)
    redundancy = _redundancy(codec, copies, spacing_ms)
    place = parse_address(address)
    session = (
        _read_session(sdp, codec)
        if sdp
        else Session(codec.card.model_id, codec.card.sample_rate, place[1], redundancy, noise_type=NOISE_TYPE)
    )
    receiver = RtpReceiver(
        codec, session.redundancy, session.payload_type, noise_type=session.noise_type, min_delay_s=min_ms / 1000,
        max_delay_s=max_ms / 1000,
    )  # fmt: skip
    receiver.decoder.kbps, receiver.decoder.background = kbps, background
    incoming, _ = open_socket(place, listen=True)
    with (
        incoming,
        _until_interrupted() as stop,
        _meter(lambda: _heard(receiver)) as tell,
        open_sink(target, rate or codec.card.sample_rate) as sink,
    ):
        played = receive(receiver, sink, incoming, stop, None if idle_ms is None else idle_ms / 1000, tell)
        if not receiver.jitter.counts.received:
            refused = receiver.jitter.counts.refused
            raise LiveError(f"nothing of a Linnet stream came to {address} ({refused} other packets); {target} is not written")
    say(f"{target}: {played:.2f} s; {_heard(receiver)}")


@click.command()
@click.argument("source", metavar="[IN]", default=MICROPHONE)
@click.argument("target", metavar="[OUT]", default=LOUDSPEAKER)
@kbps_option
@model_option
@copies_options
@loss_options
@background_option
def live(
    source: str, target: str, kbps: float | None, model: str, copies: int, spacing_ms: float, loss: float,
    burst_ms: float | None, seed: int, background: float,
) -> None:  # fmt: skip
    """Hear yourself through the codec: microphone to loudspeaker, or IN to OUT, until the end or Ctrl-C.

    A meter shows the whole delay, the time that a frame takes, its share of real time, and the packets lost.
    """
    codec = linnet.load(model)
    redundancy = _redundancy(codec, copies, spacing_ms)
    losses = loss_model(loss, None if burst_ms is None else burst_ms / _frame_ms(codec), None, seed)
    refuse_same(source, target)
    state: list[Meter] = []
    with (
        _until_interrupted() as stop,
        _meter(lambda: str(state[0])) as show,
        open_source(source, codec.card.sample_rate) as opened,
        open_sink(target, opened.sample_rate if target != LOUDSPEAKER else codec.card.sample_rate) as sink,
    ):

        def tell(meter: Meter) -> None:
            state[:] = [meter]
            show()

        meter = loop_back(codec, opened, sink, kbps, redundancy, losses, stop, tell, background)
    say(f"{target}: {meter.frames * meter.frame_ms / 1000:.2f} s; {meter}")


def _frame_ms(codec: Codec) -> float:
    return 1000 * codec.card.hop / codec.card.sample_rate


def _redundancy(codec: Codec, copies: int, spacing_ms: float) -> Redundancy:
    return Redundancy.spaced(copies, max(1, round(spacing_ms / _frame_ms(codec))))


def _read_session(path: str, codec: Codec) -> Session:
    session = Session.parse(Path(path).read_text(encoding="utf-8", errors="replace"))
    if session.model_id != codec.card.model_id or session.clock_rate != codec.card.sample_rate:
        raise WrongModelError(
            f"{path} describes model {session.model_id.hex()} at {session.clock_rate} Hz, and this is "
            f"{codec.card.model_id.hex()} at {codec.card.sample_rate} Hz: name the model with --model"
        )
    return session


def _heard(receiver: RtpReceiver) -> str:
    """What a receiver tells of its stream."""
    jitter, counts = receiver.jitter, receiver.jitter.counts
    return (
        f"{counts.received} packets, {counts.missing} missing, {counts.late} late, {counts.repeated} repeated, "
        f"{counts.refused} refused; frames: {counts.recovered} recovered, {counts.lost} lost, {receiver.stretched} stretched, "
        f"{receiver.shrunk} shrunk; buffer {1000 * jitter.delay_s:.0f} of {1000 * jitter.target_s:.0f} ms, "
        f"jitter {1000 * jitter.jitter_s:.1f} ms"
    )


@contextmanager
def _until_interrupted() -> Iterator[Callable[[], bool]]:
    """Gives a function that is true once Ctrl-C, SIGTERM or SIGHUP came, so that a file can be finished; a second one
    interrupts."""
    asked = False

    def ask(*_: object) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True

    numbers = [signal.SIGINT, signal.SIGTERM]
    hangup = getattr(signal, "SIGHUP", None)  # not every system has it
    if hangup is not None and signal.getsignal(hangup) is not signal.SIG_IGN:  # as nohup asks
        numbers.append(hangup)
    before = {number: signal.signal(number, ask) for number in numbers}
    try:
        yield lambda: asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _meter(text: Callable[[], str]) -> Iterator[Callable[[], None]]:
    """Gives a function that shows a line on a terminal now and then, in its own place; nothing in a pipe."""
    shown = -float("inf")

    def show() -> None:
        nonlocal shown
        if sys.stderr is not None and sys.stderr.isatty() and time.monotonic() - shown >= _METER_S:
            shown = time.monotonic()
            # The rest of the line before is cleared.
            click.echo(f"\r{text()}\x1b[K", nl=False, err=True)

    try:
        yield show
    finally:
        if shown > 0:
            click.echo(err=True)
