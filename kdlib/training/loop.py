"""The only training loop: whatever phases a method asks for, on one device or many, and able to go on after a kill."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast
from torch import nn
from tqdm.auto import tqdm

from kdlib.contract import Batch, Distiller, Losses, Phase
from kdlib.data.records import ImageSet
from kdlib.runtime import Runtime, agreed, processes, runtime, synchronise
from kdlib.training.loader import TrainingImages, mix
from kdlib.training.state import RunState, recorded


@dataclass
class History:
    """What happened in training.

    Attributes:
        rows: One dict per step: `phase`, `step` and every named loss.
        seconds: Wall time, with the teacher's pass; of a run that was taken up, without what was lost in between.
        images: Images that passed through the student.
        runtime: How it ran.
    """

    rows: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0
    images: int = 0
    runtime: str = ""

    @property
    def images_per_second(self) -> float:
        return self.images / self.seconds if self.seconds else float("nan")

    def losses(self, name: str = "total") -> list[float]:
        """One named loss over all steps that have it."""
        return [row[name] for row in self.rows if name in row]


def fit(
    model: Distiller,
    images: ImageSet,
    *,
    seed: int = 0,
    device: str = "auto",
    precision: str = "auto",
    cache: bool | None = None,
    state: str | Path | None = None,
    save_every: float = 30.0,
    workers: int = 0,
    progress: bool = True,
    on_step: Callable[[History], None] | None = None,
) -> History:
    """Trains a distiller on normal images, in place.

    Args:
        model: From `kdlib.build`; left in eval mode.
        images: Normal images only.
        seed: Decides the order of the images and all noise. A step's randomness depends on nothing else.
        device: See `kdlib.runtime.runtime`.
        precision: See `kdlib.runtime.runtime`. A run that is taken up keeps what `auto` chose at its start.
        cache: Compute the teacher's features once; `None` decides by device and size.
        state: Folder for the state of a run that may be killed; called again with it, `fit` goes on where it was. On
            a CPU in float32 the weights end exactly as if it had never stopped. A complete run stays in it, so that one
            more call gives the same weights at once; delete the folder when they are saved elsewhere.
        save_every: Seconds between two saves of that state.
        workers: Processes that read images.
        progress: Show a bar.
        on_step: Called after every step with the history so far.

    Raises:
        ValueError: If an image is anomalous, the set is empty, the loss becomes NaN or infinite, or `state` is
            damaged or belongs to another run.
    """
    _check(images)
    processes()  # before the Accelerator, which takes over what this finds
    accelerator = Accelerator(device_placement=False)
    if state is not None and precision == "auto":
        precision = recorded(Path(state)).get("precision", "auto")
    how = agreed(runtime(str(accelerator.device) if accelerator.num_processes > 1 else device, precision))
    how.prepare(model)
    model.train()
    run = None if state is None else RunState(Path(state), _key(model, images, seed, how))
    bars = progress and accelerator.is_main_process
    size = model.config.batch_size
    loader = TrainingImages(model.teacher, images, size, how, cache=cache, workers=workers, progress=bars)
    trainer = _Trainer(model, loader, accelerator, how, seed, run, save_every, on_step)
    with torch.random.fork_rng():
        trainer.run()
    model.eval()
    return trainer.history


class _Trainer:
    def __init__(
        self,
        model: Distiller,
        loader: TrainingImages,
        accelerator: Accelerator,
        how: Runtime,
        seed: int,
        state: RunState | None,
        save_every: float,
        on_step: Callable[[History], None] | None,
    ) -> None:
        self.model, self.loader, self.accelerator, self.how, self.seed = model, loader, accelerator, how, seed
        self.state, self.save_every, self.on_step = state, save_every, on_step
        self.history = History(runtime=str(how))
        self._start = self._saved = time.perf_counter()

    def run(self) -> None:
        """Asks the method for one phase after the other, skipping those that a former run has finished."""
        phases = iter(self.model.phases(self.loader))
        for index in count():
            torch.manual_seed(mix(self.seed, index, -1))
            phase = next(phases, None)
            if phase is None:
                break
            done = self.state.finished(index) if self.state else None
            if self.state and done:
                self._remember(self.state.restore(done, self.model))
                continue
            self._phase(phase, index)
            if self.state and self.accelerator.is_main_process:
                self.state.finish(index, self.model, self._past())
        synchronise(self.how.device)
        self.history.seconds = time.perf_counter() - self._start

    def _phase(self, phase: Phase, index: int) -> None:
        chosen = {id(p) for p in phase.trained()}
        for p in self.model.parameters():
            p.requires_grad_(id(p) in chosen)
        optimiser = phase.optimiser(phase.parameters)
        schedule = phase.scheduler(optimiser) if phase.scheduler else None
        first = 0
        if self.state and (found := self.state.resume(index, self.model, optimiser)):
            first = found["step"]
            self._remember(found)
            if schedule:
                schedule.load_state_dict(found["schedule"])
        step_module = self.accelerator.prepare_model(_Step(self.model, phase), device_placement=False)
        scaler = torch.amp.GradScaler(self.how.device.type, enabled=self.how.precision == "fp16")
        bar = tqdm(total=phase.steps, initial=first, desc=phase.name, disable=not self.loader.progress, leave=False)
        for step, batch in enumerate(self._batches(phase, index, first), first):
            torch.manual_seed(mix(self.seed, index, step))
            with self.how.autocast():
                named: Losses = step_module(batch)
            optimiser.zero_grad(set_to_none=True)
            scaler.scale(named["total"]).backward()
            if phase.clip is not None:
                scaler.unscale_(optimiser)
                nn.utils.clip_grad_norm_(phase.trained(), phase.clip)
            scaler.step(optimiser)
            scaler.update()
            if schedule:
                schedule.step()
            self._record(phase, step, named, len(batch.image) * self.accelerator.num_processes)
            bar.update()
            bar.set_postfix(loss=f"{self.history.rows[-1]['total']:.4f}", refresh=False)
            self._save(index, step + 1, optimiser, schedule)
        bar.close()
        broadcast(list(self.model.buffers()))  # each process has its own statistics of batch normalisation

    def _batches(self, phase: Phase, index: int, first: int) -> Iterator[Batch]:
        return self.loader.training(
            phase.batch_size,
            range(first, phase.steps),
            mix(self.seed, index, -2),
            process=self.accelerator.process_index,
            processes=self.accelerator.num_processes,
            balanced=phase.balanced,
        )

    def _record(self, phase: Phase, step: int, named: Losses, images: int) -> None:
        values = {name: float(value.detach()) for name, value in named.items()}
        if not math.isfinite(values["total"]):
            raise ValueError(
                f"the loss became {values['total']} at step {step} of phase '{phase.name}'; lower the learning rate"
            )
        self.history.rows.append({"phase": phase.name, "step": step, **values})
        self.history.images += images
        self.history.seconds = time.perf_counter() - self._start
        if self.on_step:
            self.on_step(self.history)

    def _save(self, index: int, step: int, optimiser: torch.optim.Optimizer, schedule: Any) -> None:
        due = time.perf_counter() - self._saved > self.save_every
        if self.state and due and self.accelerator.is_main_process:
            extra = self._past() | {"schedule": schedule.state_dict() if schedule else None}
            self.state.save(index, step, self.model, optimiser, extra)
            self._saved = time.perf_counter()

    def _past(self) -> dict[str, Any]:
        seconds = time.perf_counter() - self._start
        return {"history": {"rows": self.history.rows, "images": self.history.images, "seconds": seconds}}

    def _remember(self, found: dict[str, Any]) -> None:
        """Takes over a former run's history; the clock goes on from where that run stood."""
        past = found["history"]
        self.history.rows, self.history.images = past["rows"], past["images"]
        self._start = time.perf_counter() - past["seconds"]


class _Step(nn.Module):
    """A phase's loss as a module's forward, which is what data-parallel wrappers synchronise."""

    def __init__(self, model: Distiller, phase: Phase) -> None:
        super().__init__()
        self.model, self.phase_loss = model, phase.loss

    def forward(self, batch: Batch) -> Losses:
        return self.phase_loss(batch)


def _check(images: ImageSet) -> None:
    if not len(images):
        raise ValueError("there are no training images; expected at least one normal image")
    if images.labels.any():
        raise ValueError(f"{int(images.labels.sum())} training images are anomalous; fit() takes normal images only")


def _key(model: Distiller, images: ImageSet, seed: int, how: Runtime) -> dict[str, Any]:
    names = [[s.category, s.defect, s.path.name] for s in images.samples]
    return {
        "method": model.name,
        "config": json.loads(json.dumps(asdict(model.config))),
        "seed": seed,
        "images": len(images),
        "names": hashlib.sha256(json.dumps(names).encode()).hexdigest()[:16],
        "size": list(images.size),
        "precision": how.precision,
    }
