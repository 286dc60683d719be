"""Hostile bytes for everything that reads bytes, guided by coverage: what raises anything but its documented errors?

    pip install atheris
    python bench/fuzz.py file --seconds 1200 [--corpus FOLDER]    # TARGET: see TARGETS below
    python bench/fuzz.py file crash-0123abcd                      # once more, what was found

An input must be refused with a documented error of one line, or be read in `--timeout` seconds and 256 MiB, and what was read
must agree with itself: from a pipe and from a file, thinned or sought, and written anew. The first that does not is written
to crash-* here, with its traceback. CRCs of `.lnt` files count as right where they are zero, or no input would get past them.
Linux only (memory is read from /proc).
"""

import io
import os
import resource
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

try:
    import atheris
except ImportError:
    sys.exit("bench/fuzz.py needs atheris: pip install atheris")

import click
import numpy as np

with atheris.instrument_imports(include=["linnet", "tomllib", "zipfile"]):
    import zipfile

    from linnet import bits
    from linnet.bits import EntropyCoder, Layout, Reader, Redundancy, RtpPacket, Session, Tables, Writer
    from linnet.bits.packet import layers_of_packet
    from linnet.bundle import BundleError, Card, read_card, to_toml
    from linnet.runtime.codec import Codec
    from linnet.runtime.jitter import JitterBuffer

GOLDEN = Path(__file__).parents[1] / "tests" / "bits" / "golden"
SPARE_MEMORY = 256 << 20
LONGEST_MESSAGE = 1000
LARGEST_INPUT = 4096
"""Of fuzzed bytes: enough for some blocks of every kind, and few enough for thousands of inputs a second."""

DEFAULT = Layout((4096,) * 6, (1, 2, 3, 4, 5, 6), 16_000, 192)
CODABLE = Layout((4096, 64, 16, 256), (1, 2, 2, 3), 16_000, 192)  # of the golden files' tables
UNEVEN = Layout((8, 1024, 2, 65536, 4), (1, 1, 2, 2, 2), 24_000, 320)
TINY = Layout((2,), (1,), 16_000, 192)  # 256 frames are 32 bytes
CODER = EntropyCoder(CODABLE, Tables.from_bytes((GOLDEN / "v2-tables.bin").read_bytes()), b"\xc0\xde\x5a\x17")
TINY_TABLES = bytes.fromhex("4c4e54e1 01 010101 00010002 0001 0000 0001 01180310 10031801")
TINY_CODER = EntropyCoder(TINY, Tables.from_bytes(TINY_TABLES), b"tiny")
MODELS = {b"\x5a\x17\xc0\xde": DEFAULT, b"even": UNEVEN, CODER.model_id: CODER, TINY_CODER.model_id: TINY_CODER}
EXTREMES = [np.nan, np.inf, 0, 1, -1, -2, 4095, 4096, 3e38, -3e38, 1e-40, 2**63 - 1, -(2**63)]
REDUNDANCIES = [Redundancy(offsets) for offsets in ((), (3,), (5, 10))]


def limit_memory() -> None:
    """More than SPARE_MEMORY above what the process has now is a MemoryError. (Atheris itself loses some at every input.)"""
    used = int(Path("/proc/self/statm").read_text().split()[5]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_DATA, (used + SPARE_MEMORY, resource.RLIM_INFINITY))


@dataclass(frozen=True)
class Target:
    """What is fuzzed.

    Args:
        parse: bytes -> what they hold. May raise `errors`.
        check: what must hold of it; an AssertionError if it does not. May raise nothing.
        seeds: inputs to begin with.
        errors: the documented ones.
    """

    parse: Callable[[bytes], Any]
    check: Callable[[bytes, Any], None]
    seeds: Callable[[], list[bytes]]
    errors: tuple[type[bits.LinnetError], ...] = ()

    def __call__(self, data: bytes) -> None:
        """One input."""
        limit_memory()
        try:
            parsed = self.parse(data)
        except self.errors as error:
            check_message(str(error))
            return
        self.check(data, parsed)


def check_message(message: str) -> None:
    """One line, and not as long as the input likes."""
    assert "\n" not in message, message
    assert len(message) <= LONGEST_MESSAGE, message


