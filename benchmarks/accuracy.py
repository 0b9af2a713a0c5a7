"""Accuracy on the embedded encoder: MediCLIP and MVFA in both variants, MadCLIP, memories of patches, brightness.

    python -m benchmarks.accuracy DATA [--quick] [--json FILE] [--page docs/explanation/accuracy.md]

DATA holds brain_mri_253 (no/, yes/), head_ct_hemorrhage (images/, labels.csv) and brats2013_deepmedic, or some of them.
Each draw takes k normal shots, and for MVFA and MadCLIP k abnormal ones, with masks where there are any. It tests on
all other images, without those k abnormal ones for any method; on BRATS, on a patient that gave no shot. FILE keeps
every run: an interrupted study continues, and the tables show all runs in the file.
"""

from __future__ import annotations

import json as js
import time
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
import typer
from sklearn.metrics import average_precision_score, roc_auc_score
from torch import Tensor

from benchmarks.accuracy_data import SIZE, Draw, data_sets
from benchmarks.machine import machine
from benchmarks.pages import markdown_table, replace_between
from medclipad.encoders import ImageEncoder, load_encoder
from medclipad.export.result_files import write_json
from medclipad.methods.base import Shots
from medclipad.methods.common.coreset import PROJECTED, coreset
from medclipad.methods.common.token_memory import nearest_distance
from medclipad.methods.madclip.method import MadCLIP
from medclipad.methods.madclip.network import SCORE_SHARE_WITHOUT_TEXT, MadCLIPNetwork
from medclipad.methods.madclip.options import MadCLIPOptions
from medclipad.methods.mediclip.method import MediCLIP
from medclipad.methods.mediclip.network import MediCLIPNetwork
from medclipad.methods.mediclip.options import MediCLIPOptions
from medclipad.methods.memory.method import Memory, MemoryOptions
from medclipad.methods.memory.network import MemoryNetwork
from medclipad.methods.mvfa.evidence import combine
from medclipad.methods.mvfa.method import MVFA
from medclipad.methods.mvfa.network import MVFANetwork
from medclipad.methods.mvfa.options import MVFAOptions

SHOTS = (16, 4, 8, 32)  # 16 first: an interrupted study has the middle
SEEDS = 5
MARKS = ("<!-- tables of benchmarks.accuracy -->", "<!-- end of tables -->")
MEMORY_SHARES = (0, 0.6, 0.8, 1)
TRAINED_SHARE = 0.9  # any below 1 trains the head
BATCH = 16  # images analysed together
Outcome = dict[str, tuple[Tensor, Tensor | None]]
"""By name of the method: image scores (n,), and maps (n, S, S) if it makes any."""
Variant = Literal["reference", "paper"]


def brightness(draw: Draw, seed: int) -> Outcome:
    """Take the image itself as the map: the trivial baseline."""
    maps = torch.from_numpy(draw.images)
    return {"brightness": (memory_model(0).scores_of(maps), maps)}


@torch.inference_mode()
def memories(draw: Draw, seed: int) -> Outcome:
    """Compare with MediCLIP's memory alone, and with a plain one of the same size; see `plain_tokens`."""
    torch.manual_seed(seed)
    model = memory_model(1.0)
    assert model.memory is not None
    normal = torch.from_numpy(draw.shots.normal)
    model.remember(draw.shots, seed)
    model.calibrate(draw.shots.normal)
    plain = torch.cat([plain_tokens(model, part) for part in normal.split(BATCH)]).flatten(0, 2)
    generator = torch.Generator().manual_seed(seed)
    directions = torch.randn(plain.shape[1], PROJECTED, generator=generator)
    plain = plain[coreset(plain @ directions, min(model.options.memory_size, len(plain)), generator)]
    own_maps, plain_maps = [], []
    for part in torch.from_numpy(draw.images).split(BATCH):
        distances = nearest_distance(plain_tokens(model, part), plain)[:, None]
        plain_maps.append(F.interpolate(distances, (SIZE, SIZE), mode="bilinear")[:, 0])
        own_maps.append(model.memory(model.memory_maps(model.patch_tokens(part)), part))
    own, raw = torch.cat(own_maps), torch.cat(plain_maps)
    return {"plain patch memory": (raw.flatten(1).amax(dim=1), raw), "memory alone": (model.scores_of(own), own)}


def plain_tokens(model: MediCLIPNetwork, images: Tensor) -> Tensor:
    """Return tokens (n, g, g, width) of the memory's two stages, averaged over 3×3 neighbours and normalised."""
    maps = model.memory_maps(model.patch_tokens(images))
    smooth = [F.normalize(F.avg_pool2d(stage, 3, 1, 1, count_include_pad=False), dim=1) for stage in maps]
    same_size = [F.interpolate(stage, maps[0].shape[-2:], mode="bilinear") for stage in smooth]
    return torch.cat(same_size, dim=1).permute(0, 2, 3, 1)


