"""Recipes, checkpoints and the loop, on a corpus of synthetic voices that fits in a second of work."""

import csv
import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import torch.distributed as dist
import torch.multiprocessing
from click.testing import CliRunner
from safetensors import safe_open
from safetensors.torch import save_file

from linnet.evaluate.sets import SetError
from linnet.lab.cli import slim_checkpoint, train
from linnet.lab.data.corpus import load_audio, pack, read_manifest
from linnet.lab.data.crops import CropConfig, CropSampler
from linnet.lab.data.degrade import DegradeConfig
from linnet.lab.dsp.pitch import PitchLabels
from linnet.lab.losses.adversarial import DiscriminatorConfig
from linnet.lab.systems.base import Example
from linnet.lab.systems.codec import Codec
from linnet.lab.systems.dual_branch import DualBranchConfig
from linnet.lab.systems.lrac import LracConfig
from linnet.lab.systems.phoenix import PhoenixConfig
from linnet.lab.systems.pure import PureConfig
from linnet.lab.systems.remix import RemixConfig
from linnet.lab.systems.source_filter import SourceFilterConfig
from linnet.lab.train.checkpoint import load_checkpoint
from linnet.lab.train.loop import Data, Trainer
from linnet.lab.train.recipe import Recipe, Stage, load_recipe

LABELS = PitchLabels(192, 192 - 240)
SIZES = {
    "latent_dim": 16,
    "encoder_channels": 16,
    "encoder_hidden": 16,
    "encoder_blocks": 1,
    "decoder_channels": 16,
    "decoder_hidden": 16,
    "decoder_blocks": 2,
}
SMALL = SourceFilterConfig(**SIZES)
CROPS = CropConfig(frames=12)


