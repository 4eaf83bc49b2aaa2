"""The only training loop: whatever phases a method asks for, on one device or many, and able to go on after a kill."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast
from torch import nn
from tqdm.auto import tqdm

from kdlib.config import check_kind
from kdlib.contract import Batch, Distiller, Losses, Phase
from kdlib.data import ImageSet
from kdlib.files import alone, expanded
from kdlib.randomness import Salt, checked_seed, mix, seeded
from kdlib.runtime import agreed, choose, processes, synchronise
from kdlib.training.checks import check_sets, enough_values
from kdlib.training.loader import TrainingImages
from kdlib.training.state import History, RunState, recorded, run_key


def fit(
    model: Distiller,
    images: ImageSet,
    *,
    auxiliary: ImageSet | None = None,
    held_out: ImageSet | None = None,
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
        auxiliary: Images of something else, for methods that ask for them; see `kdlib.data.auxiliary`. Without them
            these methods take rendered textures.
        held_out: Normal images that no step sees, for statistics fitted after training; without them methods take the
            training images. A threshold needs others still.
        seed: Decides the order of the images and all noise. A step's randomness depends on nothing else.
        device: See `kdlib.runtime.choose`.
        precision: See `kdlib.runtime.choose`. A run that is taken up keeps what `auto` chose at its start.
        cache: Compute the teacher's features once; `None` decides by device and size.
        state: Folder for the state of a run that may be killed; called again with it, `fit` goes on where it was. On
            a CPU in float32 the weights end exactly as if it had never stopped. A complete run stays in it, so that one
            more call gives the same weights at once; delete the folder when they are saved elsewhere.
        save_every: Seconds between two saves of that state.
        workers: Processes that read images.
        progress: Show a bar.
        on_step: Called after every step with the history so far; it may evaluate the model.

    Raises:
        ValueError: If `model` or `images` is something else, an image is anomalous, a set is empty or of another size,
            `seed` is no whole number from 0 to 2**32 - 1, a batch is too small for batch normalisation, the loss
            becomes NaN or infinite, or `state` is damaged, in use, or belongs to another run.
        OSError: If a disc is full.
    """
    check_kind("model", model, Distiller, "a distiller as kd.build gives")
    check_sets(images, held_out, auxiliary)
    seed = checked_seed(seed)
    processes()  # before the Accelerator, which takes over what this finds
    accelerator = Accelerator(device_placement=False, mixed_precision="no")
    place = None if state is None else expanded(state)
    former = recorded(place) if place else {}
    if precision == "auto":
        precision = former.get("precision", "auto")
    runtime = agreed(choose(str(accelerator.device) if accelerator.num_processes > 1 else device, precision))
    runtime.prepare(model)
    loader = TrainingImages(
        model.teacher,
        images,
        model.config.batch_size,
        runtime,
        auxiliary=auxiliary,
        held_out=held_out,
        cache=cache,
        workers=workers,
        progress=progress and accelerator.is_main_process,
    )
    run = None
    if place:
        run = RunState(place, run_key(model, images, held_out, auxiliary, seed, runtime, former))
    history = History(runtime=str(runtime))
    trainer = _Trainer(model, loader, accelerator, seed, run, save_every, on_step, history)
    with alone(place) if place and accelerator.is_main_process else nullcontext():
        trainer.run()
    model.eval()
    return history


