"""The bridge between lab and runtime: a trained model as two graphs and a card, read and checked here.

docs/design.md, "The bundle", is the contract. A bundle is a folder or a zip of its files.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import struct
import tomllib
import zipfile
import zlib
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from linnet.bits import EntropyCoder, Layout, LayoutError, LinnetError, Tables
from linnet.writing import replacing, write_text

_SHIPPED = Path(__file__).parent / "models"
FORMAT = 2  # of the card; in format 1 the graphs had no axis of streams
BACKGROUND_CUT = "state_background_cut"
"""The state of a decoder's graph that is its listener's: how much of a background that is coded apart is taken away, 0 to 1."""
_GRAPHS = ("encoder", "decoder")
_TABLES = "entropy.bin"
_LARGEST_FILE = 128 << 20
"""Of a zip, forty times a graph of `clear`: some hundred bytes may say that they hold any number."""
_MOST_SAMPLES = 1 << 32  # TOML's numbers have no end
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # an LZMA stream of some bytes may ask for gigabytes
_READ_ERRORS = (OSError, KeyError, EOFError, RuntimeError, ValueError, struct.error, zipfile.BadZipFile, zlib.error)
"""What zipfile raises in archives that are damaged or encrypted."""


class BundleError(LinnetError):
    """A bundle is missing, incomplete, damaged, or of another format."""


@dataclass(frozen=True)
class Column:
    """One code of a frame: its name, how many values it takes (a power of two) and the layer it belongs to, from 1."""

    name: str
    size: int
    layer: int


@dataclass(frozen=True)
class Card:
    """What a model says of itself. `delay` in samples, `latency_ms` from the card; `training` and `results` are free-form.

    `entropy` is empty, or says of the tables for entropy coding what they were fitted to, their file and its digest.
    """

    name: str
    system: str
    sample_rate: int
    hop: int
    delay: int
    latency_ms: float
    columns: tuple[Column, ...]
    digests: Mapping[str, str]
    training: Mapping[str, Any] = field(default_factory=dict)
    results: Mapping[str, Any] = field(default_factory=dict)
    entropy: Mapping[str, Any] = field(default_factory=dict)

    @property
    def layout(self) -> Layout:
        """How a frame's codes become bits."""
        sizes, layers = [column.size for column in self.columns], [column.layer for column in self.columns]
        return Layout(tuple(sizes), tuple(layers), self.sample_rate, self.hop)

    @property
    def model_id(self) -> bytes:
        """Four bytes that name these two graphs in a bitstream."""
        return _identity(self.digests[graph] for graph in _GRAPHS)

    @property
    def coded_id(self) -> bytes | None:
        """Four bytes that name these graphs and their tables in an entropy-coded file; None without tables."""
        digests = [self.digests[graph] for graph in _GRAPHS]
        return _identity([*digests, self.entropy["sha256"]]) if self.entropy else None

    @property
    def layouts(self) -> dict[bytes, Layout]:
        """The layout by the identities that a file may give: enough to thin it."""
        return {identity: self.layout for identity in (self.model_id, self.coded_id) if identity}


@dataclass(frozen=True)
class Bundle:
    """A model: its card, its two serialized graphs and its tables for entropy coding, whose digests have been checked."""

    card: Card
    encoder: bytes
    decoder: bytes
    tables: bytes | None = None

    @cached_property
    def coder(self) -> EntropyCoder | None:
        """The entropy coder; None without tables. TablesError if they are not for this model's codes."""
        identity = self.card.coded_id
        if self.tables is None or identity is None:
            return None
        return EntropyCoder(self.card.layout, Tables.from_bytes(self.tables), identity)

    @property
    def models(self) -> dict[bytes, Layout | EntropyCoder]:
        """What reads this model's files, by the identity that a file gives."""
        return {**self.card.layouts, **({self.coder.model_id: self.coder} if self.coder else {})}


def list_models() -> list[str]:
    """Names of the models that are shipped with the package."""
    return sorted(path.parent.name for path in _SHIPPED.glob("*/card.toml"))


