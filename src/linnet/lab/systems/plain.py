"""The common shape of the published systems: an encoder, a residual quantizer and a decoder in a row, all of them streaming."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from linnet.lab.nn.blocks import State
from linnet.lab.quant.codebook import EmaCodebook
from linnet.lab.quant.residual import ResidualQuantizer
from linnet.lab.share import Share
from linnet.lab.systems.base import Example, Heard, Passed, System, draw_layers, draw_losses, quantizer_losses, unit_power

if TYPE_CHECKING:
    from linnet.lab.train.recipe import Stage


class StreamingSystem(System):
    """A system whose two sides are pure functions of input and state, for any number of frames: it can be traced.

    Where it `mixes` a background that is coded apart, the last of `decode_step`'s states is `bundle.BACKGROUND_CUT`.
    """

    mixes = False

    def initial_states(self, batch: int) -> tuple[State, State]:
        """Silence, for `encode_step` and for `decode_step`."""
        raise NotImplementedError

    def encode_step(self, samples: Tensor, state: State) -> tuple[Tensor, State]:
        """The sending side of a stream: `[batch, frames * hop]` -> codes int64 `[batch, frames, layers]`."""
        raise NotImplementedError

    def decode_step(self, codes: Tensor, state: State) -> tuple[Tensor, State]:
        """The receiving side of a stream, the inverse; -1 where a code did not arrive."""
        raise NotImplementedError

    def compared(self, output: Tensor, wanted: Tensor) -> Heard:
        """What came out, `delay` late, beside what is wanted, `[batch, frames * hop]` both: the whole waveform counts."""
        output = output[:, self.delay :]
        return Heard(output, wanted[:, : output.shape[1]], torch.ones_like(output[:, 0]))

    def encode(self, samples: Tensor) -> Tensor:
        """`System.encode`."""
        return self.encode_step(samples, self.initial_states(len(samples))[0])[0]

    def decode(self, codes: Tensor) -> Tensor:
        """`System.decode`."""
        return self.decode_step(codes, self.initial_states(len(codes))[1])[0]


class PlainCodec(StreamingSystem):
    """Samples -> `encoder` -> `quantizer` -> `decoder` -> samples.

    `encoder` is a block from `[batch, frames * hop]` to `[batch, frames, dim]`, `decoder` one back; both are pure functions of
    input and state. With the bottleneck "continuous" nothing is quantized; with "none" nothing is heard. A frame that was lost
    is a latent of zeros.
    """

    bottlenecks: tuple[str, ...] = ("quantized", "continuous", "none")

    def __init__(self, config: Any, encoder: nn.Module, quantizer: ResidualQuantizer, decoder: nn.Module, delay: int):
        super().__init__()
        self.config, self.delay = config, delay
        self.encoder, self.quantizer, self.decoder = encoder, quantizer, decoder
        # The latent's scale is what quantization noise is measured against, so it is held at 1.
        self.register_buffer("power", torch.ones(()))
        self.power: Tensor

    def initial_states(self, batch: int) -> tuple[State, State]:
        """`StreamingSystem.initial_states`, for `analyse` and `synthesise` too."""
        encoder: Any = self.encoder
        decoder: Any = self.decoder
        return encoder.initial_state(batch), decoder.initial_state(batch)

    def analyse(self, samples: Tensor, state: State) -> tuple[Tensor, State]:
        """`[batch, frames * hop]` -> the latent `[batch, frames, dim]`, of unit mean power."""
        latent, state = self.encoder(samples, state)
        return unit_power(latent.float(), self.power, training=self.encoder.training), state

    def synthesise(self, latent: Tensor, state: State) -> tuple[Tensor, State]:
        """A latent `[batch, frames, dim]` -> samples `[batch, frames * hop]`."""
        samples, state = self.decoder(latent, state)
        return samples.float(), state

    def encode_step(self, samples: Tensor, state: State) -> tuple[Tensor, State]:
        """`StreamingSystem.encode_step`."""
        latent, state = self.analyse(samples, state)
        return self.quantizer.search(latent), state

    def decode_step(self, codes: Tensor, state: State) -> tuple[Tensor, State]:
        """`StreamingSystem.decode_step`."""
        return self.synthesise(self.quantizer.dequantize(codes), state)

    def forward(self, stage: Stage, example: Example, share: Share) -> Passed:
        """`System.forward`."""
        latent = self.latent(example.samples)
        if stage.bottleneck == "continuous":
            return Passed(heard={"": self.heard(latent, example.wanted)}, latent=latent)
        if stage.bottleneck == "none":
            return Passed(latent=latent)
        with torch.autocast(latent.device.type, enabled=False):
            quantized = self.quantizer(latent)
        heard = {}
        if stage.decodes:
            arrived = ~draw_losses(latent.shape[1], stage.frame_loss, share)
            codes = torch.where(arrived.unsqueeze(-1), draw_layers(quantized.codes, share), -1)
            heard = {"": self.heard(self.pass_straight(latent, codes), example.wanted)}
        learning = [(self.quantizer, (latent,))] if "quantizer" in stage.trains else []
        return Passed(quantizer_losses(error=quantized), heard, latent, learning)

    def pass_straight(self, latent: Tensor, codes: Tensor) -> Tensor:
        """What codes say, as a function of the latent: the encoder gets the decoder's gradient as if nothing
        had been quantized."""
        return latent + (self.quantizer.dequantize(codes) - latent).detach()

    def heard(self, latent: Tensor, wanted: Tensor) -> Heard:
        """What the decoder makes of a latent, from silence, beside what is wanted `[batch, frames * hop]`."""
        return self.compared(self.synthesise(latent, self.initial_states(len(latent))[1])[0], wanted)

    def unfitted(self, stage: Stage) -> bool:
        """`System.unfitted`."""
        return "latent" in stage.losses and not self.quantizer.fitted

    @torch.no_grad()
    def fit(self, stage: Stage, examples: Sequence[Example], generator: torch.Generator) -> None:  # noqa: ARG002
        """`System.fit`."""
        self.quantizer.fit(torch.cat([self.latent(example.samples) for example in examples]), generator)

    def latent(self, samples: Tensor) -> Tensor:
        """`System.latent`."""
        return self.analyse(samples, self.initial_states(len(samples))[0])[0]

    def unquantized(self, example: Example) -> dict[str, Tensor]:
        """`System.unquantized`."""
        latent = self.latent(example.samples)
        return {"unquantized": self.synthesise(latent, self.initial_states(len(latent))[1])[0]}

    def columns(self) -> list[tuple[str, int]]:
        """`System.columns`."""
        books = enumerate(self.quantizer.codebooks(), start=1)
        return [(f"residual_{layer}" if layer > 1 else "base", book.size) for layer, book in books]

    def codebooks(self) -> list[EmaCodebook]:
        """`System.codebooks`."""
        return self.quantizer.codebooks() if self.quantizer.fitted else []