@dataclass
class _Trainer:
    model: Distiller
    loader: TrainingImages
    accelerator: Accelerator
    seed: int
    state: RunState | None
    save_every: float
    on_step: Callable[[History], None] | None
    history: History

    def __post_init__(self) -> None:
        self.runtime = self.loader.runtime
        self._start = self._saved = time.perf_counter()

    def run(self) -> None:
        """Asks the method for one phase after the other, skipping those that a former run has finished."""
        self.model.train()
        phases = self.model.phases(self.loader)
        for index in count():
            self.model.teacher.eval()  # what a method looks at between phases must not change a teacher's statistics
            with seeded(mix(self.seed, index, Salt.PHASE), self.runtime.device):
                phase = next(phases, None)
            if phase is None:
                break
            if self.state and self.state.restore(index, self.model, self.history):
                self._go_on()
            else:
                self._phase(phase, index)
            if not phase.teacher_fixed:
                self.loader.forget_teacher()
        synchronise(self.runtime.device)
        self._clock()

    def _phase(self, phase: Phase, index: int) -> None:
        """One step after the other, from images to new weights."""
        self.runtime.prepare(self.model)  # again: the method may have made weights for the images it has seen
        trained = phase.trained()
        self._only_trains(trained)
        self._mode(phase)
        optimiser = phase.optimiser(phase.parameters)
        schedule = phase.scheduler(optimiser) if phase.scheduler else None
        scaler = torch.amp.GradScaler(self.runtime.device.type, enabled=self.runtime.precision == "fp16")
        parts = {"optimiser": optimiser, "scaler": scaler} | ({"schedule": schedule} if schedule else {})
        first = self.state.resume(index, self.model, parts, self.history) if self.state else 0
        if first:
            self._go_on()
        step_losses = self.accelerator.prepare_model(_Step(self.model, phase), device_placement=False)
        batches = self.loader.training(phase, range(first, phase.steps), self.seed, index)
        bar = tqdm(total=phase.steps, initial=first, desc=phase.name, disable=not self.loader.progress, leave=False)
        for step, batch in enumerate(batches, first):
            self._mode(phase)
            with seeded(self._step_seed(index, step), self.runtime.device):
                with enough_values(batch.image), self.runtime.autocast():
                    named: Losses = step_losses(batch)
                optimiser.zero_grad(set_to_none=True)
                scaler.scale(named["total"]).backward()
                if phase.clip is not None:
                    scaler.unscale_(optimiser)
                    nn.utils.clip_grad_norm_(trained, phase.clip)
                scaler.step(optimiser)
                scaler.update()
                if schedule:
                    schedule.step()
            self._record(phase, step, named, len(batch.image) * self.accelerator.num_processes)
            bar.update()
            bar.set_postfix(loss=f"{self.history.rows[-1]['total']:.4f}", refresh=False)
            self._save(index, step + 1, parts)
        bar.close()
        broadcast(list(self.model.buffers()))  # each process has its own statistics of batch normalisation
        if self.state and self.accelerator.is_main_process:
            self._clock()
            self.state.finish(index, self.model, self.history)

    def _only_trains(self, parameters: list[nn.Parameter]) -> None:
        chosen = {id(p) for p in parameters}
        for p in self.model.parameters():
            p.requires_grad_(id(p) in chosen)

    def _mode(self, phase: Phase) -> None:
        """Training mode again: what is called after a step may have evaluated the model."""
        if not self.model.training or self.model.teacher.training == phase.teacher_fixed:
            self.model.train()
            if phase.teacher_fixed:
                self.model.teacher.eval()

    def _step_seed(self, index: int, step: int) -> int:
        """Processes see different images, and draw different noise for them."""
        process = self.accelerator.process_index
        return mix(self.seed, index, step, *((Salt.PROCESS, process) if process else ()))

    def _record(self, phase: Phase, step: int, named: Losses, images: int) -> None:
        values = {name: float(value.detach()) for name, value in named.items()}
        if not math.isfinite(values["total"]):
            raise ValueError(
                f"the loss became {values['total']} at step {step} of phase '{phase.name}'; lower the learning rate"
            )
        self.history.rows.append({"phase": phase.name, "step": step, **values})
        self.history.images += images
        self._clock()
        if self.on_step:
            self.on_step(self.history)

    def _save(self, index: int, step: int, parts: dict[str, Any]) -> None:
        due = time.perf_counter() - self._saved > self.save_every
        if self.state and due and self.accelerator.is_main_process:
            self.state.save(index, step, self.model, parts, self.history)
            self._saved = time.perf_counter()

    def _clock(self) -> None:
        self.history.seconds = time.perf_counter() - self._start

    def _go_on(self) -> None:
        """The clock goes on from where a former run stood."""
        self._start = time.perf_counter() - self.history.seconds


class _Step(nn.Module):
    """A phase's loss as a module's forward, which is what data-parallel wrappers synchronise."""

    def __init__(self, model: Distiller, phase: Phase) -> None:
        super().__init__()
        self.model, self.phase_loss = model, phase.loss

    def forward(self, batch: Batch) -> Losses:
        return self.phase_loss(batch)
