"""The rows of the table of `benchmarks.speed`: what each measures, what the reference costs, and the goal."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

import numpy as np
import torch

from benchmarks.speed_bench import SHOTS, SIDE, TOGETHER, Bench, head, pictures
from benchmarks.speed_clock import flops_of
from benchmarks.speed_reference import ReferenceMediCLIP, ReferenceMVFA
from medclipad.methods.base import Shots
from medclipad.methods.common.token_memory import draw
from medclipad.methods.mediclip import MediCLIP, MediCLIPOptions
from medclipad.methods.mediclip.synthesis import AnomalySynthesis
from medclipad.methods.mediclip.training import REUSE, STEPS
from medclipad.methods.mvfa import MVFA, MVFAOptions
from medclipad.methods.mvfa.augment import augment
from medclipad.methods.mvfa.prompts import prompts
from medclipad.methods.mvfa.training import FrozenStates, Trainer, initialise

FLOAT32_SLICES = 4  # slices of a repetition in float32, which take their time
BATCH = 8  # of both references
PROMPTS = 10  # one in so many of MVFA's prompts is encoded the reference's way


@dataclass(frozen=True)
class Row:
    """A line of the table; `reference` is the figure of METHODS, measured on another machine."""

    title: str
    unit: str  # "U", "s" or "GB"
    reference: float | None
    goal: float
    measure: Callable[[Bench], dict]


def detect(method: str, precision: str, tokens: int | None = None) -> Callable[[Bench], dict]:
    """A volume of a batch of slices, from voxels to map and scores, per analysed slice; beside it the reference's test.

    `tokens`: remembered of each level, drawn from those of the detector.
    """

    def measure(bench: Bench) -> dict:
        detector, clock = bench.detector(method, precision), bench.clock
        if tokens:
            memory, generator = detector._method.memory, torch.Generator().manual_seed(0)
            for level in range(memory.n_levels):
                memory.remember(level, draw(memory[level], tokens, generator))
        dtype = detector._method.encoder.dtype
        volume = head(FLOAT32_SLICES if dtype == torch.float32 else TOGETHER)
        flops = flops_of(lambda: detector.detect(volume)) / volume.shape[2]  # warms up, too
        result = detector.detect(volume)
        analysed = int(np.isfinite(result.slice_scores).sum())
        if analysed != volume.shape[2]:
            raise RuntimeError(f"{analysed} of {volume.shape[2]} slices were analysed: the volume is not what it says.")
        found = clock.ratio(lambda: detector.detect(volume), analysed)
        found |= clock.share_of_peak(flops, found["seconds"], dtype)
        if not tokens and precision == "auto":
            kind = {"mvfa": ReferenceMVFA, "mediclip": ReferenceMediCLIP}[method]
            model = kind(bench.reference(method))
            model.detect()
            found["reference_measured"] = clock.ratio(model.detect)["measured"]
        return found | {"note": f"{analysed} slices together"}

    return measure


def text_first(bench: Bench) -> dict:
    """All 420 prompts of a class; beside it one in ten of them the reference's way, times ten."""
    model = MVFA(bench.encoder("mvfa"), MVFAOptions())
    model.encoder.text.token_embedding(model.encoder.text.tokenize(["a"]))  # reads the text tower's weights
    with bench.fresh_cache():
        found = bench.clock.ratio(lambda: model.use_class("Brain"))
        flops = flops_of(lambda: model.use_class("Brain"))
    found |= bench.clock.share_of_peak(flops, found["seconds"], model.encoder.dtype)
    tokens = bench.reference("mvfa").tokenize([text for texts in prompts("Brain") for text in texts][::PROMPTS])
    plain = bench.clock.ratio(lambda: bench.reference("mvfa").encode_text(tokens), 1 / PROMPTS, repetitions=2)
    return found | {"reference_measured": plain["measured"], "note": "reading the text tower's weights not included"}


def text_again(bench: Bench) -> dict:
    """With what the row before keeps on disk, in a model of its own."""
    model = MVFA(bench.encoder("mvfa"), MVFAOptions())
    model.use_class("Brain")
    return bench.clock.ratio(lambda: model.use_class("Brain"))


def bank(bench: Bench) -> dict:
    """All tokens of 44 pictures after training, which kept their states after the first stage."""
    model = MVFA(bench.encoder("mvfa"), MVFAOptions(memory_tokens=None))
    images = augment(torch.from_numpy(pictures(SHOTS, model.encoder.image_size)))
    frozen = FrozenStates(model, images)
    frozen[torch.arange(len(images))]

    def work() -> list:
        return model.remember(images, 0, states=lambda chosen: frozen[chosen])

    flops = flops_of(work)
    found = bench.clock.ratio(work)
    return found | bench.clock.share_of_peak(flops, found["seconds"], model.encoder.dtype)


