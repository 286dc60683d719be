"""`linnet budget`: what a bundle costs to run and how long it makes one wait, against the limits of the LRAC challenge.

LRAC 2025 (Low-Resource Audio Codec challenge, Cisco) limits compute on both sides together and on the receiving side
alone, and latency without processing time. One multiply-accumulate is two floating-point operations; what counts as one
is said in `linnet.evaluate.macs`. The quantizer's search is in the encoder's graph, hence on the sending side.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime as ort

from linnet.evaluate.latency import MeasuredLatency, measure

if TYPE_CHECKING:
    from linnet.evaluate.graph_cost import FrameCost, Weights

Array = np.ndarray
FLOPS_PER_MAC = 2


@dataclass(frozen=True)
class Limits:
    """The limits of one track; compute in MFLOPS, latency (buffering and algorithmic) in milliseconds."""

    track: str
    total_mflops: float
    receive_mflops: float
    latency_ms: float


LRAC = (
    Limits("LRAC Track 1 (transparency)", total_mflops=700, receive_mflops=300, latency_ms=30),
    Limits("LRAC Track 2 (enhancement)", total_mflops=2600, receive_mflops=600, latency_ms=50),
)


@dataclass(frozen=True)
class Side:
    """The cost of one graph, at its frame rate."""

    parameters: int
    bytes: int
    mmacs: float  # millions of MACs a second
    mmacs_by_op: Mapping[str, float]
    mmacs_per_call: float  # millions of MACs that a call pays once, not part of `mmacs`
    linear: bool  # the cost of a frame does not depend on how many there are
    uncounted: tuple[str, ...]  # nodes for whose operator there is no rule

    @property
    def mflops(self) -> float:
        """Millions of floating-point operations a second, two for each MAC."""
        return FLOPS_PER_MAC * self.mmacs

    @classmethod
    def of(cls, cost: "FrameCost", weights: "Weights", frame_rate: float) -> "Side":
        """A graph whose frames cost so many MACs each, `frame_rate` of them a second."""
        by_op = {op: macs * frame_rate / 1e6 for op, macs in cost.by_op.items()}
        return cls(
            parameters=weights.parameters,
            bytes=weights.bytes,
            mmacs=cost.macs * frame_rate / 1e6,
            mmacs_by_op=by_op,
            mmacs_per_call=cost.per_call / 1e6,
            linear=cost.linear,
            uncounted=tuple(sorted(cost.uncounted)),
        )


@dataclass(frozen=True)
class Check:
    """One quantity against its limit."""

    quantity: str
    value: float
    limit: float
    unit: str

    @property
    def passed(self) -> bool:
        """Whether the value is not above the limit."""
        return self.value <= self.limit + 1e-6  # 30 ms is 30 ms, however it was divided


@dataclass(frozen=True)
class Budget:
    """What a bundle costs. Latencies in milliseconds; `card_ms` is what the card says, the rest was measured."""

    name: str
    sample_rate: int
    hop: int
    send: Side
    receive: Side
    card_ms: float
    measured: MeasuredLatency

    @property
    def buffering_ms(self) -> float:
        """A frame, which must be there as a whole before it can be coded."""
        return 1000 * self.hop / self.sample_rate

    @property
    def algorithmic_ms(self) -> float:
        """What the card's latency has beyond the buffering."""
        return max(0.0, self.card_ms - self.buffering_ms)

    @property
    def measured_ms(self) -> float:
        """From sound to sound; where the lag could not be measured the card's stands in (see `MeasuredLatency`)."""
        return self._total_ms(self.measured.lag)

    @property
    def judged_ms(self) -> float:
        """The latency held against a limit: the card's, unless an exact measurement says that it is longer."""
        return max(self.card_ms, self._total_ms(self.measured.lag if self.measured.lag_exact else None))

    def _total_ms(self, lag: int | None) -> float:
        declared = round(self.algorithmic_ms * self.sample_rate / 1000)
        return 1000 * self.measured.total(declared if lag is None else lag) / self.sample_rate

    def checks(self, limits: Limits) -> tuple[Check, ...]:
        """Compute of both sides and of the receiver in MFLOPS, and the judged latency in ms, against one track's limits."""
        total = self.send.mflops + self.receive.mflops
        return (
            Check("total", total, limits.total_mflops, "MFLOPS"),
            Check("receive", self.receive.mflops, limits.receive_mflops, "MFLOPS"),
            Check("latency", self.judged_ms, limits.latency_ms, "ms"),
        )

    def verdict(self, limits: Limits) -> str:
        """PASS, FAIL, or OPEN: nothing is over its limit yet, but some operators could not be counted."""
        if not all(check.passed for check in self.checks(limits)):
            return "FAIL"
        return "OPEN" if self.send.uncounted or self.receive.uncounted else "PASS"


