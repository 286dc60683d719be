import re
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from bits_strategies import DEFAULT, MODEL_ID
from hypothesis import given
from hypothesis import strategies as st

from linnet.bits import (
    MAX_FRAMES,
    PacketError,
    Redundancy,
    RtpError,
    RtpPacket,
    Session,
    pack_noise,
    pack_packets,
    pack_payload,
    thin_payload,
    unpack_noise,
    unpack_packets,
    unpack_payload,
)
from linnet.bits.sdp import frames_in

DOC = Path(__file__).parents[2] / "docs" / "rtp.md"

PACKETS = st.builds(
    RtpPacket,
    st.integers(0, 2**16 - 1),
    st.integers(0, 2**32 - 1),
    st.integers(0, 2**32 - 1),
    st.integers(0, 127),
    st.booleans(),
    st.binary(max_size=60),
)


@given(PACKETS)
def test_a_packet_comes_back(packet):
    assert RtpPacket.from_bytes(packet.to_bytes()) == packet


@given(PACKETS, st.integers(0, 15), st.none() | st.binary(max_size=8), st.integers(0, 255))
def test_what_linnet_does_not_use_is_skipped(packet, sources, extension, padding):
    plain = packet.to_bytes()
    first = 0x80 | sources | (0x10 if extension is not None else 0) | (0x20 if padding else 0)
    between = bytes(4 * sources)
    if extension is not None:
        words = extension + bytes(-len(extension) % 4)
        between += b"\xbe\xde" + (len(words) // 4).to_bytes(2) + words
    after = bytes(padding - 1) + bytes([padding]) if padding else b""
    assert RtpPacket.from_bytes(bytes([first]) + plain[1:12] + between + plain[12:] + after) == packet


@given(st.binary(max_size=80) | st.builds(lambda rest: b"\xbf" + rest, st.binary(min_size=11, max_size=80)))
def test_any_bytes_are_a_packet_or_one_error(datagram):
    with suppress(RtpError):
        packet = RtpPacket.from_bytes(datagram)
        frames = unpack_payload(packet.payload)
        assert 1 <= len(frames) <= MAX_FRAMES
        assert pack_payload(frames) == packet.payload


@given(PACKETS, st.data())
def test_a_cut_header_is_refused(packet, data):
    whole = packet.to_bytes()
    with pytest.raises(RtpError, match="no RTP packet"):
        RtpPacket.from_bytes(whole[: data.draw(st.integers(0, 11))])


@pytest.mark.parametrize("first", [0x00, 0x40, 0xC0])
def test_another_version_is_refused(first):
    with pytest.raises(RtpError, match="version"):
        RtpPacket.from_bytes(bytes([first]) + bytes(20))


@pytest.mark.parametrize("change", [{"sequence": 65536}, {"timestamp": -1}, {"ssrc": 2**32}, {"payload_type": 128}])
def test_a_number_that_does_not_fit_is_refused(change):
    with pytest.raises(RtpError, match="goes from 0"):
        RtpPacket(**{"sequence": 0, "timestamp": 0, "ssrc": 0, "payload_type": 0, "marker": False, "payload": b"", **change})


@given(st.integers(1, 6), st.integers(1, MAX_FRAMES), st.integers(1, 6), st.sampled_from([(), (5,), (5, 10)]))
def test_the_length_tells_the_layers(n_layers, count, kept, offsets):
    layout = Redundancy(offsets).layout(DEFAULT)
    codes = np.random.default_rng(0).integers(0, 4096, (count, layout.n_codes))
    payload = pack_payload(pack_packets(codes, layout, n_layers))
    assert len(payload) == 1 + count * layout.packet_bytes(n_layers)
    frames = unpack_packets(unpack_payload(payload), layout)
    np.testing.assert_array_equal(frames[:, : layout.columns(n_layers)], codes[:, : layout.columns(n_layers)])
    assert (frames[:, layout.columns(n_layers) :] == -1).all()
    assert thin_payload(payload, layout, kept) == pack_payload(pack_packets(codes, layout, min(kept, n_layers)))


@pytest.mark.parametrize("frames", [[], [b"12"] * 17, [b"12", b"123"], [b""], [b"12", b""]])
def test_frames_that_make_no_payload_are_refused(frames):
    with pytest.raises(RtpError):
        pack_payload(frames)


@pytest.mark.parametrize("payload", [b"", b"\0", b"\1", b"\2abc", b"\x11" + bytes(34), b"\0ab"])
def test_payloads_that_are_none_are_refused(payload):
    with pytest.raises(RtpError, match="not Linnet's"):
        unpack_payload(payload)
    with pytest.raises(RtpError):
        thin_payload(payload, DEFAULT, 1)


@pytest.mark.parametrize(("level", "payload"), [(0.0, 127), (1e-9, 127), (0.001, 60), (0.5, 6), (1.0, 0), (3.0, 0)])
def test_the_level_of_comfort_noise(level, payload):
    assert pack_noise(level) == bytes([payload])
    assert unpack_noise(bytes([payload, 1, 2])) == pytest.approx(10 ** (-payload / 20))


@pytest.mark.parametrize("payload", [b"", b"\x80", b"\xff\0"])
def test_comfort_noise_without_a_level_is_refused(payload):
    with pytest.raises(RtpError, match="no level"):
        unpack_noise(payload)


def test_frames_of_a_length_that_is_none_are_refused():
    with pytest.raises(PacketError):
        thin_payload(b"\1abcd", DEFAULT, 1)


def test_the_documents_example():
    text = DOC.read_text()
    codes = [[int(code, 16) for code in line.split()] for line in re.search(r"```codes\n(.*?)```", text, re.S)[1].splitlines()]
    written = b"".join(bytes.fromhex(line.split(";")[0]) for line in re.search(r"```rtp\n(.*?)```", text, re.S)[1].splitlines())
    packet = RtpPacket.from_bytes(written)
    assert (packet.sequence, packet.timestamp, packet.ssrc, packet.payload_type, packet.marker) == (
        7, 192000, 0xC0DEC0DE, 96, True,
    )  # fmt: skip
    assert packet.to_bytes() == written
    noise = bytes.fromhex("".join(line.split(";")[0] for line in re.search(r"```noise\n(.*?)```", text, re.S)[1].splitlines()))
    parsed = RtpPacket(8, packet.timestamp + 82 * 192, packet.ssrc, 97, False, pack_noise(0.001))
    assert parsed.to_bytes() == noise
    np.testing.assert_array_equal(unpack_packets(unpack_payload(packet.payload), DEFAULT)[:, :2], codes)
    described = re.search(r"```sdp\n(.*?)```", text, re.S)[1]
    session = Session(MODEL_ID, 16000, 5004, Redundancy((5, 10)), packet_ms=60)
    assert Session.parse(described) == session
    assert session.describe("192.0.2.1").replace("\r\n", "\n") == described


@given(
    st.builds(
        Session, st.binary(min_size=4, max_size=4), st.integers(1, 192000), st.integers(1, 65535),
        st.lists(st.integers(1, 255), unique=True, max_size=4).map(lambda offsets: Redundancy(tuple(sorted(offsets)))),
        st.integers(0, 95), st.none() | st.integers(1, 192), st.none() | st.integers(96, 127),
    ),
    st.sampled_from(["192.0.2.1", "2001:db8::1"]),
)  # fmt: skip
def test_a_session_comes_back(session, host):
    assert Session.parse(session.describe(host)) == session


def test_a_session_is_found_among_others():
    others = "v=0\r\nm=video 9 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\nm=audio 5004 RTP/AVP 0 97\r\na=rtpmap:0 PCMU/8000\r\n"
    ours = "a=fmtp:97 Copies=5, 10; model=5A17C0DE ;x=1\r\na=rtpmap:97 LINNET/16000/1\r\nm=audio 6 RTP/AVP 98\r\na=ptime:20\r\n"
    assert Session.parse(others + ours) == Session(MODEL_ID, 16000, 5004, Redundancy((5, 10)), 97)


@pytest.mark.parametrize(("described", "packet_ms"), [("0", None), ("0.000", None), ("13.333", 13.333), ("1234.567", 1234.567)])
def test_a_described_packet_length_comes_back(described, packet_ms):
    """Found by fuzzing: 0 was no length but came back as none, and more than six digits were rounded."""
    session = Session.parse(f"m=audio 5004 RTP/AVP 96\na=rtpmap:96 linnet/16000\na=fmtp:96 model=5a17c0de\na=ptime:{described}")
    assert session.packet_ms == packet_ms
    assert Session.parse(session.describe()) == session
    assert Session.parse(Session(MODEL_ID, 24000, 5004, packet_ms=40 / 3).describe()).packet_ms == 13.333


@pytest.mark.parametrize("parameters", ["model=" + 2000 * "5a", "model=5a17c0de;copies=" + 2000 * "1,", 2000 * "model=x"])
def test_what_is_refused_is_not_repeated_at_length(parameters):
    with pytest.raises(RtpError) as refused:
        Session.parse(f"m=audio 5004 RTP/AVP 96\na=rtpmap:96 linnet/16000\na=fmtp:96 {parameters}")
    assert len(str(refused.value)) < 250


_LINES = st.sampled_from(
    [
        "m=audio 5004 RTP/AVP 96", "m=audio 99999 RTP/AVP 96", "a=rtpmap:96 linnet/16000", "a=rtpmap:999 linnet/16000",
        "a=rtpmap:96 linnet/0", "a=fmtp:96 model=5a17c0de", "a=fmtp:96 model=5a", "a=fmtp:96 model=xyz", "a=ptime:60",
        "a=fmtp:96 model=5a17c0de;copies=5,,10", "a=fmtp:96 model=5a17c0de;copies=10,5", "a=fmtp:96 =;;=", "",
    ]
)  # fmt: skip


@given(st.lists(_LINES | st.text(max_size=20), max_size=8))
def test_any_text_is_a_session_or_one_error(lines):
    with suppress(RtpError):
        session = Session.parse("\n".join(lines))
        assert Session.parse(session.describe()) == session


def test_how_many_frames_fit_in_a_packet():
    assert [frames_in(ms, 12) for ms in (1, 12, 23.9, 60, 192)] == [1, 1, 1, 5, 16]
    for noise_type in (96, -1, 128):
        with pytest.raises(RtpError, match="comfort noise"):
            Session(MODEL_ID, 16000, 5004, noise_type=noise_type)
    with pytest.raises(RtpError, match="at most 192"):
        frames_in(204, 12)
