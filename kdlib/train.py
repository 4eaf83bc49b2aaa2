"""The only training loop: whatever phases a method asks for, on one device or many, and able to go on after a kill."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm.auto import tqdm

from kdlib.cache import TeacherCache, worth_caching
from kdlib.datasets.records import ImageSet
from kdlib.methods.base import Distiller
from kdlib.runtime import Runtime, runtime, synchronise
from kdlib.state import RunState
from kdlib.types import Batch, Losses, Phase


@dataclass
class History:
    """What happened in training.

    Attributes:
        rows: One dict per step: ``phase``, ``step`` and every named loss.
        seconds: Wall time, with the teacher's pass.
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
    state: Path | None = None,
    save_every: float = 30.0,
    workers: int = 0,
    progress: bool = True,
    on_step: Callable[[History], None] | None = None,
) -> History:
    """Trains a distiller on normal images, in place.

    Args:
        model: From :func:`kdlib.build`; left in eval mode.
        images: Normal images only.
        seed: Decides the order of the images and all noise. A step's randomness depends on nothing else.
        device: See :func:`kdlib.runtime.runtime`.
        precision: See :func:`kdlib.runtime.runtime`.
        cache: Compute the teacher's features once; ``None`` decides by device and size.
        state: Folder for the state of a run that may be killed; called again with it, ``fit`` goes on where it was. On a
            CPU in float32 the weights end exactly as if it had never stopped.
        save_every: Seconds between two saves of that state.
        workers: Processes that read images.
        progress: Show a bar.
        on_step: Called after every step with the history so far.

    Raises:
        ValueError: If an image is anomalous, the set is empty, or ``state`` belongs to another run.
    """
    _check(images)
    accelerator = Accelerator(device_placement=False)
    how = _agreed(runtime(str(accelerator.device) if accelerator.num_processes > 1 else device, precision))
    how.prepare(model)
    model.train()
    run = None if state is None else RunState(Path(state), _key(model, images, seed, how))
    history, start = History(runtime=str(how)), time.perf_counter()
    # cached(): an epoch of a small set costs no second decoding
    loader = _Loader(model, images.cached(), how, cache, workers, progress and accelerator.is_main_process)
    trainer = _Trainer(model, loader, accelerator, how, seed, run, save_every, history, on_step)
    with torch.random.fork_rng():
        trainer.run()
    synchronise(how.device)
    history.seconds = time.perf_counter() - start
    model.eval()
    return history


@dataclass
class _Trainer:
    model: Distiller
    loader: _Loader
    accelerator: Accelerator
    how: Runtime
    seed: int
    state: RunState | None
    save_every: float
    history: History
    on_step: Callable[[History], None] | None

    def run(self) -> None:
        """Asks the method for one phase after the other, skipping those that a former run has finished."""
        phases = iter(self.model.phases(self.loader))
        for index in range(1_000_000):
            torch.manual_seed(_mix(self.seed, index, -1))
            phase = next(phases, None)
            if phase is None:
                break
            done = self.state.finished(index) if self.state else None
            if self.state and done:
                self.state.restore(done, self.model)
                continue
            self._phase(phase, index)
            if self.state and self.accelerator.is_main_process:
                self.state.finish(index, self.model)
        if self.state and self.accelerator.is_main_process:
            self.state.clear()

    def _phase(self, phase: Phase, index: int) -> None:
        chosen = {id(p) for p in phase.parameters}
        for p in self.model.parameters():
            p.requires_grad_(id(p) in chosen)
        optimiser = phase.optimiser(phase.parameters)
        schedule = phase.scheduler(optimiser) if phase.scheduler else None
        first = 0
        if self.state and (found := self.state.resume(index, self.model, optimiser)):
            first = found["step"]
            self.history.rows = found["rows"]
            if schedule:
                schedule.load_state_dict(found["schedule"])
        step_module = self.accelerator.prepare_model(_Step(self.model, phase), device_placement=False)
        scaler = torch.amp.GradScaler(self.how.device.type, enabled=self.how.precision == "fp16")
        saved = time.perf_counter()
        bar = tqdm(
            total=phase.steps,
            initial=first,
            desc=phase.name,
            disable=not self.loader.progress,
            leave=False,
            mininterval=0.5,
        )
        batches = self.loader.training(phase, first, self.seed, index, self.accelerator)
        for step, batch in enumerate(batches, first):
            torch.manual_seed(_mix(self.seed, index, step))
            with self.how.autocast():
                named: Losses = step_module(batch)
            optimiser.zero_grad(set_to_none=True)
            scaler.scale(named["total"]).backward()
            scaler.step(optimiser)
            scaler.update()
            if schedule:
                schedule.step()
            self._record(phase, step, named, len(batch.image) * self.accelerator.num_processes)
            bar.update()
            bar.set_postfix(loss=f"{self.history.rows[-1]['total']:.4f}", refresh=False)
            if self.state and self.accelerator.is_main_process and time.perf_counter() - saved > self.save_every:
                extra = {"rows": self.history.rows, "schedule": schedule.state_dict() if schedule else None}
                self.state.save(index, step + 1, self.model, optimiser, extra)
                saved = time.perf_counter()
        bar.close()

    def _record(self, phase: Phase, step: int, named: Losses, images: int) -> None:
        values = {name: float(value.detach()) for name, value in named.items()}
        if values["total"] != values["total"]:
            raise ValueError(f"the loss became NaN at step {step} of phase '{phase.name}'; lower the learning rate")
        self.history.rows.append({"phase": phase.name, "step": step, **values})
        self.history.images += images
        if self.on_step:
            self.on_step(self.history)


