"""The command line. Heavy imports wait until a command needs them: `linnet --help` is instant."""

from __future__ import annotations

import importlib
import io
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

import click

import linnet
from linnet.bits import LinnetError, read_header, thin
from linnet.options import (
    background_option,
    copies_options,
    kbps_option,
    loss_options,
    model_option,
    progress,
    refuse_same,
    say,
)

if TYPE_CHECKING:
    from linnet.bits import Header, Layout
    from linnet.bits.container import OnDamage

# Commands that live in other rooms, imported only when they are called, and the extra each needs.
_ELSEWHERE = {
    "budget": ("linnet.evaluate.budget_cli:command", "eval", "What a model costs, against the LRAC limits."),
    "compare": ("linnet.evaluate.cli:compare", "eval", "Any codecs on a set of recordings: a page to look at and listen to."),
    "conditions": (
        "linnet.evaluate.conditions.cli:conditions",
        "eval",
        "Make a set with noise, rooms, loss from a corpus.",
    ),
    "eval": ("linnet.evaluate.cli:evaluate", "eval", "Score a model beside other codecs on a set of recordings."),
    "export": ("linnet.lab.cli:export", "train", "Make a bundle of a checkpoint."),
    "listen": ("linnet.evaluate.listening.cli:listen", "eval", "Serve a listening test of codecs: MUSHRA, ACR, DCR, DRT."),
    "live": ("linnet.live.cli:live", "live", "Hear yourself through the codec, with a meter."),
    "ratings": ("linnet.evaluate.listening.cli:ratings", "eval", "What the listeners of a test said."),
    "recv": ("linnet.live.cli:recv", "live", "Receive sound over UDP to a recording, a pipe or the loudspeaker."),
    "send": ("linnet.live.cli:send", "live", "Send a recording, a pipe or the microphone over UDP."),
    "slim": ("linnet.lab.cli:slim_checkpoint", "train", "Keep of a checkpoint what training starts from."),
    "train": ("linnet.lab.cli:train", "train", "Train what a recipe says."),
}


_file_model = click.option("--model", help="The file's model, if it is not a shipped one.")


