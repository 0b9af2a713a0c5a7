"""Accuracy with the embedded encoder: MediCLIP and MVFA, both variants, beside memories of patches and brightness.

    python -m benchmarks.accuracy DATA [--quick] [--json FILE] [--page docs/accuracy.md]

DATA holds brain_mri_253 (no/, yes/), head_ct_hemorrhage (images/, labels.csv) and brats2013_deepmedic, or some of them.
Each draw takes k normal shots (for MVFA also k abnormal ones, with masks where there are) and tests on everything else
but the k abnormal ones, whoever saw them; BRATS on a patient that gave no shot. FILE keeps every run: an interrupted
study goes on where it was, and the tables are of all runs in it.
"""

from __future__ import annotations

import json as js
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import torch.nn.functional as F
import typer
from sklearn.metrics import average_precision_score, roc_auc_score
from torch import Tensor

from benchmarks.accuracy_data import SIZE, Draw, data_sets
from benchmarks.machine import machine
from medclipad.encoders import load_encoder
from medclipad.export.result_files import write_json, write_text
from medclipad.methods.base import Shots
from medclipad.methods.mediclip import MediCLIP, MediCLIPOptions
from medclipad.methods.mediclip.normal_memory import PROJECTED, coreset, nearest
from medclipad.methods.mvfa import MVFA, MVFAOptions, combine

SHOTS = (16, 4, 8, 32)  # the middle first: an interrupted study has it
SEEDS = 5
MARKS = ("<!-- tables of benchmarks.accuracy -->", "<!-- end of tables -->")
MEMORY_SHARES = (0, 0.6, 0.7, 0.8, 0.9)
PART = 16  # images looked at together
Found = dict[str, tuple[Tensor, Tensor | None]]  # by method: image scores (n,) and maps (n, S, S)


def brightness(draw: Draw, seed: int) -> Found:
    """The trivial baseline: the picture itself as the map."""
    maps = torch.from_numpy(draw.images)
    return {"brightness": (_method(0).scores_of(maps), maps)}


@torch.inference_mode()
def memories(draw: Draw, seed: int) -> Found:
    """A plain memory (of the same two stages and size, averaged over 3×3, each normalised) and MediCLIP's alone."""
    torch.manual_seed(seed)
    model = _method(1.0)
    normal = torch.from_numpy(draw.shots.normal)
    model.remember(draw.shots.normal, seed)
    model.calibrate(draw.shots.normal)
    plain = torch.cat([_plain(model, part) for part in normal.split(PART)]).flatten(0, 2)
    generator = torch.Generator().manual_seed(seed)
    directions = torch.randn(plain.shape[1], PROJECTED, generator=generator)
    plain = plain[coreset(plain @ directions, min(model.options.memory_size, len(plain)), generator)]
    maps, raw = [], []
    for part in torch.from_numpy(draw.images).split(PART):
        raw.append(F.interpolate(nearest(_plain(model, part), plain)[:, None], (SIZE, SIZE), mode="bilinear")[:, 0])
        maps.append(model.memory(model._memory_maps(model.patch_tokens(part)), part))
    maps, raw = torch.cat(maps), torch.cat(raw)
    return {"plain patch memory": (raw.flatten(1).amax(dim=1), raw), "memory alone": (model.scores_of(maps), maps)}


def _plain(model: MediCLIP, images: Tensor) -> Tensor:
    maps = model._memory_maps(model.patch_tokens(images))
    smooth = [F.normalize(F.avg_pool2d(one, 3, 1, 1, count_include_pad=False), dim=1) for one in maps]
    same = [F.interpolate(one, maps[0].shape[-2:], mode="bilinear") for one in smooth]
    return torch.cat(same, dim=1).permute(0, 2, 3, 1)


def mediclip(variant: str) -> Callable[[Draw, int], Found]:
    """MediCLIP from the normal shots, as it is by default and, from the same training, with other shares of memory."""

    @torch.inference_mode()
    def measure(model: MediCLIP, draw: Draw) -> Found:
        heads, memories = [], []
        for part in torch.from_numpy(draw.images).split(PART):
            tokens = model.patch_tokens(part)
            heads.append(model.probabilities(tokens)[:, 1])
            memories.append(model.memory(model._memory_maps(tokens), part))
        head, memory = torch.cat(heads), torch.cat(memories)
        found = {}
        for share in dict.fromkeys((model.memory_share, *MEMORY_SHARES)):
            maps = (1 - share) * head + share * memory
            name = "" if share == model.memory_share else f", memory share {share:g}"
            found[f"mediclip/{variant}{name}"] = (model.scores_of(maps), maps)
        return found

    def run(draw: Draw, seed: int) -> Found:
        torch.manual_seed(seed)
        model = MediCLIP(_encoder(), MediCLIPOptions(variant=variant))
        model.fit(Shots(draw.shots.normal, draw.shots.abnormal[:0], ()), seed)
        model.calibrate(draw.shots.normal)
        return measure(model, draw)

    return run


def mvfa(variant: str) -> Callable[[Draw, int], Found]:
    """MVFA few-shot with its defaults, each half scaled over the test set as in the paper, and its memory alone."""

    def run(draw: Draw, seed: int) -> Found:
        torch.manual_seed(seed)
        model = MVFA(_encoder(), MVFAOptions(variant=variant))
        model.fit(draw.shots, seed)
        evidence = model.evidence(draw.images)
        name, maps = f"mvfa/{variant}", combine(evidence.zero_map, evidence.few_map)
        found = {name: (model.scores_of(maps), maps)}
        found[f"{name}, memory alone"] = (model.scores_of(evidence.few_map), evidence.few_map)
        if draw.lesions is None:
            found[f"{name}, published score"] = (combine(evidence.zero_score, evidence.few_score), None)
        return found

    return run


