import errno
import shutil
import tomllib
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import linnet
from linnet import bundle
from linnet.bits.fit import fit_tables
from linnet.bundle import BundleError

CLEAR = bundle._SHIPPED / "clear"


def test_a_folder_a_zip_and_a_name_are_the_same_bundle(tmp_path):
    archive = tmp_path / "clear.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for path in CLEAR.iterdir():
            file.write(path, path.name)
    opened = [bundle.load(model) for model in ("clear", CLEAR, archive)]
    assert opened[0] == opened[1] == opened[2]
    assert len(opened[0].card.model_id) == 4
    assert "clear" in bundle.list_models()


def test_a_folder_of_a_models_name_hides_it_only_if_it_is_a_bundle(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("clear").mkdir()
    assert bundle.read_card("clear").name == "clear"
    shutil.copytree(bundle._SHIPPED / "quiet", "clear", dirs_exist_ok=True)
    assert bundle.read_card("clear").name == "quiet"
    assert bundle.shipped(bundle.read_card(CLEAR).model_id) == "clear"


def test_what_is_written_is_read(tmp_path):
    source = bundle.load("clear")
    table = tomllib.loads((CLEAR / "card.toml").read_text())
    bundle.write_bundle(tmp_path / "copy", source.encoder, source.decoder, table, source.tables)
    assert bundle.load(tmp_path / "copy") == source


def test_a_bundle_that_cannot_be_written_leaves_the_old_one(tmp_path, monkeypatch):
    source = bundle.load("clear")
    table = tomllib.loads((CLEAR / "card.toml").read_text())
    bundle.write_bundle(tmp_path, source.encoder, source.decoder, table, source.tables)
    write = Path.write_bytes

    def full(self, data):
        if data == b"other":
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(self, data)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space"):
        bundle.write_bundle(tmp_path, source.decoder, b"other", table)
    assert bundle.load(tmp_path) == source
    assert len(list(tmp_path.iterdir())) == 4


def test_tables_come_and_go(tmp_path):
    source = bundle.load("clear")
    table, folder = tomllib.loads((CLEAR / "card.toml").read_text()), tmp_path / "model"
    bundle.write_bundle(folder, source.encoder, source.decoder, table)
    plain = bundle.load(folder)
    assert (plain.tables, plain.coder, plain.card.coded_id) == (None, None, None)
    assert plain.models == {plain.card.model_id: plain.card.layout}
    recording = np.random.default_rng(0).integers(0, 4096, (20, plain.card.layout.n_codes))
    tables = fit_tables([recording], plain.card.layout).to_bytes()
    bundle.add_tables(folder, tables, {"split": "train"})
    coded = bundle.load(folder)
    assert coded.tables == tables
    assert coded.card.entropy["split"] == "train"
    assert coded.card.model_id == plain.card.model_id != coded.card.coded_id
    assert coded.coder.model_id == coded.card.coded_id
    assert set(coded.models) == set(coded.card.layouts) == {coded.card.model_id, coded.card.coded_id}
    mangled = bytearray(tables)
    mangled[1000] ^= 1
    (folder / "entropy.bin").write_bytes(mangled)
    with pytest.raises(BundleError, match=r"entropy\.bin is not what its card"):
        bundle.load(folder)
    (folder / "entropy.bin").unlink()
    with pytest.raises(BundleError, match=r"no readable entropy\.bin"):
        bundle.load(folder)
    bundle.add_tables(folder, tables, {})
    bundle.write_bundle(folder, source.encoder, source.decoder, table)  # other graphs, perhaps
    assert bundle.load(folder) == plain
    assert not (folder / "entropy.bin").exists()


def test_a_zip_takes_no_tables(tmp_path):
    with zipfile.ZipFile(tmp_path / "clear.zip", "w") as file:
        file.write(CLEAR / "card.toml", "card.toml")
    with pytest.raises(BundleError, match="unpack"):
        bundle.add_tables(tmp_path / "clear.zip", b"", {})


def copy(tmp_path):
    return shutil.copytree(CLEAR, tmp_path / "model")


def test_damage_is_named(tmp_path):
    folder = copy(tmp_path)
    graph = bytearray((folder / "decoder.onnx").read_bytes())
    graph[1000] ^= 1
    (folder / "decoder.onnx").write_bytes(graph)
    with pytest.raises(BundleError, match=r"decoder\.onnx is not the graph"):
        bundle.load(folder)


@pytest.mark.parametrize(
    ("text", "message"),
    [("format = 1", "format 1.*export"), ("format = 2", "cannot be read"), ("nonsense", "cannot be read"), ("", "format None")],
)
def test_a_strange_card_is_refused(tmp_path, text, message):
    folder = copy(tmp_path)
    (folder / "card.toml").write_text(text)
    with pytest.raises(BundleError, match=message):
        bundle.load(folder)


@pytest.mark.parametrize(("key", "value"), [("hop", 0), ("sample_rate", 0), ("delay", -1), ("columns", 3)])
def test_a_card_that_cannot_be_is_refused(tmp_path, key, value):
    folder = copy(tmp_path)
    card = tomllib.loads((folder / "card.toml").read_text())
    (folder / "card.toml").write_text(bundle.to_toml({**card, key: value}))
    with pytest.raises(BundleError, match="cannot be read"):
        bundle.read_card(folder)


@pytest.mark.parametrize(
    ("line", "instead"),
    [
        ("hop = 192", "hop = inf"),
        ("hop = 192", "hop = " + 4000 * "9"),
        ("hop = 192", "hop = " + 3000 * "["),
        ("latency_ms = 30.0", "latency_ms = " + 400 * "9"),
        ("format = 2", "format = '" + 4000 * "1" + "'"),
    ],
)
def test_a_card_of_wild_values_is_one_short_line(tmp_path, line, instead):
    """Found by fuzzing."""
    folder = copy(tmp_path)
    text = (folder / "card.toml").read_text()
    assert line in text
    (folder / "card.toml").write_text(text.replace(line, instead))
    with pytest.raises(BundleError) as refused:
        bundle.read_card(folder)
    assert len(str(refused.value)) < 300 + len(str(folder))
    assert "\n" not in str(refused.value)


ENTRY = -77  # from the end of a zip of card.toml alone: what its directory says of it
LOCATOR = -42  # where zips of more than 4 GiB say on how many disks they are


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (ENTRY + 8, b"\x20"),  # it is a patch of another file
        (ENTRY + 8, b"\x01"),  # it is encrypted
        (ENTRY + 9, b"\x08\0\0" + 16 * b"\0" + b"\x09\0" + 16 * b"\0" + b"\xc9"),  # a name in UTF-8 that is none
        (ENTRY + 10, b"\x63"),  # a method that nobody knows
        (ENTRY + 10, b"\x0e"),  # LZMA, which may ask for gigabytes
        (ENTRY + 20, b"\xff\xff\xff\x7f"),  # 2 GiB that are not there
        (LOCATOR, b"PK\6\7" + 12 * b"\0" + b"\2"),
    ],
)
def test_a_strange_zip_is_refused(tmp_path, place, value):
    """Found by fuzzing: zipfile raises all kinds of errors, and takes the memory that it is told to."""
    archive = tmp_path / "model.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.write(CLEAR / "card.toml", "card.toml")
    data = bytearray(archive.read_bytes())
    data[len(data) + place : len(data) + place + len(value)] = value
    archive.write_bytes(data)
    with pytest.raises(BundleError, match=r"card\.toml"):
        bundle.read_card(archive)


