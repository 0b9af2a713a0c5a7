"""Rows of the table of `benchmarks.speed`: what each measures, the reference's cost, and the goal."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from benchmarks.speed_bench import BATCH_SLICES, SHOTS, SIDE, Bench, head, images
from benchmarks.speed_clock import flops_of
from benchmarks.speed_reference import ReferenceMediCLIP, ReferenceMVFA
from medclipad.methods.base import Shots
from medclipad.methods.common.augment import augment
from medclipad.methods.common.frozen_states import FrozenStates
from medclipad.methods.common.token_memory import draw
from medclipad.methods.mediclip.method import MediCLIP
from medclipad.methods.mediclip.network import MediCLIPNetwork
from medclipad.methods.mediclip.options import MediCLIPOptions
from medclipad.methods.mediclip.synthesis import AnomalySynthesis
from medclipad.methods.mediclip.training import REUSE, STEPS
from medclipad.methods.mvfa.network import MVFANetwork
from medclipad.methods.mvfa.options import MVFAOptions
from medclipad.methods.mvfa.prompts import prompts
from medclipad.methods.mvfa.training import Trainer, initialise

FLOAT32_SLICES = 4  # slices of a repetition in float32, which is slow
BATCH = 8  # of both reference codes
PROMPT_STEP = 10  # every tenth of MVFA's prompts is encoded as the reference code does


@dataclass(frozen=True)
class Row:
    """Row of the table.

    Attributes
    ----------
    title : str
        What is measured.
    unit : str
        "U", "s" or "GB".
    reference : float or None
        Cost of the reference code, measured on another machine.
    goal : float
        Cost to stay under.
    measure : callable
        Returns the result.
    """

    title: str
    unit: str
    reference: float | None
    goal: float
    measure: Callable[[Bench], dict]


def detect(method: str, precision: str, tokens: int | None = None) -> Callable[[Bench], dict]:
    """Return a measurement: detection in a volume of one batch, for each slice, beside the reference's test.

    Parameters
    ----------
    method, precision
        Detector to measure.
    tokens
        Number of tokens in each level of the memory, drawn from the detector's; None for all.
    """

    def measure(bench: Bench) -> dict:
        detector, clock = bench.detector(method, precision), bench.clock
        if tokens:
            memory: Any = detector.model.memory
            generator = torch.Generator().manual_seed(0)
            for level in range(memory.n_levels):
                memory.remember(level, memory[level][draw(len(memory[level]), tokens, generator)])
        dtype = detector.model.encoder.dtype
        volume = head(FLOAT32_SLICES if dtype == torch.float32 else BATCH_SLICES)
        flops = flops_of(lambda: detector.detect(volume)) / volume.shape[2]  # also warms up
        result = detector.detect(volume)
        analysed = int(np.isfinite(result.slice_scores).sum())
        if analysed != volume.shape[2]:
            raise RuntimeError(f"{analysed} of {volume.shape[2]} slices were analysed: all must be.")
        row = clock.ratio(lambda: detector.detect(volume), analysed)
        row |= clock.share_of_peak(flops, row["seconds"], dtype)
        if not tokens and precision == "auto":
            reference_class = {"mvfa": ReferenceMVFA, "mediclip": ReferenceMediCLIP}[method]
            model = reference_class(bench.reference(method))
            model.detect()
            row["reference_measured"] = clock.ratio(model.detect)["measured"]
        return row | {"note": f"{analysed} slices together"}

    return measure


def text_first(bench: Bench) -> dict:
    """Time all 420 prompts of a class, beside ten times every tenth of them in the reference's way."""
    model = MVFANetwork(bench.encoder("mvfa"), MVFAOptions())
    text = model.encoder.text
    assert text is not None
    text.token_embedding(text.tokenize(["a"]))  # reads the text tower's weights
    with bench.fresh_cache():
        row = bench.clock.ratio(lambda: model.use_class("Brain"))
        flops = flops_of(lambda: model.use_class("Brain"))
    row |= bench.clock.share_of_peak(flops, row["seconds"], model.encoder.dtype)
    every_tenth = [prompt for state in prompts("Brain") for prompt in state][::PROMPT_STEP]
    tokens = bench.reference("mvfa").tokenize(every_tenth)
    plain = bench.clock.ratio(lambda: bench.reference("mvfa").encode_text(tokens), 1 / PROMPT_STEP, repetitions=2)
    return row | {"reference_measured": plain["measured"], "note": "reading the text tower's weights not included"}