def mediclip(variant: Variant) -> Callable[[Draw, int], Outcome]:
    """Return a job: MediCLIP from the normal shots with its default share of memory and, trained once, with others."""

    @torch.inference_mode()
    def evaluate(model: MediCLIPNetwork, draw: Draw) -> Outcome:
        assert model.memory is not None
        heads, memories = [], []
        for part in torch.from_numpy(draw.images).split(BATCH):
            tokens = model.patch_tokens(part)
            heads.append(model.probabilities(tokens)[:, 1])
            memories.append(model.memory(model.memory_maps(tokens), part))
        head, memory = torch.cat(heads), torch.cat(memories)
        outcome: Outcome = {}
        for share in dict.fromkeys((model.memory_share, *MEMORY_SHARES)):
            maps = (1 - share) * head + share * memory
            name = "" if share == model.memory_share else f", memory share {share:g}"
            outcome[f"mediclip/{variant}{name}"] = (model.scores_of(maps), maps)
        return outcome

    def run(draw: Draw, seed: int) -> Outcome:
        torch.manual_seed(seed)
        model = MediCLIPNetwork(_encoder(), MediCLIPOptions(variant=variant, memory_share=TRAINED_SHARE))
        MediCLIP.fit(model, Shots(draw.shots.normal, draw.shots.abnormal[:0], ()), seed)
        model.calibrate(draw.shots.normal)
        return evaluate(model, draw)

    return run


def mvfa(variant: Variant) -> Callable[[Draw, int], Outcome]:
    """Return a job: MVFA few-shot, its two maps scaled over the test set as in the paper, and its memory alone."""

    def run(draw: Draw, seed: int) -> Outcome:
        torch.manual_seed(seed)
        model = MVFANetwork(_encoder(), MVFAOptions(variant=variant))
        MVFA.fit(model, draw.shots, seed)
        evidence = model.evidence(draw.images)
        name, maps = f"mvfa/{variant}", combine(evidence.zero_map, evidence.few_map)
        outcome: Outcome = {name: (model.scores_of(maps), maps)}
        outcome[f"{name}, memory alone"] = (model.scores_of(evidence.few_map), evidence.few_map)
        if draw.lesions is None:
            outcome[f"{name}, published score"] = (combine(evidence.zero_score, evidence.few_score), None)
        return outcome

    return run


def madclip(draw: Draw, seed: int) -> Outcome:
    """Train MadCLIP; beside its own score the published one: the map's maximum with masks, else the det head's."""
    torch.manual_seed(seed)
    model = MadCLIPNetwork(_encoder(), MadCLIPOptions())
    MadCLIP.fit(model, draw.shots, seed)
    parts = [model.anomaly(part)[0] for part in torch.from_numpy(draw.images).split(BATCH)]
    maps = torch.cat(parts)
    published = maps.flatten(1).amax(dim=1)
    if not model.has_masks:
        model.score_share = 0.0
        scores = [model.anomaly(part)[1] for part in torch.from_numpy(draw.images).split(BATCH)]
        published = torch.cat([part for part in scores if part is not None])
        model.score_share = SCORE_SHARE_WITHOUT_TEXT
    return {"madclip": (model.scores_of(maps), maps), "madclip, published score": (published, None)}


def memory(draw: Draw, seed: int) -> Outcome:
    """Remember the normal shots."""
    torch.manual_seed(seed)
    model = MemoryNetwork(_encoder(), MemoryOptions())
    Memory.fit(model, draw.shots, seed)
    model.calibrate(draw.shots.normal)
    maps = torch.cat([model.anomaly(part)[0] for part in torch.from_numpy(draw.images).split(BATCH)])
    return {"memory": (model.scores_of(maps), maps)}


JOBS: dict[str, Callable[[Draw, int], Outcome]] = {
    "brightness": brightness,
    "memories": memories,
    "mediclip/reference": mediclip("reference"),
    "mvfa/reference": mvfa("reference"),
    "mediclip/paper": mediclip("paper"),
    "mvfa/paper": mvfa("paper"),
    "madclip": madclip,
    "memory": memory,
}


def _encoder() -> ImageEncoder:
    return load_encoder("embedded", SIZE)


def memory_model(memory_share: float) -> MediCLIPNetwork:
    """Return an untrained MediCLIP model whose maps are the memory's by this share."""
    return MediCLIPNetwork(_encoder(), MediCLIPOptions(memory_share=memory_share))


