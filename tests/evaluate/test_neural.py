"""Neural codecs of others: real classes with random weights where their packages are installed, and a stand-in for LiteRT."""

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from linnet.evaluate.codecs import CODECS, Contestant, neural, through
from linnet.evaluate.codecs.neural import Dac, Encodec, Lyra, Mimi, Snac, _Pretrained
from linnet.evaluate.runner import evaluate
from linnet.evaluate.sets import Clip
from linnet.evaluate.store import Store

RATE = 16_000
PRETRAINED = (Encodec(), Dac(), Mimi(), Snac())

each = pytest.mark.parametrize("codec", PRETRAINED, ids=lambda codec: codec.name)


def stand_in(monkeypatch: pytest.MonkeyPatch, name: str, **attributes: object) -> None:
    """A module that takes a package's place, and that the package seems to be installed."""
    module = ModuleType(name)
    module.__spec__ = SimpleNamespace(name=name)  # type: ignore[assignment]
    vars(module).update(attributes)
    monkeypatch.setitem(sys.modules, name, module)


# ---- what is missing is told


@each
def test_missing_packages_are_named(codec: _Pretrained, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neural.importlib.util, "find_spec", lambda _: None)
    assert codec.available() == f"{codec.name} needs its packages: pip install torch {codec.package}"
    assert Lyra().available() == "Lyra needs its interpreter: pip install ai-edge-litert"


@each
def test_missing_weights_are_a_skipped_row(
    codec: _Pretrained, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, recording: Path
) -> None:
    for name in ("torch", codec.package):
        stand_in(monkeypatch, name)
    stand_in(monkeypatch, "huggingface_hub", try_to_load_from_cache=lambda *_: None)
    pcm = Contestant(CODECS["pcm"](), (256.0,))
    report = evaluate([Contestant(codec, codec.usual_kbps), pcm], [Clip("a", recording)], ["si_sdr"], Store(tmp_path))
    (skipped,) = report.skipped
    line = f"{codec.name} needs its weights: hf download {codec.repository} config.json {codec.weights}"
    assert (skipped.codec, skipped.reason) == (codec.name, line)
    assert [row.codec for row in report.rows] == ["pcm"]


# ---- Lyra, with an interpreter that codes the mean of a frame


class Interpreter:
    """Shapes and names are those of Lyra's models; it is as strict as LiteRT about types."""

    def __init__(self, model_path: str, num_threads: int) -> None:
        assert num_threads == 1
        self.kind, self.heard = Path(model_path).stem, 0
        self.shapes = {"soundstream_encoder": ((1, 320), (1, 1, 64)), "lyragan": ((1, 1, 64), (1, 320))}.get(self.kind)

    def allocate_tensors(self) -> None:
        pass

    def get_input_details(self) -> list[dict[str, Any]]:
        return [{"index": 7, "shape": np.array(self.shapes[0])}]

    def get_output_details(self) -> list[dict[str, Any]]:
        return [{"index": 8, "shape": np.array(self.shapes[1])}]

    def set_tensor(self, index: int, values: np.ndarray) -> None:
        assert (index, values.dtype, values.shape) == (7, np.float32, self.shapes[0])
        self.values = values

    def invoke(self) -> None:
        self.heard += 1  # a model that streams has a state
        start = 0.5 if self.heard == 1 and self.kind == "soundstream_encoder" else 0
        self.out = np.full(self.shapes[1], self.values.mean() + start, np.float32)

    def get_tensor(self, index: int) -> np.ndarray:
        assert index == 8
        return self.out

    def get_signature_runner(self, key: str) -> Any:
        return {"encode": Encode(), "decode": decode}[key]


class Encode:
    def get_input_details(self) -> dict[str, Any]:
        return {"num_quantizers": {"shape": np.array([], np.int32), "dtype": np.int32}}

    def __call__(self, input_frames: np.ndarray, num_quantizers: np.ndarray) -> dict[str, np.ndarray]:
        assert (input_frames.shape, num_quantizers.shape, num_quantizers.dtype) == ((1, 1, 64), (), np.int32)
        level, digits = (input_frames[0, 0, 0] + 1) / 2, np.full((46, 1, 1), 15, np.int32)
        for place in range(int(num_quantizers)):
            digits[place] = int(level * 16)
            level = level * 16 - int(level * 16)
        return {"output_0": digits, "output_1": np.int32(4)}


def decode(encoding_indices: np.ndarray) -> dict[str, np.ndarray]:
    assert (encoding_indices.shape, encoding_indices.dtype) == ((46, 1, 1), np.int32)
    sent = encoding_indices[encoding_indices >= 0]
    level = (sent / 16.0 ** np.arange(1, len(sent) + 1)).sum() * 2 - 1
    return {"output_0": np.full((1, 1, 64), level, np.float32)}