def training(batch: int) -> Callable[[Bench], dict]:
    """A step, per picture, once the first stage is kept, and the share of what it takes to keep it."""

    def measure(bench: Bench) -> dict:
        options = MVFAOptions(batch=batch)
        model = MVFA(bench.encoder("mvfa"), options)
        model.use_class("Brain")
        initialise(model, 0)
        size = model.encoder.image_size
        images = augment(torch.from_numpy(pictures(8, size)))[:BATCH]
        labels, masks = 1 - (torch.arange(batch) % 2).float(), torch.zeros(batch, size, size)
        masks[labels == 1, : size // 4, : size // 4] = 1
        inputs = [part.to(bench.device) for part in (labels, masks, torch.ones(batch, dtype=torch.bool))]
        trainer, frozen = Trainer(model, options.learning_rate), FrozenStates(model, images)
        chosen = torch.arange(batch)

        def work() -> object:
            return trainer.step(frozen[chosen], *inputs)

        work()
        flops = flops_of(work) / batch
        found = bench.clock.ratio(work, batch)
        found |= bench.clock.share_of_peak(flops, found["seconds"], model.encoder.dtype)
        first = bench.clock.ratio(lambda: model.frozen(images[:batch]), batch)["measured"]
        times = model.max_samples / (2 * 11 * SHOTS)  # that each picture is learned from
        found |= {"step": found["measured"], "measured": found["measured"] + first / times}
        found["note"] = f"of it {first / times:.3f} U for the first stage, kept for {times:.1f} times"
        if batch == 1:
            plain = ReferenceMVFA(bench.reference("mvfa"))
            plain.step()
            found["reference_measured"] = bench.clock.ratio(plain.step, repetitions=3)["measured"]
        return found

    return measure


def mediclip_training(bench: Bench) -> dict:
    """The first steps, which fill the pool of examples, and the later ones' cost times their number.

    The default schedule, synthesis included. Beside it one of the reference's steps, times 400.
    """
    encoder, steps, first = bench.encoder("mediclip"), STEPS["short"], REUSE
    images = pictures(16, encoder.image_size)
    walls = []

    def work() -> float:
        """Seconds of the whole training."""
        torch.manual_seed(0)
        model, moments = MediCLIP(encoder, MediCLIPOptions(max_steps=3 * first, batch=BATCH)), {}

        def look(phase: str, done: int, total: int, info: dict) -> None:
            moments[phase, done] = time.perf_counter()

        start = time.perf_counter()
        model.fit(Shots(images, images[:0], ()), 0, look)
        walls.append(time.perf_counter() - start)
        filled, end = moments["train", first], moments["train", 3 * first]
        return filled - start + (end - filled) / (2 * first) * (steps - first)

    flops = flops_of(work)
    found = bench.clock.ratio(work, timed=lambda work: work())
    found |= bench.clock.share_of_peak(flops, walls[-1], encoder.dtype)
    plain = ReferenceMediCLIP(bench.reference("mediclip"))
    synthesis, rng = AnomalySynthesis(grey := np.round(images * 255).astype(np.uint8)), np.random.default_rng(0)

    def step() -> None:
        made, masks = zip(*(synthesis(image, rng) for image in grey[:BATCH]), strict=True)
        plain.step(np.stack(made), np.stack(masks))

    found["reference_measured"] = bench.clock.ratio(step, 1 / STEPS["published"], repetitions=2)["measured"]
    return found | {"note": f"{3 * first} of {steps} steps timed; losses see below"}


def memory(bench: Bench) -> dict:
    """`medclipad detect` of a full batch of slices, in a process of its own."""
    volume, folder = bench.volume_file("batch", (SIDE, SIDE, TOGETHER)), bench.detector_folder("mvfa")
    runs = [
        bench.medclipad("detect", folder, volume, "--out", bench.work / "out") for _ in range(3 if bench.is_full else 1)
    ]
    values = [run["gigabytes"] for run in runs]
    return {"measured": median(values), "values": values, "seconds": median(run["seconds"] for run in runs)}


def embedded_fit(bench: Bench) -> dict:
    """`medclipad fit`, from file to folder."""
    folder = bench.work / "detector-embedded"

    def work() -> None:
        shutil.rmtree(folder, ignore_errors=True)
        bench.medclipad("fit", "--normal", bench.whole, "--shots", 16, "--out", folder)

    return bench.repeated(work, 5)


def embedded_volume(bench: Bench) -> dict:
    """`medclipad detect`, from file to file."""
    return _detected(bench, bench.whole, 5)


def first_result(bench: Bench) -> dict:
    """The same of a small volume."""
    return _detected(bench, bench.volume_file("small", (64, 64, 20)), 5)


def _detected(bench: Bench, volume, repetitions: int) -> dict:
    folder = bench.work / "detector-embedded"
    if not folder.exists():
        bench.medclipad("fit", "--normal", bench.whole, "--shots", 16, "--out", folder)
    bench.medclipad("detect", folder, volume, "--out", bench.work / "out")  # files are in the system's cache from here
    return bench.repeated(lambda: bench.medclipad("detect", folder, volume, "--out", bench.work / "out"), repetitions)


def start(bench: Bench) -> dict:
    """The help alone."""
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
