"""The wire formats: what they accept, that chunks change nothing, and G.711 as the ITU defines it."""

from __future__ import annotations

import io
from itertools import pairwise

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from omnivox.errors import ConfigError
from omnivox.runtime.wire import AudioFormat, WireDecoder, WireEncoder, decode, encode, milliseconds

PCM, MU, A = AudioFormat(), AudioFormat("audio/pcmu", 8000), AudioFormat("audio/pcma", 8000)
FORMATS = [PCM, MU, A]
LAWS = [(MU, "ULAW"), (A, "ALAW")]
BYTES = bytes(range(256))


def tone(rate: int, seconds: float = 1.0, hertz: float = 440.0, level: float = 0.5) -> np.ndarray:
    return (level * np.sin(2 * np.pi * hertz * np.arange(int(rate * seconds)) / rate)).astype(np.float32)


def cut(length: int, places: list[float]) -> list[slice]:
    edges = [0, *sorted(int(place * length) for place in places), length]
    return [slice(a, b) for a, b in pairwise(edges)]


# -- formats ----------------------------------------------------------------------------------------------------------

def test_formats_are_read_with_and_without_their_rate() -> None:
    assert AudioFormat.parse({"type": "audio/pcm"}, "f") == PCM
    assert AudioFormat.parse({"type": "audio/pcm", "rate": 24000}, "f") == PCM
    assert AudioFormat.parse({"type": "audio/pcma"}, "f") == A
    for wire in FORMATS:
        assert AudioFormat.parse(wire.to_json(), "f") == wire
    assert PCM.to_json() == {"type": "audio/pcm", "rate": 24000}
    assert MU.to_json() == {"type": "audio/pcmu"}