@pytest.fixture
def lyra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Lyra:
    stand_in(monkeypatch, "ai_edge_litert")
    stand_in(monkeypatch, "ai_edge_litert.interpreter", Interpreter=Interpreter)
    monkeypatch.setattr(neural, "version", lambda _: "1")
    monkeypatch.setenv(neural.LYRA_FOLDER, str(tmp_path))
    assert "git clone https://github.com/google/lyra" in str(Lyra().available())
    for name in ("soundstream_encoder", "quantizer", "lyragan"):
        (tmp_path / f"{name}.tflite").touch()
    return Lyra()


def test_lyra_sends_its_modes(lyra: Lyra, speech: np.ndarray) -> None:
    assert lyra.available() is None
    clip = speech[: 2 * RATE]
    outputs = list(through(lyra, clip, lyra.rates))
    assert [output.kbps for output in outputs] == [3.2, 6.0, 9.2]
    means = clip.reshape(-1, 320).mean(axis=1)
    means[0] += 0.5  # once: every recording meets a model that has heard nothing
    for output in outputs:
        np.testing.assert_allclose(output.samples.reshape(-1, 320), np.tile(means, (320, 1)).T, atol=1e-4)
    assert lyra.identity() == Lyra().identity()
    assert [lyra.mode(kbps) for kbps in (1, 4, 6, 64)] == [3.2, 3.2, 6.0, 9.2]


# ---- models with random weights, as the Hugging Face cache holds them


def filled(model: Any) -> Any:
    """The model with codebooks, which are zeros until they are trained."""
    for name, values in model.named_buffers():
        if name.endswith((".embed", ".embed_sum")):
            values.normal_()
    return model


def encodec(folder: Path) -> None:
    from transformers import EncodecConfig, EncodecModel

    filled(EncodecModel(EncodecConfig(num_filters=4, hidden_size=16))).save_pretrained(folder)


def dac(folder: Path) -> None:
    from transformers import DacConfig, DacModel

    ratios = [2, 4, 5, 8]
    DacModel(
        DacConfig(encoder_hidden_size=4, decoder_hidden_size=64, downsampling_ratios=ratios, n_codebooks=12)
    ).save_pretrained(folder)


def mimi(folder: Path) -> None:
    from transformers import MimiConfig, MimiModel

    filled(MimiModel(MimiConfig(num_filters=4, num_hidden_layers=1, intermediate_size=64))).save_pretrained(folder)


def snac(folder: Path) -> None:
    import json

    import torch
    from snac import SNAC

    shape: dict[str, Any] = {"sampling_rate": 24000, "encoder_dim": 8, "encoder_rates": [2, 4, 8, 8], "decoder_dim": 64}
    shape |= {"decoder_rates": [8, 8, 4, 2], "attn_window_size": None, "vq_strides": [4, 2, 1]}
    (folder / "config.json").write_text(json.dumps(shape))
    torch.save(SNAC(**shape).state_dict(), folder / "pytorch_model.bin")


@pytest.fixture
def cached(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[_Pretrained], None]:
    def make(codec: _Pretrained) -> None:
        for package in ("torch", codec.package):
            pytest.importorskip(package)
        from huggingface_hub import constants

        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
        neural._opened.cache_clear()
        folder = tmp_path / f"models--{codec.repository.replace('/', '--')}"
        snapshot = folder / "snapshots" / "0123abcd"
        snapshot.mkdir(parents=True)
        (folder / "refs").mkdir()
        (folder / "refs" / "main").write_text("0123abcd")
        assert "hf download" in str(codec.available())
        {"encodec": encodec, "dac": dac, "mimi": mimi, "snac": snac}[codec.name](snapshot)

    return make


@each
def test_a_model_is_run(codec: _Pretrained, cached: Callable[[_Pretrained], None], speech: np.ndarray) -> None:
    cached(codec)
    assert codec.available() is None
    assert f"{codec.repository} 0123abcd {codec.package} " in codec.identity()
    clip = speech[: RATE + 123]
    outputs = list(through(codec, clip, codec.rates))
    assert [output.kbps for output in outputs] == pytest.approx(codec.rates)
    for output in outputs:
        assert output.samples.shape == clip.shape
        assert np.abs(output.samples).max() > 0
    for kbps, output in zip(codec.rates, outputs, strict=True):
        np.testing.assert_array_equal(next(through(codec, clip, [kbps])).samples, output.samples)
    assert len({output.samples.tobytes() for output in outputs}) == len(codec.rates)  # each codebook is heard


def test_a_rate_is_a_prefix(cached: Callable[[_Pretrained], None], speech: np.ndarray) -> None:
    """EnCodec at 3 kbit/s is what the model itself gives at that bandwidth."""
    cached(Encodec())
    import torch

    samples = speech[: 320 * 40].astype(np.float32)
    model = neural._opened(Encodec())
    with torch.inference_mode():
        given = model(torch.from_numpy(samples)[None, None], bandwidth=3.0).audio_values
    np.testing.assert_array_equal(Encodec().run(samples, 3.0).samples, given.reshape(-1).numpy())
