"""The bridge between lab and runtime: a trained model as two graphs and a card, read and checked here.

docs/design.md, "The bundle", is the contract. A bundle is a folder or a zip of its files.
"""

from __future__ import annotations

import hashlib
import json
import math
import tomllib
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from linnet.bits import Layout, LinnetError

_SHIPPED = Path(__file__).parent / "models"
_GRAPHS = ("encoder", "decoder")


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
    """What a model says of itself. `delay` in samples, `latency_ms` from the card; `training` and `results` are free-form."""

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

    @property
    def layout(self) -> Layout:
        """How a frame's codes become bits."""
        sizes, layers = [column.size for column in self.columns], [column.layer for column in self.columns]
        return Layout(tuple(sizes), tuple(layers), self.sample_rate, self.hop)

    @property
    def model_id(self) -> bytes:
        """Four bytes that name these two graphs in a bitstream."""
        return hashlib.sha256(b"".join(bytes.fromhex(self.digests[graph]) for graph in _GRAPHS)).digest()[:4]


@dataclass(frozen=True)
class Bundle:
    """A model: its card and its two serialized graphs, whose digests have been checked."""

    card: Card
    encoder: bytes
    decoder: bytes


def list_models() -> list[str]:
    """Names of the models that are shipped with the package."""
    return sorted(path.parent.name for path in _SHIPPED.glob("*/card.toml"))


def load(model: str | Path) -> Bundle:
    """Open a shipped model by name, or a bundle by the path of its folder or zip; BundleError says what is wrong."""
    read = _opener(model)
    card = _parse_card(read("card.toml"), str(model))
    graphs = {}
    for graph in _GRAPHS:
        graphs[graph] = read(f"{graph}.onnx")
        if hashlib.sha256(graphs[graph]).hexdigest() != card.digests[graph]:
            raise BundleError(f"{model}: {graph}.onnx is not the graph that its card describes; export or copy the model again")
    return Bundle(card, graphs["encoder"], graphs["decoder"])


def read_card(model: str | Path) -> Card:
    """The card alone, without reading the graphs."""
    return _parse_card(_opener(model)("card.toml"), str(model))


def write_bundle(folder: Path, encoder: bytes, decoder: bytes, card: Mapping[str, Any]) -> None:
    """Write a bundle's folder; `card` is the card's table less `graphs`, which is filled in here."""
    graphs = {"encoder": encoder, "decoder": decoder}
    described = {name: {"file": f"{name}.onnx", "sha256": hashlib.sha256(data).hexdigest()} for name, data in graphs.items()}
    text = to_toml({**card, "graphs": described})
    _parse_card(text.encode(), str(folder))
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in graphs.items():
        (folder / f"{name}.onnx").write_bytes(data)
    (folder / "card.toml").write_text(text, encoding="utf-8")


def _opener(model: str | Path) -> Callable[[str], bytes]:
    """A function that reads one file of the bundle."""
    path = Path(model)
    if not path.exists() and str(model) in list_models():
        path = _SHIPPED / str(model)
    if not path.exists():
        raise BundleError(
            f"no model {str(model)!r}: name a bundle's path or one of {', '.join(list_models()) or 'none shipped'}"
        )
    if path.is_file() and not zipfile.is_zipfile(path):
        raise BundleError(f"{path} is not a bundle: a bundle is a folder or a zip with card.toml and two graphs")

    def read(name: str) -> bytes:
        try:
            if path.is_dir():
                return (path / name).read_bytes()
            with zipfile.ZipFile(path) as archive:
                return archive.read(name)
        except (FileNotFoundError, KeyError, zipfile.BadZipFile) as error:
            raise BundleError(f"{path} is not a bundle, or an incomplete one: it has no readable {name}") from error

    return read


def _parse_card(data: bytes, where: str) -> Card:
    try:
        table = tomllib.loads(data.decode("utf-8"))
        if table.get("format") != 1:
            raise BundleError(f"{where}: its card has format {table.get('format')!r}; this version of linnet reads format 1")
        return Card(
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
        )
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, KeyError, TypeError, ValueError) as error:
        raise BundleError(f"{where}: its card.toml cannot be read ({error})") from error


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