@pytest.mark.parametrize(("value", "message"), [
    ({"type": "audio/opus"}, r"session\.audio\.input\.format\.type: found 'audio/opus'; expected audio/pcm, "),
    ({"type": "audio/pcm", "rate": 16000}, r"format\.rate: found 16000; expected 24000"),
    ({"type": "audio/pcmu", "rate": 24000}, r"format\.rate: found 24000; expected 8000"),
    ({"type": "audio/pcm", "rate": "24000"}, r"format\.rate: found '24000'"),
    ({"type": ["audio/pcm"]}, r"format\.type: found \['audio/pcm'\]"),
    ({}, r"format\.type: found None"),
    ("pcm16", r"session\.audio\.input\.format: found 'pcm16'; expected an object"),
])
def test_other_formats_are_refused_by_field(value: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        AudioFormat.parse(value, "session.audio.input.format")


def test_a_format_cannot_be_built_wrong() -> None:
    with pytest.raises(ConfigError, match="16000"):
        AudioFormat("audio/pcm", 16000)


def test_time_is_counted_in_samples() -> None:
    assert PCM.samples(0.02) == 480
    assert PCM.seconds(48_000) == 1.0
    assert MU.seconds(8_000) == 1.0
    assert milliseconds(23_999, 24_000) == 999
    assert milliseconds(24_000, 24_000) == 1000


# -- streams ----------------------------------------------------------------------------------------------------------

@settings(max_examples=40, deadline=None)
@given(wire=st.sampled_from(FORMATS), places=st.lists(st.floats(0, 1), max_size=12))
def test_however_the_packets_are_cut_the_decoder_hears_the_same(wire: AudioFormat, places: list[float]) -> None:
    data = encode(tone(wire.rate, 0.3), wire)
    whole = WireDecoder(wire)
    expected = np.concatenate([whole.push(data), whole.flush()])
    decoder = WireDecoder(wire)
    heard = np.concatenate([*(decoder.push(data[part]) for part in cut(len(data), places)), decoder.flush()])
    np.testing.assert_allclose(heard, expected, atol=1e-6)
    assert len(heard) == 4800
    assert heard.dtype == np.float32


@settings(max_examples=40, deadline=None)
@given(wire=st.sampled_from(FORMATS), rate=st.sampled_from([16_000, 22_050, 24_000, 8_000]),
       places=st.lists(st.floats(0, 1), max_size=12))
def test_however_the_reply_is_cut_the_wire_says_the_same(wire: AudioFormat, rate: int, places: list[float]) -> None:
    samples = tone(rate, 0.3)
    whole = WireEncoder(wire, rate)
    expected = whole.push(samples) + whole.flush()
    encoder = WireEncoder(wire, rate)
    said = b"".join([*(encoder.push(samples[part]) for part in cut(len(samples), places)), encoder.flush()])
    assert len(said) == len(expected) == wire.width * -(-len(samples) * wire.rate // rate)
    np.testing.assert_allclose(decode(said, wire), decode(expected, wire), atol=0.05 if wire in (MU, A) else 4e-5)


@pytest.mark.parametrize("wire", FORMATS)
def test_a_tone_survives_the_wire(wire: AudioFormat) -> None:
    decoder = WireDecoder(wire)
    heard = np.concatenate([decoder.push(encode(tone(wire.rate), wire)), decoder.flush()])
    middle = slice(1000, -1000)
    error = heard[middle] - tone(16_000)[middle]
    assert 10 * np.log10(np.mean(tone(16_000)[middle] ** 2) / np.mean(error ** 2)) > (60 if wire == PCM else 33)


def test_the_decoder_is_a_few_milliseconds_late_at_most() -> None:
    for wire, late in [(PCM, 0.0041), (MU, 0.0081), (A, 0.0081)]:
        heard = WireDecoder(wire).push(encode(tone(wire.rate, 0.02), wire))
        assert len(heard) >= 16_000 * (0.02 - late)


def test_after_flush_a_new_stream_begins() -> None:
    decoder, data = WireDecoder(PCM), encode(tone(24_000, 0.1), PCM)
    first = np.concatenate([decoder.push(data + b"\x01"), decoder.flush()])
    second = np.concatenate([decoder.push(data), decoder.flush()])
    np.testing.assert_array_equal(first, second)


def test_an_odd_byte_waits_for_its_other_half() -> None:
    decoder = WireDecoder(PCM, rate=24_000)
    assert len(decoder.push(b"\x00")) == 0
    np.testing.assert_array_equal(decoder.push(b"\x40\xff"), np.float32([0.5]))
    np.testing.assert_array_equal(decoder.push(b"\x7f"), np.float32([32767 / 32768]))


def test_pcm_at_its_own_rate_comes_back_bit_for_bit() -> None:
    data = np.arange(-32768, 32768, dtype="<i2").tobytes()
    encoder = WireEncoder(PCM, 24_000)
    assert encoder.push(WireDecoder(PCM, rate=24_000).push(data)) + encoder.flush() == data


@pytest.mark.parametrize("wire", FORMATS)
def test_what_is_too_loud_is_clipped_and_what_is_no_number_is_silence(wire: AudioFormat) -> None:
    wild = np.float32([np.nan, np.inf, -np.inf, 1e30, -2.0, 0.0])
    said = decode(encode(wild, wire), wire)
    top = decode(encode(np.float32([1.0]), wire), wire)[0]
    assert top > 0.97
    np.testing.assert_allclose(said, [0, top, -top, top, -top, 0], atol=1e-3)  # A-law has no zero
    encoder = WireEncoder(wire, 16_000)
    encoder.push(np.full(10, np.nan, np.float32))
    later = decode(encoder.push(tone(16_000)), wire)
    assert np.isfinite(later).all()
    assert np.abs(later).max() > 0.4


# -- G.711 ------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("wire", "code", "level"), [
    (MU, 0xFF, 0), (MU, 0x7F, 0), (MU, 0xFE, 2 / 8192), (MU, 0xEF, 33 / 8192), (MU, 0x80, 8031 / 8192),
    (MU, 0x00, -8031 / 8192), (A, 0xD5, 1 / 4096), (A, 0x55, -1 / 4096), (A, 0xAA, 4032 / 4096),
    (A, 0x2A, -4032 / 4096),
])
def test_known_code_points(wire: AudioFormat, code: int, level: float) -> None:
    assert decode(bytes([code]), wire)[0] == pytest.approx(level, abs=1e-9)


