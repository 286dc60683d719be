"""Neural codecs of others, with the packages and the weights that a user has: Lyra v2, EnCodec, DAC, Mimi and SNAC.

Nothing is fetched: weights are taken from where `hf download` puts them, and Lyra's from a folder that `LINNET_LYRA` names.
EnCodec, DAC and Mimi are run by `transformers`, because their first packages need a torchaudio or a torch that the
laboratory's torch excludes. All run on one thread, so that results do not depend on the number of cores.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from linnet.evaluate.codecs.base import Codec, Coded
from linnet.evaluate.metrics import Samples, to_int16

LYRA_FOLDER = "LINNET_LYRA"
"""The environment variable that names the folder with Lyra's models."""

_LYRA_FILES = ("soundstream_encoder.tflite", "quantizer.tflite", "lyragan.tflite")
_LYRA_QUANTIZERS, _LYRA_BITS = 46, 4  # the most, and bits of each


@dataclass(frozen=True)
class Lyra(Codec):
    """Lyra v2 (SoundStream) from its public TFLite models, 16 kHz, in its three modes of 64, 120 and 184 bits in 20 ms."""

    name: str = "lyra"
    frame = 320
    rates = (3.2, 6.0, 9.2)
    usual_kbps = (3.2, 6.0)

    def available(self) -> str | None:
        """See `Codec.available`."""
        if importlib.util.find_spec("ai_edge_litert") is None:
            return "Lyra needs its interpreter: pip install ai-edge-litert"
        if not all((_lyra_folder() / file).is_file() for file in _LYRA_FILES):
            where = f"export {LYRA_FOLDER}=$PWD/lyra/lyra/model_coeffs"
            return f"Lyra needs its models: git clone https://github.com/google/lyra && {where}"
        return None

    def identity(self) -> str:
        """See `Codec.identity`."""
        digests = [hashlib.sha256((_lyra_folder() / file).read_bytes()).hexdigest()[:16] for file in _LYRA_FILES]
        return f"{digests} ai-edge-litert {version('ai-edge-litert')}"

    def run(self, samples: Samples, kbps: float) -> Coded:
        """See `Codec.run`."""
        encoder, quantizer, decoder = (_interpreter(_lyra_folder() / file) for file in _LYRA_FILES)
        to_codes, from_codes = (quantizer.get_signature_runner(key) for key in ("encode", "decode"))
        wanted = to_codes.get_input_details()["num_quantizers"]
        n = round(1000 * kbps * self.frame / self.sample_rate / _LYRA_BITS)
        number = np.full(wanted["shape"], n, wanted["dtype"])
        frames = (to_int16(samples) / 32768).astype(np.float32).reshape(-1, self.frame)
        decoded = []
        for frame in frames:
            codes = to_codes(input_frames=_invoked(encoder, frame), num_quantizers=number)["output_0"]
            received = np.full((_LYRA_QUANTIZERS, 1, 1), -1, np.int32)  # -1: this one was not sent
            received[:n] = codes[:n]
            decoded.append(_invoked(decoder, from_codes(encoding_indices=received)["output_0"]).reshape(-1))
        return Coded(np.concatenate(decoded), _LYRA_BITS * n * len(frames), len(samples) / self.sample_rate)


@dataclass(frozen=True)
class _Pretrained(Codec):
    """Codebook indices of a torch model whose weights are in the Hugging Face cache; every codebook costs the same.

    The lower rates are prefixes of one encoding. The models give back as many samples as they took, where they were.
    """

    name: str
    package = "transformers"
    repository = ""
    weights = "model.safetensors"
    codebooks: ClassVar[tuple[int, ...]]
    """As many as each of `rates` sends."""

    def available(self) -> str | None:
        """See `Codec.available`."""
        missing = [package for package in ("torch", self.package) if importlib.util.find_spec(package) is None]
        if missing:
            return f"{self.name} needs its packages: pip install {' '.join(missing)}"
        if _snapshot(self.repository, self.weights) is None:
            return f"{self.name} needs its weights: hf download {self.repository} config.json {self.weights}"
        return None

    def identity(self) -> str:
        """See `Codec.identity`: the packages, and the revision of the weights."""
        snapshot = _snapshot(self.repository, self.weights)
        revision = snapshot.name if snapshot else ""
        return f"{self.repository} {revision} {self.package} {version(self.package)} torch {version('torch')}"

    def run(self, samples: Samples, kbps: float) -> Coded:
        """See `Codec.run`."""
        return next(self.runs(samples, [kbps]))

    def runs(self, samples: Samples, rates: Sequence[float]) -> Iterator[Coded]:
        """See `Codec.runs`."""
        import torch

        model, seconds = _opened(self), len(samples) / self.sample_rate
        batch = torch.from_numpy(np.asarray(samples, np.float32))[None, None]
        with torch.inference_mode():
            codes = self.encode(model, batch)
        for kbps in rates:
            with torch.inference_mode(), torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)  # SNAC's decoder draws noise
                decoded = self.decode(model, codes, self.codebooks[self.rates.index(kbps)])
            yield Coded(decoded.reshape(-1).numpy(), 1000 * kbps * seconds, seconds)

    @abstractmethod
    def load(self, folder: Path) -> Any:
        """The model whose configuration and weights are in a folder."""

    @abstractmethod
    def encode(self, model: Any, batch: Any) -> Any:
        """The codes of all codebooks for a tensor of samples [1, 1, samples]."""

    @abstractmethod
    def decode(self, model: Any, codes: Any, n: int) -> Any:
        """A tensor of samples [..., samples] from the first n codebooks."""