def voice(seconds, pitch, rate=16000):
    time = np.arange(int(seconds * rate)) / rate
    rng = np.random.default_rng(int(pitch))
    phase = 2 * np.pi * np.cumsum(pitch * (1 + 0.1 * np.sin(2 * np.pi * 2 * time))) / rate
    tone = sum(np.sin(k * phase) / k for k in range(1, 12))
    return 0.1 * tone * (np.sin(2 * np.pi * 1.5 * time) > -0.3) + 0.005 * rng.standard_normal(len(time))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    rows = []
    for number, (pitch, rate, split) in enumerate([(110, 16000, "train"), (220, 24000, "train"), (160, 16000, "valid")]):
        soundfile.write(folder / f"{number}.flac", voice(2.5, pitch, rate), rate)
        rows.append({"path": f"{number}.flac", "kind": "speech", "split": split})
    with (folder / "manifest.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return folder


@pytest.fixture(scope="module")
def packed(corpus, tmp_path_factory):
    cache = tmp_path_factory.mktemp("cache")
    return pack(corpus, "speech", "train", cache, sample_rate=16000, labels=LABELS, jobs=1)


def recipe(batch=2):
    stages = (
        Stage("tracker", 2, ("tracker",), {"pitch": 1.0}, batch=batch, crops=CROPS, pitch="labelled"),
        Stage("autoencoder", 3, ("encoder", "decoder"), {"mel": 15.0}, "noise", batch=batch, crops=CROPS),
        Stage(
            "joint", 3, ("encoder", "quantizer", "decoder"), {"mel": 15.0, "latent": 1.0, "commitment": 1.0}, "quantized",
            batch=batch, crops=CROPS,
        ),
        Stage(
            "adversarial", 3, ("decoder",), {"mel": 15.0, "adversarial": 1.0, "feature_matching": 1.0}, "quantized",
            batch=batch, crops=CROPS, discriminator_warmup_steps=1,
        ),
    )  # fmt: skip
    return Recipe("small", stages, SMALL, DiscriminatorConfig((64,), (128,), channels=2, depth=2))


# A second voice, for want of noise.
DEGRADED = CropConfig(frames=12, noise_probability=0.0, degrade=DegradeConfig(babble_probability=1.0))


def pure_recipe():
    sizes = {"channels": 16, "hidden": 16, "blocks": 2, "guide_channels": 16, "guide_hidden": 16, "latent_dim": 12}
    system = PureConfig(**sizes, guide_blocks=1, bits=6, n_layers=3, code_dim=8)
    common = {"batch": 3, "crops": DEGRADED}
    aimed = {"bottleneck": "quantized", "enhancement_probability": 0.5, **common}
    learned = {"mel": 15.0, "l1": 1.0, "latent": 1.0, "enhancement": 1.0}
    rivals = {"adversarial": 1.0, "feature_matching": 1.0}
    stages = (
        Stage("variational", 3, ("encoder", "decoder"), {"l1": 1.0, "mel": 15.0, "kl": 0.1}, "variational", **common),
        Stage("streams", 2, ("guide", "quantizer"), {"latent": 1.0, "enhancement": 1.0}, **aimed),
        Stage("adversarial", 2, ("guide", "quantizer", "decoder"), learned | rivals, **aimed),
        Stage("unfrozen", 2, ("encoder", "quantizer", "decoder"), {"mel": 15.0, "latent": 1.0, "commitment": 1.0}, **aimed),
    )
    return Recipe("pure", stages, system, DiscriminatorConfig((64,), (128,), channels=2, depth=2))


def dual_branch_recipe():
    sizes = {"channels": 16, "hidden": 16, "encoder_blocks": 1, "decoder_blocks": 2, "transformer_layers": 1, "latent_dim": 12}
    system = DualBranchConfig(**sizes, heads=2, span=5, bits=6, speech_layers=2, noise_layers=2, code_dim=8)
    common = {"batch": 3, "crops": DEGRADED}
    quantizers = {"latent": 1.0, "commitment": 1.0}
    known = {"speech/si_sdr": 0.3, "speech/mel": 15.0, "speech/adversarial": 1.0}
    mixture = {"mixture/si_sdr": 0.3, "mixture/mel": 15.0, "mixture/adversarial": 1.0, "mix": 1.0}
    unknown = {"speech/adversarial": 1.0, "noise/adversarial": 1.0, **mixture}
    speech, both = ("encoder", "speech", "quantizer", "decoder"), ("encoder", "speech", "noise", "quantizer", "decoder")
    stages = (
        Stage("continuous", 2, ("encoder", "speech", "decoder"), {"speech/si_sdr": 0.3}, "continuous", **common),
        Stage("speech", 2, speech, known | quantizers, "quantized", discriminator_warmup_steps=1, **common),
        Stage("both", 2, both, known | unknown | quantizers, "quantized", **common),
        Stage("unsupervised", 2, both, unknown | quantizers, "quantized", paired=False, **common),
    )
    return Recipe("dual", stages, system, DiscriminatorConfig((64,), (128,), channels=2, depth=2))


def remix_recipe():
    system = RemixConfig(**SIZES, branch_channels=16, branch_hidden=16, branch_blocks=1)
    common = {"bottleneck": "quantized", "batch": 3, "crops": DEGRADED}
    everything = ("encoder", "speech", "noise", "quantizer", "decoder")
    heard = {"speech/mel": 15.0, "noise/mel": 15.0, "mixture/mel": 15.0}
    stages = (
        Stage("branches", 2, ("speech", "noise"), {"enhancement": 1.0}, **common | {"bottleneck": "none"}),
        Stage("all", 2, everything, heard | {"latent": 1.0, "commitment": 1.0}, **common),
    )
    return Recipe("remix", stages, system)


@pytest.mark.parametrize("make", [pure_recipe, dual_branch_recipe, remix_recipe])
def test_every_stage_of_the_published_systems_trains_what_it_says(make, packed, tmp_path):
    plan = make()
    (tmp_path / "alone").mkdir()
    trainer = Trainer(plan, Data(packed, None), tmp_path / "alone")
    before = {name: tensor.clone() for name, tensor in trainer.codec.state_dict().items()}
    steps = iter(trainer.run(1.0))
    for stage in plan.stages:
        metrics = [next(steps) for _ in range(stage.steps)][-1]
        assert set(stage.losses) <= metrics.keys()
        assert all(np.isfinite(value) for value in metrics.values())
        after = {name: tensor.clone() for name, tensor in trainer.codec.state_dict().items()}
        changed = {name.split(".")[0] for name, tensor in after.items() if not torch.equal(before[name], tensor)} - {"power"}
        assert changed == set(stage.trains)
        before = after


def test_a_loss_of_no_output_is_refused():
    stage = Stage("s", 1, ("encoder",), {"mel": 1.0}, "continuous")
    with pytest.raises(ValueError, match="of this system is speech/mel, noise/mel, mixture/mel"):
        Recipe("r", (stage,), DualBranchConfig())
    with pytest.raises(ValueError, match="loss 'speech/mel' of this system is mel"):
        Recipe("r", (Stage("s", 1, ("encoder",), {"speech/mel": 1.0}, "noise"),))
    with pytest.raises(ValueError, match="cannot be matched"):
        Stage("s", 1, ("encoder",), {"speech/feature_matching": 1.0}, "quantized", paired=False)


def test_packing_keeps_every_recording_and_its_pitch(packed):
    assert len(packed) == 2
    assert abs(len(packed.samples(1)) - 40000) < 10
    for index, pitch in enumerate((110, 220)):
        labels = packed.pitch_of(index)
        assert len(labels) == -(-len(packed.samples(index)) // 192)
        assert abs(np.median(labels[labels > 0]) / pitch - 1) < 0.1


def test_a_folder_without_manifest_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"manifest\.csv"):
        pack(tmp_path, "speech", "train", tmp_path, sample_rate=16000, labels=LABELS)


def test_a_recording_that_was_replaced_is_packed_anew(tmp_path):
    (tmp_path / "manifest.csv").write_text("path,kind,split\na.wav,noise,train\n")
    for length, value in ((16000, 0.5), (8000, -0.25)):
        soundfile.write(tmp_path / "a.wav", np.full(length, value), 16000)
        packed = pack(tmp_path, "noise", "train", tmp_path / "cache", sample_rate=16000, labels=LABELS, jobs=1)
        np.testing.assert_allclose(packed.samples(0), np.full(length, value), atol=1e-4)


def test_what_a_training_has_mapped_stays_when_another_packs_the_same(tmp_path):
    (tmp_path / "manifest.csv").write_text("path,kind,split\na.wav,noise,train\n")
    soundfile.write(tmp_path / "a.wav", np.full(16000, 0.5), 16000)
    inodes = []
    for _ in range(2):
        packed = pack(tmp_path, "noise", "train", tmp_path / "cache", sample_rate=16000, labels=LABELS, jobs=1)
        file = Path(packed.audio.filename)
        inodes.append(file.stat().st_ino)
        (file.parent / "done").unlink()  # as if the next had begun before this one was done
    assert inodes[0] != inodes[1]


def test_pitch_follows_a_change_of_speed(packed):
    config = CropConfig(frames=60, speed=(1.18, 1.18001), speed_probability=1.0, noise_probability=0.0)
    batch = CropSampler(packed, None, config, 192, LABELS.offset, seed=0).batch(8, step=0)
    medians = [np.median(pitch[pitch > 0]) for pitch in batch.pitch_hz]
    assert all(min(abs(m / 110 / 1.18 - 1), abs(m / 220 / 1.18 - 1)) < 0.12 for m in medians)
    assert batch.samples.shape == (8, 60 * 192)
    assert np.abs(batch.samples).max() <= 1


def test_the_same_step_draws_the_same_batch(packed):
    first, second = (CropSampler(packed, None, CROPS, 192, LABELS.offset, seed=3) for _ in range(2))
    first.batch(2, step=0)
    np.testing.assert_array_equal(first.batch(2, step=7).samples, second.batch(2, step=7).samples)
    assert not np.array_equal(first.batch(2, step=7).samples, first.batch(2, step=8).samples)
    whole = first.batch(5, step=7).samples
    for rank in range(3):
        np.testing.assert_array_equal(first.batch(5, step=7, rank=rank, world=3).samples, whole[rank::3])


def test_a_resumed_run_goes_on_as_if_it_had_never_stopped(packed, tmp_path):
    data = Data(packed, None)
    (tmp_path / "whole").mkdir()
    (tmp_path / "parts").mkdir()
    list(Trainer(recipe(), data, tmp_path / "whole", workers=1).run(1.0))
    last = tmp_path / "parts" / "last.safetensors"
    sessions = 0
    # A budget of no hours ends each session after one step.
    while sessions == 0 or load_checkpoint(last).progress.stage < 4:
        list(Trainer(recipe(), data, tmp_path / "parts", resume=last if sessions else None).run(0.0))
        sessions += 1
    assert sessions >= 11
    whole, parts = load_checkpoint(tmp_path / "whole" / "last.safetensors"), load_checkpoint(last)
    assert whole.recipe == parts.recipe == recipe()
    for name, tensor in whole.weights.items():
        torch.testing.assert_close(parts.weights[name], tensor, msg=name)
    for name, tensor in whole.average.items():
        torch.testing.assert_close(parts.average[name], tensor, msg=name)
    assert whole.discriminators
    for name, tensor in whole.discriminators.items():
        torch.testing.assert_close(parts.discriminators[name], tensor, msg=name)


@pytest.mark.parametrize("system", [LracConfig(track=1), LracConfig(track=2), PhoenixConfig()], ids=str)
def test_published_systems_train(corpus, system, tmp_path):
    """Every part learns, the quantizer from the first step on, with discriminators and without."""
    packed = pack(corpus, "speech", "train", tmp_path, sample_rate=system.sample_rate, labels=system.labels, jobs=1)
    losses = {"mel": 15.0, "latent": 1.0, "commitment": 1.0}
    adversarial = {**losses, "adversarial": 1.0, "feature_matching": 1.0}
    stages = tuple(
        Stage(name, 2, ("encoder", "quantizer", "decoder"), weights, "quantized", batch=2, crops=CROPS)
        for name, weights in (("calibrate", losses), ("refine", adversarial))
    )
    plan = Recipe("small", stages, system, DiscriminatorConfig((64,), (), channels=2, depth=2))
    trainer = Trainer(plan, Data(packed, None), tmp_path)
    before = {name: value.detach().clone() for name, value in trainer.codec.named_parameters()}
    steps = list(trainer.run(1.0))
    assert all(np.isfinite(value) for step in steps for value in step.values())
    assert "adversarial" in steps[-1]
    still = [name for name, value in trainer.codec.named_parameters() if torch.equal(value, before[name])]
    assert not still


def test_another_system_under_old_weights_is_refused(packed, tmp_path):
    trainer = Trainer(recipe(), Data(packed, None), tmp_path)
    trainer.save()
    other = dataclasses.replace(recipe(), system=dataclasses.replace(SMALL, latent_dim=20))
    with pytest.raises(ValueError, match="differs"):
        Trainer(other, Data(packed, None), tmp_path, resume=tmp_path / "last.safetensors")


def test_a_file_that_is_no_checkpoint_is_refused(tmp_path):
    path = tmp_path / "notes.safetensors"
    path.write_text("not a checkpoint")
    with pytest.raises(ValueError, match="not a checkpoint"):
        load_checkpoint(path)


def test_a_checkpoint_of_another_version_is_refused(packed, tmp_path):
    trainer = Trainer(recipe(), Data(packed, None), tmp_path)
    trainer.save()
    path = tmp_path / "last.safetensors"
    with safe_open(path, "pt") as file:
        metadata, tensors = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    first = next(name for name in tensors if name.startswith("weights/"))
    for change in ({"progress": "3"}, {"progress": '{"steps": 1}'}, {"recipe": '{"name": "x"}'}, {"recipe": "xx"}):
        save_file(tensors, path, {**metadata, **change})
        with pytest.raises(ValueError, match=r"last\.safetensors"):
            load_checkpoint(path)
    save_file({**tensors, "other/x": torch.zeros(1)}, path, metadata)
    with pytest.raises(ValueError, match=r"last\.safetensors.*'other'"):
        load_checkpoint(path)
    save_file({**tensors, first: torch.zeros(7, 7)}, path, metadata)
    with pytest.raises(ValueError, match="another version or size: size mismatch"):
        Trainer(recipe(), Data(packed, None), tmp_path, resume=path)


@pytest.mark.parametrize("change", [{"steps": 0}, {"batch": -1}, {"crops": CropConfig(frames=0)}])
def test_stages_without_steps_clips_or_frames_are_refused(change):
    with pytest.raises(ValueError, match="at least 1"):
        dataclasses.replace(recipe().stages[0], **change)


def test_an_unknown_key_names_the_nearest(tmp_path):
    path = tmp_path / "r.toml"
    path.write_text('name = "x"\n[[stages]]\nname = "a"\nsteps = 1\ntrains = ["encoder"]\nlosses = {}\nlearning_rat = 1.0\n')
    with pytest.raises(ValueError, match="'learning_rat'; did you mean 'learning_rate'"):
        load_recipe(path)
    path.write_text('name = "x"\n[[stages]]\nname = "a"\nsteps = "many"\ntrains = ["encoder"]\nlosses = {}\n')
    with pytest.raises(ValueError, match="expected int"):
        load_recipe(path)
    path.write_text('name = "x"\n[[stages]]\nname = "a"\nsteps = 1\ntrains = ["encoder"]\nlosses = { loudnes = 1.0 }\n')
    with pytest.raises(ValueError, match="unknown loss 'loudnes'; did you mean 'loudness'"):
        load_recipe(path)


def test_crops_are_said_once_and_replaced_by_a_stage(tmp_path):
    path = tmp_path / "r.toml"
    stage = '[[stages]]\nname = "a"\nsteps = 1\ntrains = ["encoder"]\nlosses = {}\n'
    own = "crops = { frames = 128, degrade = { clip_probability = 0.2 } }\n"
    shared = "[crops]\nframes = 96\nspeed_probability = 0.0\n[crops.degrade]\nroom_probability = 0.5\n"
    path.write_text(f'name = "x"\n{shared}{stage}{stage}{own}')
    first, second = (stage.crops for stage in load_recipe(path).stages)
    assert (first.frames, first.speed_probability, first.degrade.room_probability) == (96, 0.0, 0.5)
    assert (second.frames, second.speed_probability) == (128, 0.0)
    assert (second.degrade.clip_probability, second.degrade.room_probability) == (0.2, 0.0)
    path.write_text(f'name = "x"\n[crops]\nframe = 96\n{stage}')
    with pytest.raises(ValueError, match="'frame'; did you mean 'frames'"):
        load_recipe(path)
    path.write_text(f'name = "x"\ncrops = 3\n{stage}')
    with pytest.raises(ValueError, match="crops: expected CropConfig"):
        load_recipe(path)


NONE = [b"no toml", b"\xff\xfe", b'name = "x"\nstages = []\n', b'name = "x"\nstages = 3\n', b'name = "x"\n']


@pytest.mark.parametrize("text", NONE)
def test_a_recipe_that_is_none_is_refused(tmp_path, text):
    (tmp_path / "r.toml").write_bytes(text)
    with pytest.raises(ValueError, match=r"r\.toml|no stages"):
        load_recipe(tmp_path / "r.toml")


def test_a_corpus_with_a_recording_that_is_none_is_refused(tmp_path):
    (tmp_path / "text.wav").write_text("no sound")
    with pytest.raises(ValueError, match=r"text\.wav cannot be read"):
        load_audio(tmp_path / "text.wav", 16000)
    soundfile.write(tmp_path / "nan.wav", np.array([0.0, np.nan]), 16000, subtype="FLOAT")
    with pytest.raises(ValueError, match=r"nan\.wav holds samples"):
        load_audio(tmp_path / "nan.wav", 16000)
    (tmp_path / "manifest.csv").write_bytes(b"\xff\xfe")
    with pytest.raises(SetError, match=r"manifest\.csv is no table"):
        read_manifest(tmp_path)


def test_a_part_or_a_loss_that_the_system_has_not_is_refused(packed, tmp_path):
    stage = recipe().stages[2]
    for lacking, match in (
        (dataclasses.replace(stage, trains=("guide",)), "no guide"),
        (dataclasses.replace(stage, bottleneck="none", losses={"mel": 1.0}), "no loss mel"),
        (dataclasses.replace(stage, losses={"mel": 1.0, "kl": 1.0}), "no loss kl"),
    ):
        plan = Recipe("lacking", (lacking,), SMALL)
        with pytest.raises(ValueError, match=match):
            list(Trainer(plan, Data(packed, None), tmp_path).run(1.0))
    with pytest.raises(ValueError, match="inherits wings"):
        Recipe("r", (stage,), SMALL, teacher="t.safetensors", inherits=("wings",))
    list(Trainer(recipe(batch=1), Data(packed, None), tmp_path).run(0.0))
    larger = dataclasses.replace(SMALL, decoder_channels=24)
    plan = Recipe("larger", (stage,), larger, teacher=str(tmp_path / "last.safetensors"), inherits=("decoder",))
    with pytest.raises(ValueError, match="another version or size: size mismatch"):
        Trainer(plan, Data(packed, None), tmp_path)


def test_a_decoder_without_phase_inherits_one_that_sounds_as_it_did_when_none_arrived(packed, tmp_path):
    phase = {"phase_layers": 2, "phase_channels": 16, "phase_hidden": 16}
    teacher = Recipe("teacher", recipe().stages, SourceFilterConfig(**SIZES, **phase))
    list(Trainer(teacher, Data(packed, None), tmp_path).run(0.0))
    last = str(tmp_path / "last.safetensors")
    student = Trainer(
        dataclasses.replace(remix_recipe(), teacher=last, inherits=("encoder", "decoder")), Data(packed, None), tmp_path
    )
    latent, steps = torch.randn(1, 9, 16), torch.full((1, 9), 20)
    heard = []
    for decoder, arrived in ((student.teacher.decoder, torch.zeros(1, 9, 24)), (student.codec.decoder, None)):
        with torch.no_grad():
            heard.append(decoder(latent, steps, torch.full((1, 9), 4), arrived, decoder.initial_state(1))[0])
    torch.testing.assert_close(*heard)
    deeper = dataclasses.replace(recipe(), system=SourceFilterConfig(**{**SIZES, "encoder_blocks": 2}))
    with pytest.raises(ValueError, match="another version or size"):
        Trainer(dataclasses.replace(deeper, teacher=last, inherits=("encoder",)), Data(packed, None), tmp_path)


def test_codebooks_gather_nothing_in_passes_that_no_update_follows(packed, tmp_path):
    warming = dataclasses.replace(recipe().stages[3], trains=("quantizer", "decoder"), discriminator_warmup_steps=2)
    losses = {**warming.losses, "latent": 1.0}
    plan = Recipe("warming", (dataclasses.replace(warming, losses=losses),), SMALL, recipe().discriminators)
    trainer = Trainer(plan, Data(packed, None), tmp_path)
    steps = iter(trainer.run(1.0))
    for _ in range(2):
        assert "mel" not in next(steps)
        assert not any(book.batch_usage.any() for book in trainer.codec.codebooks())
    assert "mel" in next(steps)


def test_shipped_recipes_load():
    recipes = sorted((Path(__file__).parents[2] / "recipes").rglob("*.toml"))
    assert recipes
    for path in recipes:
        assert load_recipe(path).name == path.stem


def test_the_command_trains_validates_and_resumes(corpus, tmp_path):
    plan = tmp_path / "tiny.toml"
    plan.write_text("""
name = "tiny"
validation_clips = 1
validation_snr_db = [10]
discriminators = { stft_windows = [64], mel_windows = [128], channels = 2, depth = 2 }
[system]
latent_dim = 16
encoder_channels = 16
encoder_hidden = 16
encoder_blocks = 1
decoder_channels = 16
decoder_hidden = 16
decoder_blocks = 2
phase_layers = 2
phase_channels = 16
phase_hidden = 16
[[stages]]
name = "phase"
steps = 2
trains = ["phase", "decoder"]
bottleneck = "quantized"
losses = { mel = 15.0, waveform = 10.0 }
batch = 1
crops = { frames = 12 }
[[stages]]
name = "all"
steps = 23
trains = ["encoder", "quantizer", "phase", "decoder"]
bottleneck = "quantized"
batch = 1
crops = { frames = 36 }
[stages.losses]
mel = 15.0
loudness = 1.0
intelligibility = 1.0
balance = 1.0
waveform = 1.0
latent = 1.0
commitment = 1.0
adversarial = 1.0
feature_matching = 1.0
""")
    options = [str(plan), "--corpus", str(corpus), "--folder", str(tmp_path / "run"), "--cache", str(tmp_path), "--jobs", "1"]
    started = CliRunner().invoke(train, options)
    assert started.exit_code == 0, started.output
    assert "all 23/23" in started.output
    assert (tmp_path / "run" / "spectrogram-0.png").stat().st_size > 1000
    metrics = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    trained = next(line for line in metrics if line["stage"] == "all")
    expected = {"mel", "loudness", "intelligibility", "balance", "waveform", "commitment", "adversarial", "discriminator"}
    assert expected | {"score_real", "phase_error_2", "error_4"} <= trained.keys()
    assert {
        "pesq/unquantized",
        "estoi/6 layers",
        "pesq/noisy",
        "pesq/1 layers, noisy",
        "perplexity/layer 1",
        "perplexity/layer 6",
    } <= metrics[-1].keys()
    last, small = tmp_path / "run" / "last.safetensors", tmp_path / "small.safetensors"
    assert CliRunner().invoke(slim_checkpoint, [str(last), str(small)]).exit_code == 0
    whole, kept = load_checkpoint(last), load_checkpoint(small)
    assert (kept.recipe, kept.progress, kept.average) == (whole.recipe, whole.progress, {})
    torch.testing.assert_close(kept.weights, whole.average, atol=1e-4, rtol=1e-3)
    first = next((tmp_path / "run").glob("stage1-*"))
    assert CliRunner().invoke(slim_checkpoint, [str(first), str(last), str(small)]).exit_code == 0
    both = [load_checkpoint(path).average["decoder.norm.weight"] for path in (first, last)]
    torch.testing.assert_close(load_checkpoint(small).weights["decoder.norm.weight"], sum(both) / 2)
    refused = CliRunner().invoke(slim_checkpoint, [str(first), str(last), str(last)])
    assert "both the input and the output" in str(refused.exception)
    part = [str(first), str(last), str(small), "--part", "encoder"]
    assert CliRunner().invoke(slim_checkpoint, part).exit_code == 0
    torch.testing.assert_close(load_checkpoint(small).weights["decoder.norm.weight"], both[1])
    again = CliRunner().invoke(train, options)
    assert again.exit_code == 2
    assert "--resume" in again.output
    assert CliRunner().invoke(train, [*options, "--resume"]).exit_code == 0


def test_a_student_comes_nearer_to_its_teacher(packed, tmp_path):
    list(Trainer(recipe(batch=1), Data(packed, None), tmp_path).run(0.0))
    student = Stage("student", 40, ("encoder",), {"alignment": 1.0}, "none", batch=4, crops=CROPS, warmup_steps=5)
    system = dataclasses.replace(SMALL, lookahead=1, enhancer_blocks=1, enhancer_channels=16, enhancer_hidden=32)
    plan = Recipe(
        "s", (student,), system, teacher=str(tmp_path / "last.safetensors"), inherits=("decoder", "quantizer"), bfloat16=False
    )
    trainer = Trainer(plan, Data(packed, None), tmp_path)
    assert trainer.teacher is not None
    torch.testing.assert_close(trainer.codec.decoder.state_dict(), trainer.teacher.decoder.state_dict())
    losses = [step["alignment"] for step in trainer.run(1.0)]
    assert np.mean(losses[-5:]) < 0.8 * np.mean(losses[:5])
    with pytest.raises(ValueError, match="names none"):
        Recipe("s", (student,), system)


def test_a_tracker_learns_pitch_from_its_teacher(packed, tmp_path):
    list(Trainer(recipe(batch=1), Data(packed, None), tmp_path).run(0.0))
    common = {"batch": 3, "crops": DEGRADED, "warmup_steps": 2, "learning_rate": 1e-2}
    taught = Stage("tracker", 30, ("tracker",), {"pitch": 1.0}, pitch="taught", **common)
    sizes = {"enhancer_blocks": 1, "enhancer_channels": 16, "enhancer_hidden": 32}
    system = dataclasses.replace(SMALL, lookahead=1, tracker_channels=24, tracker_enhanced=True, **sizes)
    teacher = tmp_path / "last.safetensors"
    trainer = Trainer(Recipe("t", (taught,), system, teacher=str(teacher)), Data(packed, None), tmp_path)
    losses = [step["pitch"] for step in trainer.run(1.0)]
    assert np.mean(losses[-5:]) < 0.8 * np.mean(losses[:5])
    samples = torch.zeros(1, 4 * SMALL.hop)
    example = Example(samples, samples, torch.full((1, 4), 100.0))
    assert isinstance(trainer.teacher, Codec)
    trainer.teacher.pitch_hz = lambda _: torch.tensor([[200.0, 0.0, 300.0, 400.0]])
    # As late as everything that is coded.
    assert trainer._taught(example).pitch_hz.tolist() == [[0.0, 200.0, 0.0, 300.0]]
    with pytest.raises(ValueError, match="names none"):
        Recipe("t", (taught,), system)
    with pytest.raises(ValueError, match="needs an enhancer"):
        dataclasses.replace(SMALL, tracker_enhanced=True)
    with pytest.raises(ValueError, match="a window of"):
        dataclasses.replace(system, window=576)
    (tmp_path / "pure").mkdir()
    list(Trainer(pure_recipe(), Data(packed, None), tmp_path / "pure").run(0.0))
    other_frames = dataclasses.replace(system, hop=160)
    for folder, student, match in (("pure", system, "tracks no pitch"), (".", other_frames, "other frames")):
        plan = Recipe("t", (taught,), student, teacher=str(tmp_path / folder / "last.safetensors"))
        with pytest.raises(ValueError, match=match):
            Trainer(plan, Data(packed, None), tmp_path)


def _train_in_two(rank, plan, folder, packed):
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    list(Trainer(plan, Data(packed, None), folder, resume=folder / "last.safetensors").run(1.0))
    dist.destroy_process_group()


@pytest.mark.parametrize(
    ("make", "stages", "steps_alone"),
    [
        (lambda: recipe(batch=3), slice(0, 2), 1),
        (lambda: recipe(batch=3), slice(0, 4), 6),
        (pure_recipe, slice(0, 3), 4),
        (dual_branch_recipe, slice(0, 4), 5),
        (remix_recipe, slice(0, 2), 3),
    ],
    ids=["first stages", "all stages", "pure", "dual branch", "remix"],
)
def test_two_processes_go_on_as_one_would_have(packed, tmp_path, make, stages, steps_alone):
    """With a batch of 3 that does not divide by 2; alone through the fit of the codebooks, which no rounding survives."""
    plan, data, last = make(), Data(packed, None), tmp_path / "last.safetensors"
    plan = dataclasses.replace(plan, stages=plan.stages[stages], bfloat16=False)
    for step in range(steps_alone):
        list(Trainer(plan, data, tmp_path, resume=last if step else None).run(0.0))
    together = tmp_path / "together"
    together.mkdir()
    shutil.copy(last, together)
    list(Trainer(plan, data, tmp_path, resume=last).run(1.0))
    torch.multiprocessing.spawn(_train_in_two, (plan, together, packed), nprocs=2)
    one, two = load_checkpoint(last), load_checkpoint(together / "last.safetensors")
    assert one.progress.stage == two.progress.stage == len(plan.stages)
    assert one.progress.audio_seconds == pytest.approx(two.progress.audio_seconds)
    for group in ("weights", "average", "discriminators"):
        for name, tensor in getattr(one, group).items():
            near = torch.isclose(getattr(two, group)[name], tensor, rtol=0.02, atol=1e-3).float().mean()
            # Sums in another order may send a frame to a neighbouring entry.
            assert near > (0.9 if name.startswith("quantizer") else 0.999), f"{group} {name}: {near:.4f} alike"