@pytest.mark.parametrize(("wire", "sequence", "overload"), [
    (MU, "1E0B0B1E9E8B8B9E", 3.17), (A, "34212134B4A1A1B4", 3.14),
])
def test_the_digital_milliwatt(wire: AudioFormat, sequence: str, overload: float) -> None:
    """G.711 tables 5 and 6: these bytes, repeated, are 1 kHz at 0 dBm0, which lies that far below overload."""
    wave = decode(bytes.fromhex(sequence), wire)
    sine = np.sin(2 * np.pi * (np.arange(8) + 0.5) / 8)
    amplitude = 2 * np.mean(wave * sine)
    full = {MU: 8159 / 8192, A: 1.0}[wire]
    assert 20 * np.log10(full / abs(amplitude)) == pytest.approx(overload, abs=0.02)
    np.testing.assert_allclose(wave, amplitude * sine, atol=0.02 * abs(amplitude))


@pytest.mark.parametrize(("wire", "subtype"), LAWS)
def test_levels_are_libsndfiles(wire: AudioFormat, subtype: str) -> None:
    theirs, _ = soundfile.read(io.BytesIO(BYTES), dtype="int16", format="RAW", subtype=subtype, samplerate=8000,
                               channels=1)
    np.testing.assert_array_equal(decode(BYTES, wire) * 32768, theirs)


@pytest.mark.parametrize(("wire", "subtype"), LAWS)
def test_codes_are_libsndfiles_off_the_borders(wire: AudioFormat, subtype: str) -> None:
    """On a border between two codes either is right, and libsndfile cuts the low bits off first."""
    linear = np.arange(-32768, 32768, dtype=np.int16)
    file = io.BytesIO()
    soundfile.write(file, linear, 8000, format="RAW", subtype=subtype)
    ours = np.frombuffer(encode(linear / np.float32(32768), wire), np.uint8)
    theirs = np.frombuffer(file.getvalue(), np.uint8)
    different = ours != theirs
    assert different.mean() < 0.02
    levels = np.sort(decode(BYTES, wire))
    steps = np.abs(np.searchsorted(levels, decode(ours.tobytes(), wire))
                   - np.searchsorted(levels, decode(theirs.tobytes(), wire)))
    assert steps.max() <= 2  # two: both zeros of µ-law count


@pytest.mark.parametrize("wire", [MU, A])
def test_every_code_comes_back(wire: AudioFormat) -> None:
    back = encode(decode(BYTES, wire), wire)
    if wire == MU:
        assert back == BYTES.replace(b"\x7f", b"\xff")  # minus zero is zero
    else:
        assert back == BYTES


@pytest.mark.parametrize("wire", [MU, A])
def test_louder_is_never_softer_and_errors_are_within_a_step(wire: AudioFormat) -> None:
    samples = np.linspace(-1, 1, 200_001).astype(np.float32)
    heard = decode(encode(samples, wire), wire)
    assert (np.diff(heard) >= 0).all()
    # Half a step is a thirty-second of its segment's lower end; segments of µ-law are counted from 33 below zero.
    size = np.abs(samples)
    half = {MU: (size + 33 / 8192) / 32, A: np.maximum(size / 32, 1 / 4096)}[wire]
    inside = size <= {MU: 8159 / 8192, A: 1.0}[wire]
    assert (np.abs(heard - samples) <= half + 1e-6)[inside].all()
    assert np.unique(heard).size == {MU: 255, A: 256}[wire]