@dataclass(frozen=True)
class Encodec(_Pretrained):
    """EnCodec's causal model of 24 kHz: codebooks of 10 bits, 75 times a second, without its entropy coder."""

    name: str = "encodec"
    repository = "facebook/encodec_24khz"
    sample_rate = 24000
    frame = 320
    codebooks = (2, 4, 8, 16, 32)
    rates = tuple(0.75 * n for n in codebooks)
    usual_kbps = (1.5, 6.0)

    def load(self, folder: Path) -> Any:
        """See `_Pretrained.load`."""
        return _transformers().EncodecModel.from_pretrained(folder)

    def encode(self, model: Any, batch: Any) -> Any:
        """See `_Pretrained.encode`."""
        return model.encode(batch, bandwidth=self.rates[-1]).audio_codes

    def decode(self, model: Any, codes: Any, n: int) -> Any:
        """See `_Pretrained.decode`."""
        return model.decode(codes[:, :, :n], [None]).audio_values


@dataclass(frozen=True)
class Dac(_Pretrained):
    """The Descript Audio Codec's model of 16 kHz: codebooks of 10 bits, 50 times a second."""

    name: str = "dac"
    repository = "descript/dac_16khz"
    frame = 320
    codebooks = tuple(range(1, 13))
    rates = tuple(0.5 * n for n in codebooks)
    usual_kbps = (1.0, 6.0)

    def load(self, folder: Path) -> Any:
        """See `_Pretrained.load`."""
        return _transformers().DacModel.from_pretrained(folder)

    def encode(self, model: Any, batch: Any) -> Any:
        """See `_Pretrained.encode`."""
        return model.encode(batch, n_quantizers=self.codebooks[-1]).audio_codes

    def decode(self, model: Any, codes: Any, n: int) -> Any:
        """See `_Pretrained.decode`."""
        return model.decode(audio_codes=codes[:, :n]).audio_values


@dataclass(frozen=True)
class Mimi(_Pretrained):
    """Mimi, the codec of Moshi, 24 kHz: codebooks of 11 bits, 12.5 times a second. Moshi uses eight of them, 1.1 kbit/s."""

    name: str = "mimi"
    repository = "kyutai/mimi"
    sample_rate = 24000
    frame = 1920
    codebooks = tuple(range(1, 33))
    rates = tuple(0.1375 * n for n in codebooks)
    usual_kbps = (1.1, 4.4)

    def load(self, folder: Path) -> Any:
        """See `_Pretrained.load`."""
        return _transformers().MimiModel.from_pretrained(folder)

    def encode(self, model: Any, batch: Any) -> Any:
        """See `_Pretrained.encode`."""
        return model.encode(batch, num_quantizers=self.codebooks[-1]).audio_codes

    def decode(self, model: Any, codes: Any, n: int) -> Any:
        """See `_Pretrained.decode`."""
        return model.decode(codes[:, :n]).audio_values


@dataclass(frozen=True)
class Snac(_Pretrained):
    """SNAC's model of 24 kHz for speech: seven indices of 12 bits on three time scales every 2048 samples, one rate."""

    name: str = "snac"
    package = "snac"
    repository = "hubertsiuzdak/snac_24khz"
    weights = "pytorch_model.bin"
    sample_rate = 24000
    frame = 2048
    codebooks = (3,)
    rates = (7 * 12 * 24 / 2048,)
    usual_kbps = rates

    def load(self, folder: Path) -> Any:
        """See `_Pretrained.load`."""
        from snac import SNAC

        return SNAC.from_pretrained(str(folder))

    def encode(self, model: Any, batch: Any) -> Any:
        """See `_Pretrained.encode`."""
        return model.encode(batch)

    def decode(self, model: Any, codes: Any, n: int) -> Any:
        """See `_Pretrained.decode`."""
        return model.decode(codes[:n])


def _lyra_folder() -> Path:
    return Path(os.environ.get(LYRA_FOLDER, "")).expanduser()


def _interpreter(path: Path) -> Any:
    """A TFLite model that has heard nothing yet."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(path), num_threads=1)
    interpreter.allocate_tensors()
    return interpreter


def _invoked(interpreter: Any, values: Samples) -> Any:
    """The one output of a TFLite model for its one input, given in any shape."""
    taken, given = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    interpreter.set_tensor(taken["index"], values.reshape(taken["shape"]))
    interpreter.invoke()
    return interpreter.get_tensor(given["index"])


def _snapshot(repository: str, weights: str) -> Path | None:
    """The folder, named by its revision, in which the Hugging Face cache has a model; None if it has not."""
    from huggingface_hub import try_to_load_from_cache

    found = [try_to_load_from_cache(repository, file) for file in ("config.json", weights)]
    return Path(found[1]).parent if all(isinstance(path, str) for path in found) else None


def _transformers() -> Any:
    """The package, without its progress bars: the engine has one of its own."""
    import transformers

    transformers.utils.logging.disable_progress_bar()
    return transformers


@cache
def _opened(codec: _Pretrained) -> Any:
    """The model, opened once a process."""
    import torch

    torch.set_num_threads(1)
    folder = _snapshot(codec.repository, codec.weights)
    assert folder is not None  # or the codec is not available
    return codec.load(folder).eval()