class Pipe(io.BytesIO):
    """A file that cannot be sought."""

    def seekable(self) -> bool:
        return False


def read_file(data: bytes) -> tuple[Reader, bits.Codes]:
    reader = Reader(io.BytesIO(data), MODELS, "conceal")
    return reader, reader.read()


def check_file(data: bytes, parsed: tuple[Reader, bits.Codes]) -> None:
    reader, codes = parsed
    header, layout = reader.header, reader.layout
    # A frame takes a bit or more, but for those of one block whose head is damaged.
    assert len(codes) == reader.frames <= 8 * len(data) + bits.BLOCK_FRAMES
    piped = Reader(Pipe(data), MODELS, "conceal")
    assert np.array_equal(piped.read(), codes)
    assert (piped.samples, piped.truncated, piped.damaged) == (reader.samples, reader.truncated, reader.damaged)
    half = len(codes) // 2
    reader.seek(half)
    assert np.array_equal(reader.read(), codes[half:])
    thinned = io.BytesIO()
    try:
        bits.thin(Pipe(data), thinned, 1, MODELS)
    except bits.CorruptFileError:
        assert reader.damaged
        return
    assert not reader.damaged
    again, kept = read_file(thinned.getvalue())
    assert again.samples == reader.samples
    if again.damaged:  # what is left of a cut block ends with what passes for a trailer
        assert reader.truncated
        return
    # Of a file that was cut, a last block of which too little is left may be lost, and filling may pass for frames of a bit.
    assert len(kept) == len(codes) or (reader.truncated and -8 < len(codes) - len(kept) <= bits.BLOCK_FRAMES)
    both = min(len(kept), len(codes))
    assert np.array_equal(kept[:both], bits.keep_layers(codes[:both], layout, 1))
    if not (codes[:, : layout.columns(header.n_layers)] == bits.MISSING).any():
        written = io.BytesIO()
        model = MODELS[header.model_id] if header.version == bits.CODED else None
        with Writer(written, header, layout, model) as writer:
            writer.write(codes)
            writer.samples = reader.samples
        again, same = read_file(written.getvalue())
        assert np.array_equal(same, codes)
        if not reader.truncated:
            assert again.samples == reader.samples
            assert header.version == bits.CODED or len(written.getvalue()) == len(data)