def assess(encoder: bytes, decoder: bytes, *, name: str, sample_rate: int, hop: int, latency_ms: float, n_codes: int) -> Budget:
    """Count and measure a bundle's two serialized graphs.

    Args:
        encoder: `encoder.onnx`, by the bundle contract.
        decoder: `decoder.onnx`, likewise.
        name: the bundle's name.
        sample_rate: of both graphs, in Hz.
        hop: samples a frame.
        latency_ms: what the card says.
        n_codes: columns of the code array.

    Raises:
        ModuleNotFoundError: the package `onnx` is not installed.
    """
    encode, decode = Graph(encoder), Graph(decoder)
    rng = np.random.default_rng(0)

    def samples(frames: int) -> dict[str, Array]:
        return encode.feeds(rng.uniform(-0.1, 0.1, (frames, hop)).astype(np.float32))

    def codes(frames: int) -> dict[str, Array]:
        return decode.feeds(np.zeros((frames, n_codes), np.int64))

    send = _side(encoder, sample_rate / hop, samples)
    receive = _side(decoder, sample_rate / hop, codes)
    measured = measure(lambda signal: decode(encode(signal.reshape(-1, hop))).reshape(-1), sample_rate, hop)
    return Budget(name, sample_rate, hop, send, receive, latency_ms, measured)


def _side(graph: bytes, frame_rate: float, feeds: Callable[[int], Mapping[str, Array]]) -> Side:
    import onnx  # optional: only this command needs it, and so does what it imports

    from linnet.evaluate.graph_cost import frame_cost, weights

    model = onnx.load_from_string(graph)
    return Side.of(frame_cost(model, feeds), weights(model), frame_rate)


class Graph:
    """One graph of a bundle, run on one thread so that equal inputs give equal outputs, to the bit."""

    def __init__(self, graph: bytes) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 4  # what fails is raised
        self.session = ort.InferenceSession(graph, options, ["CPUExecutionProvider"])
        self.outputs = [output.name for output in self.session.get_outputs()]

    def feeds(self, first: Array) -> dict[str, Array]:
        """The inputs of a call of one stream that starts from silence: `first` `[frames, width]`, and zeros for every state.

        Raises:
            ValueError: a state has a free dimension besides its streams, or a type that numpy lacks: the bundle contract
                forbids both.
        """
        inputs = self.session.get_inputs()
        feeds = {inputs[0].name: first[:, np.newaxis]}
        for state in inputs[1:]:
            kind = state.type.removeprefix("tensor(").removesuffix(")")
            shape = [1 if size == "streams" else size for size in state.shape]
            if kind not in _STATE_TYPES or not all(isinstance(size, int) for size in shape):
                raise ValueError(f"state {state.name} is {state.type} {state.shape}; export it with a fixed shape")
            feeds[state.name] = np.zeros(shape, _STATE_TYPES[kind])
        return feeds

    def __call__(self, first: Array) -> Array:
        """The first output `[frames, width]` for a whole signal's frames, from the silence before it."""
        return np.asarray(self.session.run(self.outputs[:1], self.feeds(first))[0])[:, 0]