class _Step(nn.Module):
    """A phase's loss as a module's forward, which is what data-parallel wrappers synchronise."""

    def __init__(self, model: Distiller, phase: Phase) -> None:
        super().__init__()
        self.model, self.phase_loss = model, phase.loss

    def forward(self, batch: Batch) -> Losses:
        return self.phase_loss(batch)


class _Loader:
    """The training images as batches with teacher features: in order for statistics, shuffled for training."""

    def __init__(
        self, model: Distiller, images: ImageSet, how: Runtime, cache: bool | None, workers: int, progress: bool
    ) -> None:
        self.images, self.how, self.workers, self.progress = images, how, workers, progress
        self.categories = images.categories
        self.batch_size = min(model.config.batch_size, len(images))
        if cache is None:
            cache = worth_caching(model.teacher, images[0]["image"][None], len(images), how)
        ordered = (items["image"] for items in self._items(self._in_order()))
        self.cache = TeacherCache(model.teacher, ordered, len(images), how, progress=progress) if cache else None

    def __len__(self) -> int:
        return len(self.images)

    def __iter__(self) -> Iterator[Batch]:
        return map(self._batch, self._items(self._in_order()))

    def training(self, phase: Phase, first: int, seed: int, index: int, accelerator: Accelerator) -> Iterator[Batch]:
        """Batches of the steps from ``first`` on: each process takes its share of every batch."""
        size, processes = min(phase.batch_size, len(self)), accelerator.num_processes
        if size < processes:
            raise ValueError(
                f"batch size is {size}, fewer than the {processes} processes; give each at least one image"
            )
        plan = [
            chosen[accelerator.process_index :: processes][: size // processes]
            for chosen in (shuffled(len(self), size, step, _mix(seed, index, -2)) for step in range(first, phase.steps))
        ]
        return map(self._batch, self._items(plan))

    def _in_order(self) -> list[list[int]]:
        positions = list(range(len(self)))
        return [positions[i : i + self.batch_size] for i in range(0, len(self), self.batch_size)]

    def _items(self, plan: list[list[int]]) -> DataLoader[dict[str, Tensor]]:
        return DataLoader(self.images, batch_sampler=plan, num_workers=self.workers)  # type: ignore[arg-type]

    def _batch(self, items: dict[str, Tensor]) -> Batch:
        teacher = self.cache[items["index"]] if self.cache else None
        batch = Batch(image=self.how.images(items["image"]), category=items["category"], teacher=teacher)
        return batch.to(self.how.device)


def shuffled(count: int, size: int, step: int, seed: int) -> list[int]:
    """The images of one step: an endless row of shuffled epochs, cut into full batches.

    A pure function of its arguments, so that any step can be repeated. Every image is seen equally often, and no batch is
    too small for batch normalisation.
    """
    chosen: list[int] = []
    position = step * size
    while len(chosen) < size:
        epoch, offset = divmod(position + len(chosen), count)
        order = torch.randperm(count, generator=torch.Generator().manual_seed(_mix(seed, epoch, -3)))
        chosen += order[offset : offset + size - len(chosen)].tolist()
    return chosen


def _mix(*numbers: int) -> int:
    """One seed out of several numbers; neighbouring inputs give unrelated seeds."""
    mixed = 0x9E3779B97F4A7C15
    for n in numbers:
        mixed = ((mixed ^ (n & 0xFFFFFFFFFFFFFFFF)) * 0xBF58476D1CE4E5B9 + 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
        mixed ^= mixed >> 31
    return mixed >> 1


def _agreed(how: Runtime) -> Runtime:
    """All processes run as the first one measured to be best."""
    choice: list[Any] = [how.precision, how.channels_last]
    broadcast_object_list(choice)
    return Runtime(device=how.device, precision=choice[0], channels_last=choice[1])


def _check(images: ImageSet) -> None:
    if not len(images):
        raise ValueError("there are no training images; expected at least one normal image")
    if images.labels.any():
        raise ValueError(f"{int(images.labels.sum())} training images are anomalous; fit() takes normal images only")


def _key(model: Distiller, images: ImageSet, seed: int, how: Runtime) -> dict[str, Any]:
    config = json.loads(json.dumps(asdict(model.config)))
    return {
        "method": model.name,
        "config": config,
        "seed": seed,
        "images": len(images),
        "size": list(images.size),
        "precision": how.precision,
    }