def file_seeds() -> list[bytes]:
    seeds = [path.read_bytes() for path in GOLDEN.glob("*.lnt")]
    for model_id, model in MODELS.items():
        layout = model.layout if isinstance(model, EntropyCoder) else model
        for version in (bits.PLAIN, bits.CODED) if isinstance(model, EntropyCoder) else (bits.PLAIN,):
            for frames in (0, 9, 260 if layout is TINY else 30):
                out = io.BytesIO()
                codes = np.arange(frames * layout.n_codes).reshape(frames, layout.n_codes) ** 2 % layout.sizes
                header = bits.Header(model_id, 44_100, layout.n_layers, version)
                with Writer(out, header, layout, model if version == bits.CODED else None) as writer:
                    writer.write(codes)
                seeds += [out.getvalue(), out.getvalue()[: frames // 2 - 20]]
    return seeds


def packet_layout(data: bytes) -> tuple[Layout, Redundancy]:
    """The first byte chooses."""
    number = data[0] if data else 0
    return (DEFAULT, UNEVEN)[number % 2], REDUNDANCIES[number // 2 % len(REDUNDANCIES)]


def read_packet(data: bytes) -> tuple[bits.Codes, bits.Codes]:
    return bits.unpack_redundant([data[1:], None], *packet_layout(data))


def check_packet(data: bytes, parsed: tuple[bits.Codes, bits.Codes]) -> None:
    layout, redundancy = packet_layout(data)
    assert bits.recover(*parsed, redundancy).shape == (2, layout.n_codes)
    packet, joined = data[1:], redundancy.layout(layout)
    codes = bits.unpack_packets([packet], joined)
    if not packet:
        assert (codes == bits.MISSING).all()
        return
    n_layers = layers_of_packet(packet, joined)
    filling = 8 * len(packet) - joined.frame_bits(n_layers)
    assert bits.pack_packets(codes, joined, n_layers) == [packet[:-1] + bytes([packet[-1] >> filling << filling])]
    for fewer in range(1, n_layers + 1):
        thinned = bits.thin_packet(packet, joined, fewer)
        assert len(thinned) == joined.packet_bytes(fewer)
        assert np.array_equal(bits.unpack_packets([thinned], joined), bits.keep_layers(codes, joined, fewer))


def packet_seeds() -> list[bytes]:
    sizes = (redundancy.layout(layout).packet_bytes for layout in (DEFAULT, UNEVEN) for redundancy in REDUNDANCIES)
    return [bytes([choice]) + bytes(range(size(2))) for choice, size in enumerate(sizes)]


def read_rtp(data: bytes) -> list[bytes]:
    packet = RtpPacket.from_bytes(data)
    assert RtpPacket.from_bytes(packet.to_bytes()) == packet
    assert data[0] != 0x80 or packet.to_bytes() == data
    with suppress(bits.RtpError):
        assert bits.pack_noise(bits.unpack_noise(packet.payload)) == packet.payload[:1]
    frames = bits.unpack_payload(packet.payload)
    assert bits.pack_payload(frames) == packet.payload
    return [packet.payload, *frames] if bits.unpack_packets(frames, DEFAULT).size else []


def check_rtp(_: bytes, parsed: list[bytes]) -> None:
    payload, *frames = parsed
    assert 1 <= len(frames) <= bits.MAX_FRAMES
    codes = bits.unpack_packets(frames, DEFAULT)
    thinned = bits.unpack_payload(bits.thin_payload(payload, DEFAULT, 1))
    assert np.array_equal(bits.unpack_packets(thinned, DEFAULT), bits.keep_layers(codes, DEFAULT, 1))


def rtp_seeds() -> list[bytes]:
    packets = [
        RtpPacket(65535, 2**32 - 1, 7, 96, n > 1, bits.pack_payload([bytes(range(size))] * n)).to_bytes()
        for n in (1, 5, 16)
        for size in DEFAULT.layers_by_bytes
    ]
    extended = b"\xb1" + packets[0][1:12] + b"\0\0\0\1\xbe\xde\0\1\0\0\0\0" + packets[0][12:] + b"\0\0\3"
    return [*packets, extended]


def read_session(data: bytes) -> Session:
    return Session.parse(data.decode(errors="replace"))


def check_session(_: bytes, session: Session) -> None:
    assert Session.parse(session.describe()) == session


def session_seeds() -> list[bytes]:
    session = Session(b"\x5a\x17\xc0\xde", 16_000, 5004, Redundancy((5, 10)), packet_ms=60, noise_type=97)
    other = "v=0\r\nm=video 9/2 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\n"
    return [session.describe().encode(), (other + session.describe("::1")).encode()]


def check_jitter(data: bytes, _: bytes) -> None:
    provider = atheris.FuzzedDataProvider(data)
    redundancy = provider.PickValueInList(REDUNDANCIES)
    buffer, now, ssrc = JitterBuffer(DEFAULT, redundancy, max_delay_s=provider.PickValueInList([0.04, 0.5])), 0.0, 1
    sequence, timestamp, size = 65530, 2**32 - 5000, redundancy.layout(DEFAULT).packet_bytes(2)
    while provider.remaining_bytes():
        action = provider.ConsumeIntInRange(0, 10)
        if action == 0:
            buffer.push(provider.ConsumeBytes(provider.ConsumeIntInRange(0, 60)), now)
        elif action <= 4:  # a packet of a stream, which may jump
            sequence = (sequence + (1 if action < 4 else provider.ConsumeIntInRange(-400, 400))) % 2**16
            frames = provider.ConsumeIntInRange(1, 16)
            payload = bits.pack_payload([bytes([sequence % 256] * size)] * frames)
            buffer.push(RtpPacket(sequence, timestamp, ssrc, 96, provider.ConsumeBool(), payload).to_bytes(), now)
            timestamp = (timestamp + 192 * frames) % 2**32
        elif action == 5:
            timestamp = (timestamp + 96 * provider.ConsumeIntInRange(-800, 800)) % 2**32
        elif action == 6:
            timestamp = provider.ConsumeIntInRange(0, 2**32 - 1)
        elif action == 7:
            ssrc = provider.ConsumeIntInRange(1, 3)
        elif action == 8:
            sequence = (sequence + 1) % 2**16
            buffer.push(RtpPacket(sequence, timestamp, ssrc, 97, False, provider.ConsumeBytes(1)).to_bytes(), now)
        else:
            now += provider.PickValueInList([0.0, 0.001, 0.012, 0.5, 3600.0])
            codes = buffer.pull(now)
            assert codes is None or (codes.shape == (1, 6) and codes.min() >= bits.MISSING and codes.max() < 4096)
        assert len(buffer) <= buffer.window
        assert len(buffer._transits) <= 256
        assert buffer._seen.bit_length() <= 256
        assert buffer.adjustment() in (-1, 0, 1)
        assert buffer.least_s <= buffer.target_s <= buffer.max_delay_s


def jitter_seeds() -> list[bytes]:
    return [np.random.default_rng(seed).bytes(500) for seed in range(20)]


@cache
def streams() -> list[tuple[Any, Any, dict[str, np.ndarray]]]:
    """Streams, what they are pushed, and states of theirs: an encoder and a decoder, each with and without copies."""
    codec, sound = Codec.open("clear"), np.sin(np.arange(3000) ** 1.2).astype(np.float32)
    found = []
    for redundancy in REDUNDANCIES[:2]:
        encoder, decoder = codec.encoder(redundancy=redundancy), codec.decoder(redundancy=redundancy)
        packets = encoder.push(sound)
        decoder.push([*packets, *[None] * 20])
        chunk = [*packets[:2], None]
        found += [(encoder, sound[:500], dict(encoder.save())), (decoder, chunk, dict(decoder.save()))]
    return found


def hostile_state(data: bytes) -> tuple[Any, Any, dict[str, np.ndarray]]:
    """A stream, what it is pushed, and a state that begins as one of its own."""
    provider = atheris.FuzzedDataProvider(data)
    stream, pushed, good = provider.PickValueInList(streams())
    state, names = dict(good), sorted(good)
    for _ in range(provider.ConsumeIntInRange(0, 3)):
        name, action = provider.PickValueInList(names), provider.ConsumeIntInRange(0, 5)
        if name not in state:
            continue
        array = state[name].copy()
        if action == 0:
            del state[name]
            continue
        if action == 1:
            kind = provider.PickValueInList(["f4", "f8", "i8", "u8", "u1", "c8", "U3", "O"])
            array = np.zeros(array.shape, kind)
        elif action == 2:
            array = np.resize(array, [provider.ConsumeIntInRange(0, 40) for _ in range(array.ndim)])
        elif array.size:
            value = provider.ConsumeInt(8) if action == 3 else provider.PickValueInList(EXTREMES)
            place = provider.ConsumeIntInRange(0, array.size - 1)
            with np.errstate(all="ignore"):
                array.flat[place if action < 5 else slice(None)] = np.array([value]).astype(array.dtype)[0]
        state[name] = array
    return stream, pushed, state


def restore_state(data: bytes) -> tuple[Any, Any]:
    stream, pushed, state = hostile_state(data)
    stream.reset()
    before = stream.save()
    try:
        stream.restore(state)
    except bits.StateError:
        after = stream.save()
        assert all(np.array_equal(after[name], before[name]) for name in before)
        raise
    return stream, pushed


def check_state(_: bytes, restored: tuple[Any, Any]) -> None:
    stream, pushed = restored
    with np.errstate(all="ignore"):
        stream.push(pushed)
        stream.save()
        stream.push(pushed)


def state_seeds() -> list[bytes]:
    return [np.random.default_rng(seed).bytes(40) for seed in range(200)]


def check_tables(data: bytes, tables: Tables) -> None:
    assert tables.to_bytes() == data
    if tables.columns:
        sizes = tuple(column.groups.size for column in tables.columns)
        coder = EntropyCoder(Layout(sizes, (1,) * len(sizes), 16_000, 192), tables, b"data")
        codes = np.full((3, len(sizes)), bits.MISSING)
        coder.decode(data[-20:], codes, 1)
        assert ((codes >= 0) & (codes < sizes)).all()
        again = codes.copy()
        coder.decode(coder.encode(codes, 1), again, 1)
        assert np.array_equal(again, codes)


def tables_seeds() -> list[bytes]:
    return [TINY_TABLES, bytes.fromhex("4c4e54e1 01 020101 00010002 00000101 03100808 0001 01180310 10031801")]


@cache
def scratch() -> Path:
    """A folder that is a bundle with a card alone."""
    return Path(tempfile.mkdtemp())


def read_folder(data: bytes) -> Card:
    (scratch() / "card.toml").write_bytes(data)
    return read_card(scratch())


def read_zip(data: bytes) -> Card:
    (scratch() / "model.zip").write_bytes(data)
    return read_card(scratch() / "model.zip")


def check_card(_: bytes, card: Card) -> None:
    assert card.delay >= 0
    assert card.layout.kbps(1) > 0
    assert set(card.layouts) == {card.model_id, card.coded_id or card.model_id}
    to_toml(card.training)
    to_toml(card.results)


def card_seeds() -> list[bytes]:
    digest = {"sha256": "ab" * 32, "file": "x"}
    card = {
        "format": 1, "name": "a", "system": "b", "sample_rate": 16000, "hop": 192, "delay": 288, "latency_ms": 30.0,
        "columns": [{"name": "c", "size": 4096, "layer": 1}], "graphs": {"encoder": digest, "decoder": digest},
    }  # fmt: skip
    return [to_toml(card).encode(), to_toml({**card, "entropy": digest, "training": {"hours": 1.5}}).encode()]


def zip_seeds() -> list[bytes]:
    seeds = []
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w", method) as archive:
            archive.writestr("card.toml", card_seeds()[0])
        seeds.append(out.getvalue())
    return seeds


TARGETS = {
    "file": Target(
        read_file, check_file, file_seeds, (bits.CorruptFileError, bits.VersionError, bits.WrongModelError, bits.LayoutError)
    ),
    "packet": Target(read_packet, check_packet, packet_seeds, (bits.PacketError,)),
    "rtp": Target(read_rtp, check_rtp, rtp_seeds, (bits.RtpError, bits.PacketError)),
    "sdp": Target(read_session, check_session, session_seeds, (bits.RtpError,)),
    "jitter": Target(bytes, check_jitter, jitter_seeds),
    "state": Target(restore_state, check_state, state_seeds, (bits.StateError,)),
    "tables": Target(Tables.from_bytes, check_tables, tables_seeds, (bits.TablesError,)),
    "card": Target(read_folder, check_card, card_seeds, (BundleError,)),
    "zip": Target(read_zip, check_card, zip_seeds, (BundleError,)),
}


def no_crc(_: bytes, __: int) -> bytes:
    """In the place of `crc16`."""
    return bytes(2)


@click.command()
@click.argument("target", type=click.Choice(list(TARGETS)))
@click.argument("inputs", nargs=-1, type=click.Path(exists=True))
@click.option("--seconds", type=click.IntRange(min=1), default=60, show_default=True, help="How long.")
@click.option("--timeout", type=click.IntRange(min=1), default=10, show_default=True, help="Of one input, in seconds.")
@click.option("--corpus", type=click.Path(file_okay=False), help="Where inputs are kept, to go on from [a new folder].")
def main(target: str, inputs: tuple[str, ...], seconds: int, timeout: int, corpus: str | None) -> None:
    """Fuzz TARGET, or run INPUTS alone."""
    folder = Path(corpus or tempfile.mkdtemp())
    folder.mkdir(parents=True, exist_ok=True)
    with mock.patch("linnet.bits.format.crc16", no_crc):
        for number, seed in enumerate(TARGETS[target].seeds()):
            (folder / f"seed-{number}").write_bytes(seed)
        limits = [f"-max_total_time={seconds}", f"-timeout={timeout}", f"-max_len={LARGEST_INPUT}", "-rss_limit_mb=0"]
        atheris.Setup([sys.argv[0], *limits, *(inputs or [str(folder)])], TARGETS[target])
        if target == "state":
            streams()
        atheris.Fuzz()


if __name__ == "__main__":
    main()