def text_again(bench: Bench) -> dict:
    """Time the same in another model, which reads what the row before stored on disk."""
    model = MVFANetwork(bench.encoder("mvfa"), MVFAOptions())
    model.use_class("Brain")
    return bench.clock.ratio(lambda: model.use_class("Brain"))


def bank(bench: Bench) -> dict:
    """Time the remembering of all tokens of 44 images, whose states after the first stage training has kept."""
    model = MVFANetwork(bench.encoder("mvfa"), MVFAOptions(memory_tokens="all"))
    augmented = augment(torch.from_numpy(images(SHOTS, model.encoder.image_size)))
    frozen = FrozenStates(model, augmented)
    frozen[torch.arange(len(augmented))]

    def work() -> list:
        return model.remember(augmented, 0, states=lambda chosen: frozen[chosen])

    flops = flops_of(work)
    row = bench.clock.ratio(work)
    return row | bench.clock.share_of_peak(flops, row["seconds"], model.encoder.dtype)


def training(batch: int) -> Callable[[Bench], dict]:
    """Return a measurement: MVFA's training step for each image, with its share of the first stage, which is kept."""

    def measure(bench: Bench) -> dict:
        options = MVFAOptions(batch=batch)
        model = MVFANetwork(bench.encoder("mvfa"), options)
        model.use_class("Brain")
        initialise(model, 0)
        size = model.encoder.image_size
        augmented = augment(torch.from_numpy(images(8, size)))[:BATCH]
        labels, masks = 1 - (torch.arange(batch) % 2).float(), torch.zeros(batch, size, size)
        masks[labels == 1, : size // 4, : size // 4] = 1
        inputs = [part.to(bench.device) for part in (labels, masks, torch.ones(batch, dtype=torch.bool))]
        trainer, frozen = Trainer(model, options.learning_rate), FrozenStates(model, augmented)
        chosen = torch.arange(batch)

        def work() -> object:
            return trainer.step(frozen[chosen], *inputs)

        work()
        flops = flops_of(work) / batch
        row = bench.clock.ratio(work, batch)
        row |= bench.clock.share_of_peak(flops, row["seconds"], model.encoder.dtype)
        first = bench.clock.ratio(lambda: model.frozen(augmented[:batch]), batch)["measured"]
        assert model.max_samples is not None
        times = model.max_samples / (2 * 11 * SHOTS)  # that each image is learned from
        row |= {"step": row["measured"], "measured": row["measured"] + first / times}
        row["note"] = f"of it {first / times:.3f} U for the first stage, kept for {times:.1f} times"
        if batch == 1:
            plain = ReferenceMVFA(bench.reference("mvfa"))
            plain.step()
            row["reference_measured"] = bench.clock.ratio(plain.step, repetitions=3)["measured"]
        return row

    return measure


def mediclip_training(bench: Bench) -> dict:
    """Time MediCLIP's training by its default schedule, synthesis included, beside 400 times a step of the reference.

    The first steps, which fill the pool of examples, are timed; the later ones' cost is multiplied by their number.
    """
    encoder, steps, first = bench.encoder("mediclip"), STEPS["short"], REUSE
    normal = images(16, encoder.image_size)
    walls = []

    def work() -> float:
        """Return the seconds of the whole training."""
        torch.manual_seed(0)
        model, moments = MediCLIPNetwork(encoder, MediCLIPOptions(max_steps=3 * first, batch=BATCH)), {}

        def note_time(phase: str, done: int, total: int, info: dict[str, Any]) -> None:
            moments[phase, done] = time.perf_counter()

        start = time.perf_counter()
        MediCLIP.fit(model, Shots(normal, normal[:0], ()), 0, note_time)
        walls.append(time.perf_counter() - start)
        filled, end = moments["train", first], moments["train", 3 * first]
        return filled - start + (end - filled) / (2 * first) * (steps - first)

    flops = flops_of(work)
    row = bench.clock.ratio(work, timed=lambda _: work())
    row |= bench.clock.share_of_peak(flops, walls[-1], encoder.dtype)
    plain = ReferenceMediCLIP(bench.reference("mediclip"))
    synthesis, rng = AnomalySynthesis(grey := np.round(normal * 255).astype(np.uint8)), np.random.default_rng(0)

    def step() -> None:
        made, masks = zip(*(synthesis(image, rng) for image in grey[:BATCH]), strict=True)
        plain.step(np.stack(made), np.stack(masks))

    row["reference_measured"] = bench.clock.ratio(step, 1 / STEPS["published"], repetitions=2)["measured"]
    return row | {"note": f"{3 * first} of {steps} steps timed; for losses see below"}


def memory(bench: Bench) -> dict:
    """Measure the peak memory of `medclipad detect` with a full batch of slices, in a process of its own."""
    volume, folder = bench.volume_file("batch", (SIDE, SIDE, BATCH_SLICES)), bench.detector_folder("mvfa")
    runs = [
        bench.medclipad("detect", folder, volume, "--out", bench.work / "out") for _ in range(3 if bench.is_full else 1)
    ]
    values = [run["gigabytes"] for run in runs]
    return {"measured": median(values), "values": values, "seconds": median(run["seconds"] for run in runs)}


def embedded_fit(bench: Bench) -> dict:
    """Time `medclipad fit`, from file to folder."""
    folder = bench.work / "detector-embedded"

    def work() -> None:
        shutil.rmtree(folder, ignore_errors=True)
        bench.medclipad("fit", "--normal", bench.whole, "--shots", 16, "--out", folder)

    return bench.repeated(work, 5)


def embedded_volume(bench: Bench) -> dict:
    """Time `medclipad detect`, from file to file."""
    return _detected(bench, bench.whole, 5)


def first_result(bench: Bench) -> dict:
    """Time `medclipad detect` of a small volume."""
    return _detected(bench, bench.volume_file("small", (64, 64, 20)), 5)


def _detected(bench: Bench, volume: Path, repetitions: int) -> dict:
    folder = bench.work / "detector-embedded"
    if not folder.exists():
        bench.medclipad("fit", "--normal", bench.whole, "--shots", 16, "--out", folder)
    bench.medclipad("detect", folder, volume, "--out", bench.work / "out")  # puts the files into the system's cache
    return bench.repeated(lambda: bench.medclipad("detect", folder, volume, "--out", bench.work / "out"), repetitions)


def start(bench: Bench) -> dict:
    """Time `medclipad detect --help`."""
    bench.medclipad("detect", "--help")
    return bench.repeated(lambda: bench.medclipad("detect", "--help"), 5)


TABLE = {
    "mvfa-detect": Row("MVFA few-shot detect, a slice, all tokens remembered", "U", 1.26, 0.16, detect("mvfa", "auto")),
    "mvfa-detect-default": Row("the same, 2000 a level (default)", "U", 1.26, 0.16, detect("mvfa", "auto", 2000)),
    "mvfa-detect-float32": Row("the same in float32, all tokens", "U", 1.26, 1.05, detect("mvfa", "float32")),
    "mediclip-detect": Row("MediCLIP detect, a slice, 224 px", "U", 1.2, 0.15, detect("mediclip", "auto")),
    "text-first": Row("MVFA text features, a class, first time", "U", 30, 5, text_first),
    "text-again": Row("MVFA text features, a class, again", "U", 30, 0, text_again),
    "bank": Row("MVFA memory bank, k = 4, after training", "U", 47, 6, bank),
    "mvfa-training": Row("MVFA training step, an image, batch 8", "U", 3.3, 0.5, training(8)),
    "mvfa-training-1": Row("MVFA training step, an image, batch 1", "U", 3.3, 0.5, training(1)),
    "mediclip-training": Row("MediCLIP training, k = 16, short schedule", "U", 5400, 270, mediclip_training),
    "memory": Row("peak memory, medclipad detect (MVFA)", "GB", 3.9, 1.6, memory),
    "embedded-fit": Row("embedded: fit 16 shots", "s", None, 20, embedded_fit),
    "embedded-volume": Row("embedded: 240×240×155 from file to file", "s", None, 12, embedded_volume),
    "help": Row("medclipad detect --help", "s", None, 0.5, start),
    "first-result": Row("embedded: first result, 64×64×20, warm cache", "s", None, 5, first_result),
}
