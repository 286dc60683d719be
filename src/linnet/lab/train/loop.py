"""The training loop: stages, several processes, checkpoints on a time budget, exact resume.

What a step sees depends on the recipe's seed, the stage and the step alone, so a resumed run goes on as if it had never
stopped, with any number of processes: they share each batch, and random numbers and averages are the whole batch's.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from linnet.lab.data.corpus import Packed
from linnet.lab.data.crops import CropSampler
from linnet.lab.losses.adversarial import Discriminators
from linnet.lab.losses.intelligibility import IntelligibilityLoss
from linnet.lab.losses.loudness import LoudnessLoss
from linnet.lab.losses.reconstruction import (
    BalanceLoss,
    CompressedSpectrumLoss,
    L1Loss,
    MultiScaleMelLoss,
    SiSdrLoss,
    WaveformDistance,
)
from linnet.lab.share import Share, gather_batch
from linnet.lab.systems import make_system
from linnet.lab.systems.base import Example, Heard, Passed, System
from linnet.lab.systems.codec import Codec
from linnet.lab.train.checkpoint import (
    Checkpoint,
    Progress,
    load_checkpoint,
    optimiser_tensors,
    restore_optimiser,
    restore_weights,
    save_checkpoint,
)
from linnet.lab.train.recipe import Recipe, Stage, loss_name

T = TypeVar("T")

_REVIVE_EVERY = 50
_FIT_FRAMES, _FIT_BATCHES = 40_000, 200


@dataclass(frozen=True)
class Data:
    """What a run trains on: packed speech and, if there are any, noise and room responses."""

    speech: Packed
    noise: Packed | None
    rooms: Packed | None = None


class _Draws(Dataset):
    """The batch of a step by its number: what is heard, what is wanted, pitch labels."""

    def __init__(self, sampler: CropSampler, size: int, rank: int, world: int):
        self.sampler, self.size, self.rank, self.world = sampler, size, rank, world

    def __getitem__(self, step: int) -> tuple[Tensor, Tensor, Tensor]:
        batch = self.sampler.batch(self.size, step, self.rank, self.world)
        return torch.from_numpy(batch.samples), torch.from_numpy(batch.target), torch.from_numpy(batch.pitch_hz)


class Trainer:
    """One run of a recipe in a folder; every process of a torchrun makes one.

    Crops are drawn by `workers` processes beside it, by itself if there are none: they are the same.
    """

    def __init__(
        self, recipe: Recipe, data: Data, folder: Path, *, resume: Path | None = None, device: str = "cpu", workers: int = 0
    ):
        self.recipe, self.data, self.folder = recipe, data, folder
        self.device, self.workers = torch.device(device), workers
        self.rank = dist.get_rank() if dist.is_initialized() else 0
        self.world = dist.get_world_size() if dist.is_initialized() else 1
        torch.manual_seed(recipe.seed)
        self.codec = make_system(recipe.system).to(self.device)
        rate = recipe.system.sample_rate
        self.reconstruction = {
            "mel": MultiScaleMelLoss(rate).to(self.device),
            "loudness": LoudnessLoss(rate).to(self.device),
            "intelligibility": IntelligibilityLoss(rate).to(self.device),
            "balance": BalanceLoss(rate).to(self.device),
            "compressed": CompressedSpectrumLoss(rate).to(self.device),
            "l1": L1Loss(),
            "si_sdr": SiSdrLoss(),
        }
        self.waveform = WaveformDistance(rate, recipe.system.phase_hz).to(self.device)
        self.progress = Progress()
        self.average = {name: tensor.detach().clone() for name, tensor in self.codec.state_dict().items()}
        # An ensemble for every output.
        self.discriminators = {
            output: Discriminators(recipe.discriminators, rate).to(self.device) for output in self.codec.outputs
        }
        self._optimiser_tensors: dict[str, Tensor] = {}
        self._rival_tensors: dict[str, Tensor] = {}
        self.teacher = load_system(Path(recipe.teacher)).to(self.device) if recipe.teacher else None
        if any(stage.pitch == "taught" for stage in recipe.stages):
            self._check_taught()
        if resume is not None:
            self._restore(load_checkpoint(resume))
        elif self.teacher is not None:
            for part in recipe.inherits:
                restore_weights(_part(self.codec, part), _part(self.teacher, part).state_dict())
            self.average = {name: tensor.detach().clone() for name, tensor in self.codec.state_dict().items()}

    def _restore(self, checkpoint: Checkpoint) -> None:
        # A recipe may be lengthened or re-weighted between sessions, but not the networks under their weights.
        if checkpoint.recipe.system != self.recipe.system:
            raise ValueError("the checkpoint's system differs from the recipe's; start a new run")
        restore_weights(self.codec, checkpoint.weights)
        average = checkpoint.average or checkpoint.weights
        self.average = {name: tensor.to(self.device) for name, tensor in average.items()}
        self.progress = checkpoint.progress
        self._optimiser_tensors = checkpoint.optimiser
        if checkpoint.discriminators and checkpoint.recipe.discriminators == self.recipe.discriminators:
            for output, ensemble in self.discriminators.items():
                names = ensemble.state_dict().keys()
                ensemble.load_state_dict({name: checkpoint.discriminators[loss_name(output, name)] for name in names})
            self._rival_tensors = checkpoint.discriminator_optimiser

    def run(self, hours: float, checkpoint_minutes: float = 5.0) -> Iterator[dict[str, float]]:
        """Train until the recipe ends or `hours` are over; yields the metrics of every step.

        Checkpoints are written every few minutes, at the end of each stage and at the end of the budget.
        """
        start = saved = time.monotonic()
        hours_before = self.progress.hours
        while self.progress.stage < len(self.recipe.stages):
            stage = self.recipe.stages[self.progress.stage]
            for metrics in self._stage(stage):
                now = time.monotonic()
                self.progress = dataclasses.replace(self.progress, hours=hours_before + (now - start) / 3600)
                yield metrics
                over = self._agree(now - start > hours * 3600)
                if over or self._agree(now - saved > checkpoint_minutes * 60):
                    self.save()
                    saved = now
                if over:
                    return
            self._optimiser_tensors = {}
            self.optimiser = None
            self.progress = dataclasses.replace(self.progress, stage=self.progress.stage + 1, step=0)
            self.save(f"stage{self.progress.stage}-{stage.name}")

    def save(self, name: str = "last") -> None:
        """Write `name.safetensors` and, under another name, `last.safetensors` too."""
        if self.rank == 0:
            tensors = dict(self._optimiser_tensors)
            if self.optimiser is not None:
                tensors = optimiser_tensors(self.optimiser, self.names)
            if self.rival_optimiser is not None:
                self._rival_tensors = optimiser_tensors(self.rival_optimiser, self.rival_names)
            rivals = self._of_discriminators(lambda ensemble: ensemble.state_dict()) if self._rival_tensors else {}
            checkpoint = Checkpoint(
                self.recipe, self.progress, self.codec.state_dict(), self.average, tensors, rivals, self._rival_tensors
            )
            for stem in {name, "last"}:
                save_checkpoint(self.folder / f"{stem}.safetensors", checkpoint)

    optimiser: torch.optim.AdamW | None = None
    names: list[str]
    # The discriminators' own, from the first adversarial stage on.
    rival_optimiser: torch.optim.AdamW | None = None
    rival_names: list[str]

    def _stage(self, stage: Stage) -> Iterator[dict[str, float]]:
        recipe, system = self.recipe, self.recipe.system
        sampler = CropSampler(
            self.data.speech, self.data.noise, stage.crops, system.hop, system.labels.offset,
            recipe.seed * 1000 + self.progress.stage, self.data.rooms, self.codec.lookahead,
        )  # fmt: skip
        parameters = self._learning(stage)
        self.names = list(parameters)
        self.optimiser = torch.optim.AdamW(
            parameters.values(), stage.learning_rate, (0.8, 0.99), weight_decay=recipe.weight_decay
        )
        restore_optimiser(self.optimiser, self.names, self._optimiser_tensors)
        if stage.adversarial and self.rival_optimiser is None:
            rivals = self._of_discriminators(lambda ensemble: dict(ensemble.named_parameters()))
            self.rival_names = list(rivals)
            self.rival_optimiser = torch.optim.AdamW(rivals.values(), stage.discriminator_learning_rate, (0.5, 0.9))
            restore_optimiser(self.rival_optimiser, self.rival_names, self._rival_tensors)
        self._fit_codebooks(sampler, stage)
        began = time.monotonic()
        for drawn in self._draws(sampler, stage, range(self.progress.step, stage.steps), self.rank, self.world):
            for group in self.optimiser.param_groups:
                group["lr"] = _learning_rate(stage, self.progress.step)
            losses = self._step(stage, sampler.seed, drawn, list(parameters.values()))
            seconds = stage.batch * stage.crops.frames * system.hop / system.sample_rate
            self.progress = dataclasses.replace(
                self.progress, step=self.progress.step + 1, audio_seconds=self.progress.audio_seconds + seconds
            )
            yield {**losses, "audio_seconds_per_second": seconds / (time.monotonic() - began)}
            began = time.monotonic()

    def _of_discriminators(self, tensors: Callable[[Discriminators], dict[str, T]]) -> dict[str, T]:
        named = {output: tensors(ensemble).items() for output, ensemble in self.discriminators.items()}
        return {loss_name(output, name): tensor for output, items in named.items() for name, tensor in items}

    def _learning(self, stage: Stage) -> dict[str, torch.nn.Parameter]:
        self.codec.eval().requires_grad_(False)
        chosen: dict[str, torch.nn.Parameter] = {}
        for part in stage.trains:
            module = _part(self.codec, part)
            module.train().requires_grad_(True)
            chosen.update({f"{part}.{name}": value for name, value in module.named_parameters()})
        return chosen

    def _draws(
        self, sampler: CropSampler, stage: Stage, steps: Sequence[int], rank: int = 0, world: int = 1
    ) -> Iterator[Example]:
        """This process's share of the batch of every step."""
        pinned = self.device.type == "cuda"
        draws = _Draws(sampler, stage.batch, rank, world)
        for arrays in DataLoader(draws, batch_size=None, sampler=steps, num_workers=self.workers, pin_memory=pinned):
            yield Example(*(array.to(self.device, non_blocking=pinned) for array in arrays))

    def _step(self, stage: Stage, seed: int, example: Example, parameters: list[torch.nn.Parameter]) -> dict[str, float]:
        assert self.optimiser is not None
        generator = torch.Generator().manual_seed(hash((seed, self.progress.step)) % (1 << 62))
        share = Share(generator, stage.batch, self.rank, self.world, self.device)
        if stage.pitch == "taught":
            example = self._taught(example)
        alone = stage.adversarial and self.progress.step < stage.discriminator_warmup_steps
        with torch.set_grad_enabled(not alone), self._autocast():
            passed = self.codec(stage, example, share)
        losses, rival_metrics = dict(passed.losses), {}
        if "alignment" in stage.losses and passed.latent is not None:
            losses["alignment"] = self._misalignment(passed.latent, example.wanted)
        heard = passed.heard if stage.paired else {name: _unpaired(one, share) for name, one in passed.heard.items()}
        if heard and stage.adversarial:
            rival_metrics = self._train_discriminators(stage, heard)
            if alone:
                return rival_metrics
        for output, one in passed.heard.items():
            losses |= self._reconstruction_losses(stage, output, one)
            if stage.rivals(output):
                with self._autocast():
                    judged = self.discriminators[output].judge(heard[output].output, heard[output].wanted)
                losses |= {loss_name(output, name): value for name, value in judged.items()}
        if lacking := stage.losses.keys() - losses.keys():
            raise ValueError(
                f"stage {stage.name!r}: with this system, bottleneck and parts there is no loss {', '.join(sorted(lacking))}"
            )
        total = torch.stack([stage.losses[name] * value for name, value in losses.items() if name in stage.losses]).sum()
        # Shares may differ by a clip; every clip counts alike.
        total = total * (len(example.samples) * self.world / stage.batch)
        self.optimiser.zero_grad(set_to_none=True)
        total.backward()
        self._sum_over_processes([p.grad for p in parameters if p.grad is not None], mean=True)
        norm = torch.nn.utils.clip_grad_norm_(parameters, self.recipe.gradient_clip)
        self.optimiser.step()
        self._update_codebooks(passed, share)
        with torch.no_grad():
            for name, tensor in self.codec.state_dict().items():
                if tensor.is_floating_point() and name.split(".")[0] in stage.trains:
                    self.average[name].lerp_(tensor, max(self.recipe.averaging, 1 / (self.progress.step + 1)))
                else:
                    self.average[name].copy_(tensor)
        return {**{name: value.item() for name, value in losses.items()}, **rival_metrics, "gradient": norm.item()}

    def _train_discriminators(self, stage: Stage, heard: dict[str, Heard]) -> dict[str, float]:
        """One step of the discriminators on what the codec just made."""
        assert self.rival_optimiser is not None
        ensembles = {output: ensemble for output, ensemble in self.discriminators.items() if stage.rivals(output)}
        losses: list[Tensor] = []
        metrics: dict[str, float] = {}
        for output, ensemble in ensembles.items():
            ensemble.requires_grad_(True)
            with self._autocast():
                loss, scores = ensemble.discriminate(heard[output].output, heard[output].wanted)
            losses.append(loss * (len(heard[output].wanted) * self.world / stage.batch))
            metrics |= {loss_name(output, name): value for name, value in {"discriminator": loss.item(), **scores}.items()}
        for group in self.rival_optimiser.param_groups:
            group["lr"] = stage.discriminator_learning_rate
        self.rival_optimiser.zero_grad(set_to_none=True)
        torch.stack(losses).sum().backward()
        parameters = [p for ensemble in ensembles.values() for p in ensemble.parameters()]
        self._sum_over_processes([p.grad for p in parameters if p.grad is not None], mean=True)
        self.rival_optimiser.step()
        for ensemble in ensembles.values():
            ensemble.requires_grad_(False)
        return metrics

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.recipe.bfloat16)

    def _misalignment(self, latent: Tensor, wanted: Tensor) -> Tensor:
        """Squared error and one less the cosine to the teacher's latent of the target (progressive refinement, section 2.2)."""
        assert self.teacher is not None
        with torch.no_grad():
            target = self.teacher.latent(wanted)
        behind = self.codec.lookahead - self.teacher.lookahead
        latent, target = latent[:, behind:], target[:, : target.shape[1] - behind]
        cosine = torch.nn.functional.cosine_similarity(latent, target, dim=-1)
        return (latent - target).square().mean() + (1 - cosine).mean()

    def _check_taught(self) -> None:
        if not isinstance(self.teacher, Codec):
            raise ValueError("the teacher tracks no pitch, so no stage's pitch can be 'taught'")
        own, taught = self.codec.config, self.teacher.config
        if (own.hop, own.sample_rate) != (taught.hop, taught.sample_rate) or self.teacher.lookahead > self.codec.lookahead:
            raise ValueError("the teacher has other frames, or looks further ahead, so no stage's pitch can be 'taught'")

    def _taught(self, example: Example) -> Example:
        """With the pitch that the teacher tracks in the target in place of the labels."""
        assert isinstance(self.teacher, Codec)
        behind = self.codec.lookahead - self.teacher.lookahead
        pitch_hz = torch.nn.functional.pad(self.teacher.pitch_hz(example.wanted), (behind, 0))
        return dataclasses.replace(example, pitch_hz=pitch_hz[:, : example.pitch_hz.shape[1]])

    def _reconstruction_losses(self, stage: Stage, name: str, heard: Heard) -> dict[str, Tensor]:
        output, wanted = heard.output, heard.wanted
        losses = {
            loss_name(name, kind): loss(output, wanted)
            for kind, loss in self.reconstruction.items()
            if loss_name(name, kind) in stage.losses
        }
        if (waveform := loss_name(name, "waveform")) in stage.losses and heard.phase is not None:
            losses[waveform] = (heard.phase * self.waveform(output, wanted)).mean()
        return losses

    def _fit_codebooks(self, sampler: CropSampler, stage: Stage) -> None:
        """Start codebooks that have not been fitted yet."""
        if self.codec.unfitted(stage):
            # Whole batches on every process: the fit is then the same everywhere without talking.
            batches = min(-(-_FIT_FRAMES // (stage.batch * stage.crops.frames)), _FIT_BATCHES)
            examples = list(self._draws(sampler, stage, [1 << 40 | number for number in range(batches)]))
            self.codec.fit(stage, examples, torch.Generator().manual_seed(self.recipe.seed))

    @torch.no_grad()
    def _update_codebooks(self, passed: Passed, share: Share) -> None:
        books = [book for quantizer, _ in passed.quantized for book in quantizer.codebooks()]
        self._sum_over_processes([t for book in books for t in (book.batch_sums, book.batch_usage)], mean=False)
        for book in books:
            book.update()
        if self.progress.step % _REVIVE_EVERY == 0:
            for quantizer, inputs in passed.quantized:
                quantizer.revive(*(gather_batch(x.detach(), share) for x in inputs), share.generator)

    def _sum_over_processes(self, tensors: list[Tensor], *, mean: bool) -> None:
        if self.world == 1 or not tensors:
            return
        flat = torch.cat([tensor.flatten() for tensor in tensors])
        dist.all_reduce(flat)
        if mean:
            flat /= self.world
        for tensor, part in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
            tensor.copy_(part.view_as(tensor))

    def _agree(self, decision: bool) -> bool:
        """Process 0's clock decides for all."""
        if self.world == 1:
            return decision
        vote = torch.tensor(float(decision), device=self.device)
        dist.broadcast(vote, 0)
        return bool(vote)


def load_system(path: Path) -> System:
    """The averaged weights of a checkpoint, ready to be used."""
    checkpoint = load_checkpoint(path)
    system = make_system(checkpoint.recipe.system)
    restore_weights(system, checkpoint.average or checkpoint.weights)
    return system.eval().requires_grad_(False)


def _part(system: System, name: str) -> nn.Module:
    """A part by its name; ValueError if this system, as it is configured, has none."""
    part = getattr(system, name, None)
    if part is None:
        raise ValueError(f"the system has no {name}: its [system] leaves it out")
    return part


def _unpaired(heard: Heard, share: Share) -> Heard:
    """With the target of the batch's clip before, at this clip's level: what an ensemble is to take for real, and no more."""
    others = gather_batch(heard.wanted, share).roll(1, 0)[share.rank :: share.world]
    level, own = (x.detach().square().mean(1, keepdim=True).sqrt().clamp(min=1e-4) for x in (heard.output, others))
    return dataclasses.replace(heard, wanted=others * level / own)


def _learning_rate(stage: Stage, step: int) -> float:
    """Linear warm-up, then a half cosine down to the final rate."""
    if step < stage.warmup_steps:
        return stage.learning_rate * (step + 1) / stage.warmup_steps
    done = (step - stage.warmup_steps) / max(stage.steps - stage.warmup_steps, 1)
    return stage.final_learning_rate + (stage.learning_rate - stage.final_learning_rate) * (1 + math.cos(math.pi * done)) / 2


def append_metrics(folder: Path, metrics: dict) -> None:
    """One JSON line in `metrics.jsonl`."""
    with (folder / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(metrics) + os.linesep)