_STATE_TYPES: Mapping[str, type] = {
    "float": np.float32,
    "float16": np.float16,
    "double": np.float64,
    "int64": np.int64,
    "int32": np.int32,
    "int8": np.int8,
    "uint8": np.uint8,
    "bool": np.bool_,
}


def to_json(budget: Budget) -> dict[str, Any]:
    """Everything that `render` prints, and the operators' shares, as plain values."""
    report = asdict(budget)
    for side, cost in (("send", budget.send), ("receive", budget.receive)):
        report[side]["mflops"] = cost.mflops
    report["latency_ms"] = {
        "buffering": budget.buffering_ms,
        "algorithmic": budget.algorithmic_ms,
        "card": report.pop("card_ms"),
        "measured": budget.measured_ms,
        "judged": budget.judged_ms,
    }
    report["limits"] = [
        {
            "track": limits.track,
            "verdict": budget.verdict(limits),
            "checks": [{**asdict(check), "passed": check.passed} for check in budget.checks(limits)],
        }
        for limits in LRAC
    ]
    return report


def render(budget: Budget) -> str:
    """A budget as text, one fact a line."""
    send, receive = budget.send, budget.receive
    rows = [
        ("parameters, M", send.parameters / 1e6, receive.parameters / 1e6),
        ("weights, MB", send.bytes / 1e6, receive.bytes / 1e6),
        ("MMAC/s", send.mmacs, receive.mmacs),
        ("MFLOPS", send.mflops, receive.mflops),
    ]
    lines = [f"{budget.name}: {budget.sample_rate / 1000:g} kHz, {budget.buffering_ms:g} ms a frame", ""]
    lines.append(f"{'':16}{'send':>10}{'receive':>10}{'total':>10}")
    lines += [f"{title:16}{one:10.2f}{other:10.2f}{one + other:10.2f}" for title, one, other in rows]
    lines += ["", *_latency_lines(budget), ""]
    for limits in LRAC:
        lines.append(f"{limits.track}: {budget.verdict(limits)}")
        for check in budget.checks(limits):
            mark = "pass" if check.passed else "FAIL"
            lines.append(f"  {check.quantity:8}{check.value:10.1f} of {check.limit:6g} {check.unit:7}{mark}")
    return "\n".join(lines + _caveats(budget))


def _latency_lines(budget: Budget) -> list[str]:
    measured = budget.measured
    lines = [
        f"latency, card      {budget.card_ms:.2f} ms = "
        f"{budget.buffering_ms:.2f} buffering + {budget.algorithmic_ms:.2f} algorithmic",
    ]
    if measured.lag is None:
        how = "the card's lag: the output does not correlate with the input"
    elif measured.lag_exact:
        how = "lag from the waveforms' correlation"
    else:
        how = "lag from the envelopes' correlation, good to a few ms; the card's is judged"
    return [*lines, f"latency, measured  {budget.measured_ms:.2f} ms ({how})"]


def _caveats(budget: Budget) -> list[str]:
    from linnet.evaluate.graph_cost import FRAMES  # optional, as in `_side`

    notes = []
    reach = budget.measured.reach
    if not budget.measured.repeatable:
        notes.append("causality not measured: the same input gives different outputs")
    elif reach is None:
        notes.append("causality not measured: the codes do not follow the input (has the model been trained?)")
    elif reach > budget.hop:
        notes.append(f"NOT CAUSAL: a change is heard {reach - budget.hop} samples before the frame it is in")
    for title, side in (("send", budget.send), ("receive", budget.receive)):
        if side.uncounted:
            notes.append(f"{title}: NOT COUNTED, no rule for {', '.join(side.uncounted)}")
        if not side.linear:
            counted = f"counted from {FRAMES[0]} to {FRAMES[1]} frames"
            notes.append(f"{title}: the cost of a frame grows with the length of the call; {counted}")
        if side.mmacs_per_call:
            notes.append(f"{title}: {side.mmacs_per_call:.3f} MMAC more for each call, not counted above")
    return ["", *notes] if notes else []