JOBS: dict[str, Callable[[Draw, int], Found]] = {
    "brightness": brightness,
    "memories": memories,
    "mediclip/reference": mediclip("reference"),
    "mvfa/reference": mvfa("reference"),
    "mediclip/paper": mediclip("paper"),
    "mvfa/paper": mvfa("paper"),
}


def _encoder():
    return load_encoder("embedded", SIZE)


def _method(memory_share: float) -> MediCLIP:
    return MediCLIP(_encoder(), MediCLIPOptions(memory_share=memory_share))


def figures(draw: Draw, scores: Tensor, maps: Tensor | None) -> dict[str, float]:
    """Image AUROC and, where lesions are known, AUROC and average precision of all pixels of all tested images."""
    found = {"image_auroc": roc_auc_score(draw.abnormal, scores.cpu().numpy())}
    if draw.lesions is not None and maps is not None:
        truth, values = draw.lesions.ravel(), maps.cpu().numpy().ravel()
        found["pixel_auroc"] = roc_auc_score(truth, values)
        found["pixel_ap"] = average_precision_score(truth, values)
    return {key: round(float(value), 4) for key, value in found.items()}


def tables(runs: list[dict]) -> str:
    """Markdown: per data set and figure a table by method and k, mean ± sd over the draws (and their number)."""
    lines, runs = [], sorted(runs, key=lambda run: list(JOBS).index(run["job"]))
    for data in dict.fromkeys(run["data"] for run in runs):
        for figure in ("image_auroc", "pixel_auroc", "pixel_ap"):
            chosen = [run for run in runs if run["data"] == data and figure in run]
            shots = sorted({run["k"] for run in chosen})
            if not chosen:
                continue
            lines += [f"\n**{data}, {figure.replace('_', ' ')}**\n"]
            lines += ["| | " + " | ".join(f"k = {k}" for k in shots) + " |", "|---" * (len(shots) + 1) + "|"]
            for method in dict.fromkeys(run["method"] for run in chosen):
                cells = []
                for k in shots:
                    values = [run[figure] for run in chosen if run["method"] == method and run["k"] == k]
                    spread = f" ± {np.std(values):.3f}" if len(values) > 1 else ""
                    cells.append(f"{np.mean(values):.3f}{spread} ({len(values)})" if values else "–")
                lines.append(f"| {method} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def put_tables(page: Path, text: str) -> None:
    """Replace what stands between the two marks of a page."""
    before, _, rest = page.read_text(encoding="utf-8").partition(MARKS[0])
    _, mark, after = rest.partition(MARKS[1])
    if not mark:
        raise typer.BadParameter(f"{page} has no lines {MARKS[0]} and {MARKS[1]} for the tables to stand between.")
    write_text(page, f"{before}{MARKS[0]}\n{text}\n\n{mark}{after}")


def main(
    data: Path,
    quick: Annotated[bool, typer.Option("--quick", help="k = 16 and one draw only.")] = False,
    json: Annotated[Path | None, typer.Option(help="Keep the runs here and go on from what is there.")] = None,
    job: Annotated[list[str] | None, typer.Option(help=f"Only these: {', '.join(JOBS)}.")] = None,
    shots: Annotated[list[int] | None, typer.Option(help="Only these numbers of normal shots.")] = None,
    seeds: int = SEEDS,
    page: Annotated[Path | None, typer.Option(help="Put the tables into this Markdown page.")] = None,
) -> None:
    """Measure what is not measured yet, and print the tables."""
    unknown = sorted(set(job or ()) - set(JOBS))
    if unknown:
        raise typer.BadParameter(f"There is no job {unknown[0]}: choose from {', '.join(JOBS)}.")
    runs = js.loads(json.read_text())["runs"] if json and json.is_file() else []
    done = {(run["data"], run["job"], run["k"], run["seed"]) for run in runs}
    sets = dict(data_sets(data))
    if not sets:
        raise typer.BadParameter(f"{data} holds none of the data sets: see the top of benchmarks/accuracy.py.")
    for k in [16] if quick else shots or SHOTS:
        for name in job or JOBS:
            for which, images in sets.items():
                for seed in range(1 if quick else min(seeds, images.draws)):
                    if (which, name, k, seed) in done:
                        continue
                    draw, start = images.draw(k, seed), (time.perf_counter(), time.process_time())
                    found = JOBS[name](draw, seed)
                    spent = [time.perf_counter() - start[0], time.process_time() - start[1]]
                    for method, result in found.items():
                        key = {"data": which, "job": name, "method": method, "k": k, "seed": seed}
                        seconds = {"seconds": round(spent[0], 1), "core_seconds": round(spent[1], 1)}
                        runs.append(key | figures(draw, *result) | seconds)
                        print(js.dumps(runs[-1]), flush=True)
                    if json:
                        about = {label: images.describe() for label, images in sets.items()}
                        write_json(json, {"machine": machine(), "data": about, "runs": runs})
    described = "\n".join(f"- {which}: {images.describe()}" for which, images in sets.items())
    spent = {(run["data"], run["job"], run["k"], run["seed"]): run["core_seconds"] for run in runs}
    text = f"{described}\n- {len(spent)} runs, {sum(spent.values()) / 60:.0f} core-minutes\n{tables(runs)}"
    print(f"\n{text}")
    if page:
        put_tables(page, text)


if __name__ == "__main__":
    typer.run(main)
