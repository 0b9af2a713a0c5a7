"""Miniature benchmarks on disk: BMAD as MVFA's code lays it out, and data sets as MediCLIP's does.

Pictures come from ../shared/data/brain_mri_253 without its duplicates; where that folder is missing they are generated.
"""

from __future__ import annotations

import hashlib
import json
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter

BRAIN_MRI = Path(__file__).parents[3] / "shared" / "data" / "brain_mri_253"
CLASSES = ("Brain", "Liver", "Retina_RESC", "Retina_OCT2017", "Chest", "Histopathology")
MASKED = CLASSES[:3]
SIDE = 80  # pixels of the pictures written
SHOTS, TESTS = 2, 4  # of each kind


@cache
def sources(label: str) -> tuple[np.ndarray, ...]:
    """Return at least 54 different grey pictures uint8 (SIDE, SIDE), labelled "no" (healthy) or "yes" (tumour)."""
    files = sorted((BRAIN_MRI / label).glob("*.*")) if BRAIN_MRI.is_dir() else []
    unique = {hashlib.md5(file.read_bytes()).hexdigest(): file for file in reversed(files)}
    if files:
        return tuple(np.asarray(Image.open(file).convert("L").resize((SIDE, SIDE))) for file in unique.values())
    return tuple(generated(seed, label == "yes") for seed in range(54))


def generated(seed: int, lesion: bool) -> np.ndarray:
    """Return a textured disc, with a bright spot or without."""
    rng = np.random.default_rng([seed, lesion])
    y, x = np.mgrid[:SIDE, :SIDE]
    disc = np.hypot(x - SIDE / 2, y - SIDE / 2) < rng.uniform(0.36, 0.45) * SIDE
    image = disc * (90 + 60 * gaussian_filter(rng.normal(size=(SIDE, SIDE)), 3) * 10)
    return paint(image.clip(0, 180).astype(np.uint8), rng)[0] if lesion else image.clip(0, 180).astype(np.uint8)


def paint(image: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return the picture with a bright spot, and the mask of the spot, uint8 in {0, 255}."""
    y, x = np.mgrid[:SIDE, :SIDE]
    row, column = rng.uniform(0.35, 0.65, 2) * SIDE
    mask = np.hypot(x - column, y - row) < rng.uniform(0.08, 0.15) * SIDE
    return np.where(mask, np.uint8(255), image), (mask * 255).astype(np.uint8)


def save(path: Path, array: np.ndarray) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)
    return path.name


def bmad(folder: Path, classes: tuple[str, ...] = CLASSES) -> Path:
    """Write {Class}_AD of `classes` and their seed files, with "a" before "n" in some, as in the reference's."""
    rng = np.random.default_rng(0)
    normal, abnormal = iter(sources("no")), iter(sources("yes"))
    for number, name in enumerate(classes):
        lines = {}
        for part, count in (("valid", SHOTS), ("test", TESTS)):
            root = folder / f"{name}_AD" / part
            names = {"n": [], "a": []}
            for index in range(count):
                names["n"].append(save(root / "good" / "img" / f"{name}_{index}.png", next(normal)))
                file = f"{name}_{index + 50}.png"
                if name in MASKED:
                    image, mask = paint(next(normal), rng)
                    save(root / "Ungood" / "anomaly_mask" / file, mask)
                else:
                    image = next(abnormal)
                names["a"].append(save(root / "Ungood" / "img" / file, image))
            if part == "valid":
                lines = [f"{letter}-0: {' '.join(names[letter][::-1])}" for letter in ("an", "na")[number % 2]]
        seeds = folder / "fewshot_seed" / name / f"{SHOTS}-shot.txt"
        seeds.parent.mkdir(parents=True)
        seeds.write_text("\n".join(lines))
    return folder


def mediclip(folder: Path) -> Path:
    """Write brainmri, without masks, and busi, with masks: 6 training and 2 × TESTS test pictures each."""
    rng = np.random.default_rng(1)
    for name in ("brainmri", "busi"):
        normal, abnormal = iter(sources("no")), iter(sources("yes"))
        lines = {"train": [], "test": []}
        for part, count in (("train", 6), ("test", TESTS)):
            for index in range(count):
                file = f"{part}/normal/image_{index}.png"
                save(folder / name / "images" / file, next(normal))
                lines[part].append({"filename": file, "label": 0, "label_name": "normal", "clsname": name})
        for index in range(TESTS):
            file, extra = f"test/abnormal/image_{index}.png", {}
            image = next(abnormal)
            if name == "busi":
                image, mask = paint(image, rng)
                extra = {"mask": f"test/ground_true/mask_{index}.png"}
                save(folder / name / "images" / extra["mask"], mask)
            save(folder / name / "images" / file, image)
            lines["test"].append({"filename": file, "label": 1, "clsname": name, **extra})
        for part, objects in lines.items():
            path = folder / name / "samples" / f"{part}.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("".join(json.dumps(line) + "\n" for line in objects))
    return folder