def shipped(model_id: bytes) -> str | None:
    """The name of the shipped model that a file asks for; None if it is none of them."""
    return next((name for name in list_models() if model_id in read_card(_SHIPPED / name).layouts), None)


def load(model: str | Path) -> Bundle:
    """Open a shipped model by name, or a bundle by the path of its folder or zip; BundleError says what is wrong."""
    read = _opener(model)
    card = _parse_card(read("card.toml"), str(model))
    graphs = {}
    for graph in _GRAPHS:
        graphs[graph] = read(f"{graph}.onnx")
        if hashlib.sha256(graphs[graph]).hexdigest() != card.digests[graph]:
            raise BundleError(f"{model}: {graph}.onnx is not the graph that its card describes; export or copy the model again")
    tables = read(_TABLES) if card.entropy else None
    if tables is not None and hashlib.sha256(tables).hexdigest() != card.entropy["sha256"]:
        raise BundleError(f"{model}: {_TABLES} is not what its card describes; run 'linnet tables' or copy the model again")
    return Bundle(card, graphs["encoder"], graphs["decoder"], tables)


def read_card(model: str | Path) -> Card:
    """The card alone, without reading the graphs."""
    return _parse_card(_opener(model)("card.toml"), str(model))


def write_bundle(folder: Path, encoder: bytes, decoder: bytes, card: Mapping[str, Any], tables: bytes | None = None) -> None:
    """Write a bundle's folder, with or without tables for entropy coding.

    `card` is the card's table; `graphs`, and the file and digest of `entropy`, are filled in here.
    """
    graphs = {"encoder": encoder, "decoder": decoder}
    filled = {key: value for key, value in card.items() if key != "entropy"}
    filled["graphs"] = {name: _described(f"{name}.onnx", data) for name, data in graphs.items()}
    if tables is not None:
        filled["entropy"] = {**card.get("entropy", {}), **_described(_TABLES, tables)}
    text = to_toml(filled)
    _parse_card(text.encode(), str(folder))
    files = {"card.toml": text.encode(), **{f"{name}.onnx": data for name, data in graphs.items()}}
    if tables is not None:
        files[_TABLES] = tables
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        # All are written before any takes its place; the card, which says what the others are, is the last to.
        partials = {name: stack.enter_context(replacing(folder / name)) for name in files}
        for name, data in files.items():
            partials[name].write_bytes(data)
    if tables is None:
        (folder / _TABLES).unlink(missing_ok=True)  # of other graphs


def add_tables(model: str | Path, tables: bytes, about: Mapping[str, Any]) -> None:
    """Put tables for entropy coding into a bundle's folder, in place of any that are there; `about` goes into the card."""
    path = writable_folder(model)
    read = _opener(path)
    encoder, decoder = (read(f"{graph}.onnx") for graph in _GRAPHS)
    write_bundle(path, encoder, decoder, {**tomllib.loads(read("card.toml").decode()), "entropy": about}, tables)


def add_results(model: str | Path, results: Mapping[str, Any]) -> None:
    """Put what was measured into the card of a bundle's folder, in place of what is there."""
    path = writable_folder(model)
    text = to_toml({**tomllib.loads(_opener(path)("card.toml").decode()), "results": results})
    _parse_card(text.encode(), str(path))
    write_text(path / "card.toml", text)


def writable_folder(model: str | Path) -> Path:
    """The folder of a bundle, into which something can be put; BundleError if it is none or may not be written."""
    path = _place(model)
    if not path.is_dir():
        raise BundleError(f"{path} is no folder: unpack the bundle first, to put something into it")
    if not os.access(path, os.W_OK):
        raise BundleError(f"{path} may not be written: copy the bundle to where it may")
    return path


def _described(name: str, data: bytes) -> dict[str, str]:
    return {"file": name, "sha256": hashlib.sha256(data).hexdigest()}


def _identity(digests: Iterable[str]) -> bytes:
    return hashlib.sha256(b"".join(map(bytes.fromhex, digests))).digest()[:4]