class Commands(click.Group):
    """A group some of whose commands are imported only when called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted([*super().list_commands(ctx), *_ELSEWHERE])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _ELSEWHERE:
            return super().get_command(ctx, cmd_name)
        place, extra, _ = _ELSEWHERE[cmd_name]
        module, attribute = place.split(":")
        try:
            return getattr(importlib.import_module(module), attribute)
        except ImportError as error:
            raise LinnetError(f"'{cmd_name}' needs the package {error.name}: pip install 'linnet[{extra}]'") from error

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        rows = {name: summary for name, (_, _, summary) in _ELSEWHERE.items()}
        for name in super().list_commands(ctx):
            command = super().get_command(ctx, name)
            rows[name] = command.get_short_help_str(80) if command else ""
        with formatter.section("Commands"):
            formatter.write_dl(sorted(rows.items()))


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(linnet.__version__, prog_name="linnet")
def cli() -> None:
    """A neural speech codec for 1 to 6 kbit/s. '-' is standard input or output, for audio and for bits."""


@cli.command()
@click.argument("source", metavar="IN")
@click.argument("target", metavar="OUT.lnt")
@kbps_option
@model_option
@click.option("--entropy/--no-entropy", default=True, help="Entropy-code, where the file gets smaller [on].")
def encode(source: str, target: str, kbps: float | None, model: str, entropy: bool) -> None:
    """Encode a recording."""
    from linnet import files

    codec = linnet.load(model)
    refuse_same(source, target)
    with files.open_output(target) as out:
        done = files.encode_file(codec, source, out, kbps, progress, entropy)
    if done.channels > 1:
        say(f"mixed {done.channels} channels to one")
    if done.truncated:
        say(f"{source} was cut short; encoded to the cut")


@cli.command()
@click.argument("source", metavar="IN.lnt")
@click.argument("target", metavar="OUT")
@kbps_option
@_file_model
@click.option("--rate", type=click.IntRange(8000, 192000), help="Sample rate of OUT [the original recording's].")
@click.option("--conceal", is_flag=True, help="Conceal damaged frames, as if they were lost in a network.")
@background_option
def decode(
    source: str, target: str, kbps: float | None, model: str | None, rate: int | None, conceal: bool, background: float
) -> None:
    """Decode a .lnt file; --kbps uses only the first layers."""
    from linnet import bundle, files

    refuse_same(source, target)
    with files.open_input(source) as file:
        header, whole = _begun(file)
        codec = linnet.load(model or bundle.shipped(header.model_id) or "clear")
        on_damage: OnDamage = "conceal" if conceal else "raise"
        done = files.decode_file(codec, whole, target, kbps, rate, progress, on_damage=on_damage, background=background)
    if done.concealed:
        say(f"{source}: {done.concealed} damaged frames are concealed")
    if done.truncated:
        say(f"{source} was cut short; decoded to the cut")


@cli.command()
@click.argument("source", metavar="IN")
@click.argument("target", metavar="OUT")
@kbps_option
@model_option
@loss_options
@click.option("--trace", type=click.Path(), help="Lose what this file says: a 0 or 1 a packet, 1 for lost.")
@copies_options
@background_option
def roundtrip(
    source: str,
    target: str,
    kbps: float | None,
    model: str,
    loss: float,
    burst_ms: float | None,
    trace: str | None,
    seed: int,
    copies: int,
    spacing_ms: float,
    background: float,
) -> None:
    """Encode and decode, over a network that loses packets if you like, and say what it took.

    --kbps is the rate in all: with --redundancy 2, 3 kbit/s are 1 kbit/s and two copies of it.
    """
    from linnet import files
    from linnet.bits import Redundancy
    from linnet.runtime.channel import LossyChannel
    from linnet.runtime.loss import loss_model

    codec = linnet.load(model)
    refuse_same(source, target)
    frame_ms = 1000 * codec.card.hop / codec.card.sample_rate
    redundancy = Redundancy.spaced(copies, max(1, round(spacing_ms / frame_ms)))
    losses = loss_model(loss, None if burst_ms is None else burst_ms / frame_ms, trace, seed)
    channel = LossyChannel(codec.layout, codec.layers(kbps, redundancy), redundancy, losses)
    codec.decoder().background = background  # what cannot be is told before the work
    bits = io.BytesIO()
    start = time.perf_counter()
    encoded = files.encode_file(codec, source, bits, codec.layout.kbps(channel.n_layers), progress)
    bits.seek(0)
    decoded = files.decode_file(codec, bits, target, None, None, progress, channel, background=background)
    spent = time.perf_counter() - start
    seconds = encoded.samples / encoded.sample_rate
    size = bits.getbuffer().nbytes
    tell = click.echo if target != files.PIPE else say
    mixed = f", {encoded.channels} channels mixed to one" if encoded.channels > 1 else ""
    saved = f" ({encoded.plain_bytes} without entropy coding)" if size < encoded.plain_bytes else ""
    cut = ", cut short" if encoded.truncated else ""
    tell(f"{source}: {seconds:.2f} s at {encoded.sample_rate} Hz{mixed}{cut}")
    tell(
        f"{codec.card.name}: {size} bytes{saved}, {codec.layout.kbps(encoded.n_layers):g} kbit/s on the wire, "
        f"latency {codec.card.latency_ms:g} ms, encoded and decoded {seconds / spent:.0f} x faster than real time"
    )
    if copies:
        tell(
            f"redundancy: {copies} cop{'y' if copies == 1 else 'ies'} of each frame's first layer, "
            f"{' and '.join(f'{offset * frame_ms:g}' for offset in redundancy.offsets)} ms later; "
            f"{channel.kbps:g} kbit/s in total, latency {codec.card.latency_ms + redundancy.depth * frame_ms:g} ms"
        )
    if channel.lost:
        tell(
            f"loss: {channel.lost} of {channel.packets} packets ({100 * channel.lost / channel.packets:.1f} %), "
            f"{channel.mean_burst * frame_ms:.0f} ms in a row in the mean; "
            f"{channel.lost - channel.concealed} frames recovered from copies, {channel.concealed} concealed "
            f"({100 * channel.concealed / channel.packets:.1f} %)"
        )
    tell(f"{target}: {decoded.samples} samples at {decoded.sample_rate} Hz")


@cli.command(name="thin")
@click.argument("source", metavar="IN.lnt")
@click.argument("target", metavar="OUT.lnt")
@click.option("--kbps", type=click.FloatRange(min=0, min_open=True), required=True, help="The rate to keep.")
@_file_model
def thin_file(source: str, target: str, kbps: float, model: str | None) -> None:
    """Drop layers without decoding."""
    from linnet import files

    refuse_same(source, target)
    layouts = _layouts(model)
    with files.open_input(source) as file:
        header, whole = _begun(file)
        layout = layouts.get(header.model_id)
        n_layers = min(layout.layers_for_kbps(kbps), header.n_layers) if layout else 1
        with files.open_output(target) as out:
            done = thin(whole, out, n_layers, layouts)
    if done.truncated:
        say(f"{source} was cut short; copied to the cut")


@cli.command()
@click.argument("path", metavar="PATH")
@_file_model
def info(path: str, model: str | None) -> None:
    """A .lnt file's header, or a model's card."""
    from linnet import bundle

    if path in bundle.list_models() or Path(path).is_dir() or path.endswith(".zip"):
        _print_card(bundle.read_card(path))
        return
    from linnet import files
    from linnet.bits import CODED, Geometry, Reader

    with files.open_input(path) as file:
        header, whole = _begun(file)
        name = model or bundle.shipped(header.model_id)
        if name is None:
            click.echo(
                f"{path}: model {header.model_id.hex()} (not shipped: name it with --model), {header.n_layers} layers, "
                f"{header.sample_rate} Hz"
            )
            return
        opened = bundle.load(name)
        card = opened.card
        if not whole.seekable():
            whole = io.BytesIO(whole.read())
        start = whole.tell()
        reader = Reader(whole, opened.models)
        frames = reader.frames or 0
        samples = reader.samples  # not known of a file that was cut
        seconds = frames * card.hop / card.sample_rate if samples is None else samples / header.sample_rate
        state = ", cut short" if reader.truncated else ""
        if header.version == CODED and reader.truncated:
            state = f", entropy-coded{state}"
        elif header.version == CODED:
            saved = 1 - (whole.seek(0, os.SEEK_END) - start) / Geometry(header, card.layout).file_bytes(frames)
            state = f", entropy-coded, {100 * saved:.1f} % smaller than without"
        click.echo(
            f"{path}: model {card.name}, {card.layout.kbps(header.n_layers):g} kbit/s in {header.n_layers} layers, "
            f"{seconds:.2f} s, {header.sample_rate} Hz{state}"
        )


@cli.command()
@click.argument("model")
@click.option("--corpus", type=click.Path(path_type=Path), required=True, help="Speech to fit to: a folder or a corpus.")
@click.option("--split", default="train", show_default=True, help="Split of the corpus.")
def tables(model: str, corpus: Path, split: str) -> None:
    """Fit the tables for entropy coding of the bundle MODEL, a name or a folder, and put them into it."""
    from linnet.tables import fit_bundle

    size, hours = fit_bundle(model, corpus, split, progress)
    click.echo(f"{model}: {size} bytes of tables, fitted to {hours:.2f} h of {split}")


@cli.command()
def models() -> None:
    """The models that are shipped."""
    from linnet import bundle

    for name in bundle.list_models():
        card = bundle.read_card(name)
        low, high = card.layout.kbps(1), card.layout.kbps(card.layout.n_layers)
        click.echo(f"{name}: {low:g} to {high:g} kbit/s, {card.latency_ms:g} ms, {card.sample_rate} Hz, {card.system}")


def _print_card(card: object) -> None:
    import dataclasses

    from linnet.bundle import to_toml

    table = {key: value for key, value in dataclasses.asdict(card).items() if value not in ({}, ())}  # type: ignore[call-overload]
    click.echo(to_toml(table), nl=False)


def _begun(file: BinaryIO) -> tuple[Header, BinaryIO]:
    """The header of a .lnt file, and the file from its beginning."""
    from linnet.bits.format import HEADER_BYTES
    from linnet.files import Rejoined

    head = file.read(HEADER_BYTES)
    header = read_header(io.BytesIO(head))
    if file.seekable():
        file.seek(-len(head), os.SEEK_CUR)
        return header, file
    return header, cast("BinaryIO", Rejoined(head, file))


def _layouts(model: str | None) -> dict[bytes, Layout]:
    from linnet import bundle

    cards = [bundle.read_card(name) for name in ([model] if model else bundle.list_models())]
    return {identity: layout for card in cards for identity, layout in card.layouts.items()}


def main() -> None:
    """Run the command line: an error is one line on standard error, and exit status 2."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # as standard error is: a file's name need not be text
    try:
        cli.main(standalone_mode=False)
    except click.exceptions.Exit as stop:
        sys.exit(stop.exit_code)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(130)
    except BrokenPipeError:
        # Whoever read our output has gone, which is no error; but Python would complain when it flushes.
        sys.stderr.close()
        sys.exit(0)
    except click.ClickException as error:
        say(error.format_message())
        sys.exit(2)
    except OSError as error:
        say(f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror or error))
        sys.exit(2)
    except (LinnetError, ValueError) as error:
        say(" ".join(str(error).split()))
        sys.exit(2)