def test_a_graph_that_is_none_is_refused(tmp_path):
    source = bundle.load("clear")
    card = tomllib.loads((CLEAR / "card.toml").read_text())
    bundle.write_bundle(tmp_path / "garbage", b"garbage", source.decoder, card)
    with pytest.raises(BundleError, match="cannot be loaded"):
        linnet.load(tmp_path / "garbage")
    bundle.write_bundle(tmp_path / "other", source.decoder, source.decoder, card)
    with pytest.raises(BundleError, match="does not run"):
        linnet.load(tmp_path / "other").encode_codes(np.zeros(4000), 16000)


def test_what_is_no_bundle_is_refused(tmp_path):
    with pytest.raises(BundleError, match="clear"):
        bundle.load("nosuchmodel")
    with pytest.raises(BundleError, match="incomplete"):
        bundle.load(tmp_path)
    (tmp_path / "file").write_text("text")
    with pytest.raises(BundleError, match="not a bundle"):
        bundle.load(tmp_path / "file")


texts = st.text(st.characters(codec="utf-8"))
plain = st.one_of(texts, st.integers(-(2**63), 2**63 - 1), st.booleans(), st.floats(allow_nan=False))
keys = st.text(st.characters(codec="utf-8"), min_size=1, max_size=8)
flat = st.dictionaries(keys, plain | st.lists(plain, max_size=3), max_size=4)
tables = st.recursive(
    flat, lambda inner: st.dictionaries(keys, inner | st.lists(inner, min_size=1, max_size=2), max_size=3), max_leaves=6
)


@given(tables)
def test_toml_reads_back(table):
    assert tomllib.loads(bundle.to_toml(table)) == table