def figures(draw: Draw, scores: Tensor, maps: Tensor | None) -> dict[str, float]:
    """Return the image AUROC and, where lesions are known, AUROC and average precision of all tested pixels."""
    found = {"image_auroc": roc_auc_score(draw.abnormal, scores.cpu().numpy())}
    if draw.lesions is not None and maps is not None:
        truth, values = draw.lesions.ravel(), maps.cpu().numpy().ravel()
        found["pixel_auroc"] = roc_auc_score(truth, values)
        found["pixel_ap"] = average_precision_score(truth, values)
    return {key: round(float(value), 4) for key, value in found.items()}


def tables(runs: list[dict]) -> str:
    """Return Markdown tables, one for each data set and metric: mean ± standard deviation (draws) by method and k."""
    parts, runs = [], sorted(runs, key=lambda run: list(JOBS).index(run["job"]))
    for data in dict.fromkeys(run["data"] for run in runs):
        for figure in ("image_auroc", "pixel_auroc", "pixel_ap"):
            chosen = [run for run in runs if run["data"] == data and figure in run]
            shots = sorted({run["k"] for run in chosen})
            if not chosen:
                continue
            rows = [
                [
                    method,
                    *(
                        _cell([run[figure] for run in chosen if (run["method"], run["k"]) == (method, k)])
                        for k in shots
                    ),
                ]
                for method in dict.fromkeys(run["method"] for run in chosen)
            ]
            table = markdown_table(["", *(f"k = {k}" for k in shots)], rows)
            parts.append(f"\n**{data}, {figure.replace('_', ' ')}**\n\n{table}")
    return "\n".join(parts)


def _cell(values: list[float]) -> str:
    """Return mean ± standard deviation (number of draws), or a dash."""
    spread = f" ± {np.std(values):.3f}" if len(values) > 1 else ""
    return f"{np.mean(values):.3f}{spread} ({len(values)})" if values else "–"


def main(
    data: Annotated[Path, typer.Argument(help="Folder of the data sets.")],
    quick: Annotated[bool, typer.Option("--quick", help="Only k = 16 and one draw.")] = False,
    json: Annotated[Path | None, typer.Option(help="File for the runs; those it holds are not repeated.")] = None,
    job: Annotated[list[str] | None, typer.Option(help=f"Only these jobs: {', '.join(JOBS)}.")] = None,
    shots: Annotated[list[int] | None, typer.Option(help="Only these numbers of normal shots.")] = None,
    seeds: Annotated[int, typer.Option(help="Number of draws.")] = SEEDS,
    page: Annotated[Path | None, typer.Option(help="Markdown page to put the tables into.")] = None,
) -> None:
    """Measure the accuracy on the embedded encoder, and print tables."""
    unknown = sorted(set(job or ()) - set(JOBS))
    if unknown:
        raise typer.BadParameter(f"There is no job {unknown[0]}: choose from {', '.join(JOBS)}.")
    runs = js.loads(json.read_text())["runs"] if json and json.is_file() else []
    done = {_run_key(run) for run in runs}
    sets = dict(data_sets(data))
    if not sets:
        raise typer.BadParameter(f"{data} holds none of the data sets: see the top of benchmarks/accuracy.py.")
    descriptions = {name: image_set.describe() for name, image_set in sets.items()}
    for k, job_name, data_name in product([16] if quick else shots or SHOTS, job or JOBS, sets):
        for seed in range(1 if quick else min(seeds, sets[data_name].draws)):
            if (data_name, job_name, k, seed) in done:
                continue
            for run in _measure(sets[data_name].draw(k, seed), job_name, seed):
                runs.append(
                    {"data": data_name, "job": job_name, "method": run.pop("method"), "k": k, "seed": seed} | run
                )
                print(js.dumps(runs[-1]), flush=True)
            if json:
                write_json(json, {"machine": machine(), "data": descriptions, "runs": runs})
    described = "\n".join(f"- {name}: {description}" for name, description in descriptions.items())
    spent = {_run_key(run): run["core_seconds"] for run in runs}
    text = f"{described}\n- {len(spent)} runs, {sum(spent.values()) / 60:.0f} core-minutes\n{tables(runs)}"
    print(f"\n{text}")
    if page:
        replace_between(page, MARKS, text)


def _measure(draw: Draw, job: str, seed: int) -> list[dict[str, Any]]:
    """Run a job; return the metrics and times of each method in it."""
    start = time.perf_counter(), time.process_time()
    outcome = JOBS[job](draw, seed)
    seconds = {
        "seconds": round(time.perf_counter() - start[0], 1),
        "core_seconds": round(time.process_time() - start[1], 1),
    }
    return [{"method": method} | figures(draw, *result) | seconds for method, result in outcome.items()]


def _run_key(run: dict[str, Any]) -> tuple[str, str, int, int]:
    return run["data"], run["job"], run["k"], run["seed"]


if __name__ == "__main__":
    typer.run(main)