def _place(model: str | Path) -> Path:
    """Where a shipped model or a bundle is: a folder or a zip."""
    path = Path(model)
    # A folder that only happens to have a model's name, as a run's has, does not hide the model.
    if str(model) in list_models() and not (path.is_file() or (path / "card.toml").exists()):
        path = _SHIPPED / str(model)
    if not path.exists():
        raise BundleError(
            f"no model {str(model)!r}: name a bundle's path or one of {', '.join(list_models()) or 'none shipped'}"
        )
    return path


def _opener(model: str | Path) -> Callable[[str], bytes]:
    """A function that reads one file of the bundle."""
    path = _place(model)

    def read(name: str) -> bytes:
        try:
            if path.is_dir():
                return (path / name).read_bytes()
            with zipfile.ZipFile(path) as archive:
                packed = archive.getinfo(name)
                if packed.compress_type not in _METHODS or max(packed.file_size, packed.compress_size) > _LARGEST_FILE:
                    raise BundleError(
                        f"{path}: its {name} is neither stored nor deflated, or has more than {_LARGEST_FILE >> 20} MiB: "
                        "unpack it and name the folder"
                    )
                return archive.read(packed)
        except _READ_ERRORS as error:
            raise BundleError(
                f"{path} is not a bundle (a folder or a zip with card.toml and two graphs), or an incomplete one: "
                f"it has no readable {name}"
            ) from error

    return read


def _parse_card(data: bytes, where: str) -> Card:
    try:
        table = tomllib.loads(data.decode("utf-8"))
        if table.get("format") != FORMAT:
            raise BundleError(
                f"{where}: its card has format {table.get('format')!r:.20}; this version of linnet reads format {FORMAT}: "
                "export the model again"
            )
        card = Card(
            name=str(table["name"]),
            system=str(table["system"]),
            sample_rate=int(table["sample_rate"]),
            hop=int(table["hop"]),
            delay=int(table["delay"]),
            latency_ms=float(table["latency_ms"]),
            columns=tuple(Column(str(row["name"]), int(row["size"]), int(row["layer"])) for row in table["columns"]),
            digests={graph: str(table["graphs"][graph]["sha256"]) for graph in _GRAPHS},
            training=table.get("training", {}),
            results=table.get("results", {}),
            entropy={**table["entropy"], "sha256": str(table["entropy"]["sha256"])} if "entropy" in table else {},
        )
        if card.delay < 0 or max(card.sample_rate, card.hop, card.delay) > _MOST_SAMPLES:
            raise ValueError(f"a delay below 0, or a sample rate, hop or delay above {_MOST_SAMPLES}")
        # A layout that cannot be, or digests that are none, are found here and not in the middle of the work.
        _ = card.layouts
        return card
    except KeyError as error:
        raise BundleError(f"{where}: its card.toml cannot be read: it has no {error}") from error
    except (LayoutError, TypeError, ValueError, OverflowError, RecursionError) as error:
        raise BundleError(f"{where}: its card.toml cannot be read ({error!s:.200})") from error


def to_toml(table: Mapping[str, Any], prefix: str = "") -> str:
    """A table of strings, numbers, booleans, lists, tables and lists of tables as TOML, plain values first."""
    lines, later = [], []
    for key, value in table.items():
        name = f"{prefix}{_key(key)}"
        if isinstance(value, Mapping):
            later.append(f"\n[{name}]\n{to_toml(value, name + '.')}")
        elif isinstance(value, list | tuple) and value and all(isinstance(item, Mapping) for item in value):
            later.extend(f"\n[[{name}]]\n{to_toml(item, name + '.')}" for item in value)
        else:
            lines.append(f"{_key(key)} = {_value(value)}\n")
    return "".join(lines + later)


def _key(key: str) -> str:
    return key if key.replace("_", "").replace("-", "").isalnum() and key.isascii() else _value(key)


def _value(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and not math.isfinite(value):
        return "nan" if math.isnan(value) else ("inf" if value > 0 else "-inf")
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, list | tuple):
        return f"[{', '.join(_value(item) for item in value)}]"
    raise TypeError(f"a card cannot hold {type(value).__name__}")
