"""Do the promises hold for the next scan? `python -m benchmarks.calibration --json FILE [--plot FILE]`.

Simulated normal scans of many people, on small grids. In each fit some of them, drawn at random, are learned from and
calibrated on, and the others are the next patients. For each configuration it prints

- the realised false alarm rate of the volume's p-value, beside what was promised,
- the realised false regions per scan, beside ½, 1, 2 and 4,
- the share of slices above the slice limit, and of voxels above the outline,
- how many scans of another acquisition get a warning, and how many normal ones do,
- how the outlined volume of masses compares with the truth.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from scipy.stats import binom

from benchmarks.machine import machine
from benchmarks.recipe import recipe_file
from medclipad.cli.terminal import print_table, progress_bar
from medclipad.detection.detector import AnomalyDetector
from medclipad.detection.fit import fit
from medclipad.files import write_text
from medclipad.volume import Volume
from sample_data.cases import CASES
from sample_data.simulate import simulate

ALPHAS = (0.05, 0.1, 0.2)
RATES = (0.5, 1.0, 2.0, 4.0)
FACTOR = 2.0  # between the outlined and the true volume of a mass that counts as right
NORMAL, MASSES = ("normal-1", "normal-3"), ("bright-mass", "dark-mass")
FIRST_SEED = 500  # of the people; no other benchmark uses these


def simulated(case: str, seed: int, resolution: float) -> tuple[Volume, Volume | None]:
    """Return a case of the sample study with another person, and its lesion."""
    known = next(known for known in CASES if known.id == case)
    volume, truth = simulate(replace(known, grid=known.grid.coarser(resolution)), seed)
    return replace(volume, name=f"{case}-{seed}"), truth


def _shifts() -> dict[str, Callable[[Volume, np.random.Generator], np.ndarray]]:
    """Return strong changes of the acquisition, by name: each maps a scan to other values."""

    def bright(volume: Volume) -> tuple[np.ndarray, float]:
        array = volume.array.astype(np.float32)
        return array, float(np.percentile(array[array > 0], 90))

    def noise(volume: Volume, rng: np.random.Generator) -> np.ndarray:
        array, level = bright(volume)
        return np.abs(array + rng.normal(0, 0.15 * level, array.shape) * (array > 0))

    def bias(volume: Volume, rng: np.random.Generator) -> np.ndarray:
        array, _ = bright(volume)
        x, y, z = np.meshgrid(*(np.linspace(-1, 1, n) for n in array.shape), indexing="ij", sparse=True)
        return array * np.exp(0.5 * (x + y - 0.5 * z))

    def sequence(volume: Volume, rng: np.random.Generator) -> np.ndarray:
        array, level = bright(volume)
        return np.where(array > 0, np.clip(1.3 * level - array, 1, None), 0)

    def contrast(volume: Volume, rng: np.random.Generator) -> np.ndarray:
        array, level = bright(volume)
        return level * (array / level) ** 2.2

    def blur(volume: Volume, rng: np.random.Generator) -> np.ndarray:
        array, _ = bright(volume)
        return gaussian_filter(array, 2.5 / np.array(volume.spacing)) * (array > 0)

    return {"noise": noise, "bias field": bias, "sequence": sequence, "contrast": contrast, "blur": blur}


def measure(
    configuration: dict[str, Any], pool: list[Volume], scans: int, fits: int, bar: Callable[..., None]
) -> dict[str, Any]:
    """Return what a configuration promised on `scans` normal scans, and what came true on the others of the pool."""
    p_values, slices, voxels, warned = [], [], [], []
    regions: dict[float, list[int]] = {rate: [] for rate in RATES}
    supported: list[float] = []
    started = time.perf_counter()
    detector = None
    for number in range(fits):
        order = np.random.default_rng(number).permutation(len(pool))
        detector = fit(normal=[pool[i] for i in order[:scans]], seed=number, **configuration)
        supported = [rate for rate in detector.info.calibration.rates() if rate in RATES]
        for done, index in enumerate(order[scans:]):
            bar("next scans", done, len(order) - scans, {"fit": number})
            result = detector.detect(pool[index])
            warned.append(bool(result.warnings))
            p_values.append(detector.info.calibration.p_value(result.volume_score))
            kept = result.slice_scores[np.isfinite(result.slice_scores)]
            slices.append(float((kept > result.slice_limit).mean()))
            voxels.append(float((result.anomaly_map.array[result.foreground] > result.threshold).mean()))
            for rate in supported:
                regions[rate].append(len(result.regions(rate)))
    assert detector is not None, "at least one fit"
    p = np.array(p_values, dtype=float)
    return {
        "configuration": {key: value for key, value in configuration.items() if key != "abnormal"},
        "scans": scans,
        "fits": fits,
        "next_scans": len(p),
        "promise": detector.info.calibration.promise(),
        "alpha": [_alpha(alpha, p, scans) for alpha in ALPHAS],
        "regions": [
            {
                "promised": rate,
                "realised": float(np.mean(regions[rate])),
                "within_25_percent": _near(rate, regions[rate]),
            }
            for rate in supported
        ],
        "slices_above_limit": float(np.mean(slices)),
        "slices_promised": detector.info.calibration.slice_rate,
        "voxels_above_outline": float(np.mean(voxels)),
        "normal_warned": float(np.mean(warned)),
        "seconds": time.perf_counter() - started,
        "detector": detector,
    }


def _alpha(alpha: float, p: np.ndarray, scans: int) -> dict[str, Any]:
    low, high = binom.interval(0.95, len(p), alpha)
    realised = float((p <= alpha + 1e-9).mean())
    return {
        "promised": alpha,
        "supported": alpha >= 1 / (scans + 1) - 1e-9,
        "realised": realised,
        "band": [low / len(p), high / len(p)],
        "within": bool(low / len(p) <= realised <= high / len(p)),
    }


def _near(rate: float, counts: list[int]) -> bool:
    return bool(abs(np.mean(counts) / rate - 1) <= 0.25)


def shifted(detector: AnomalyDetector, scans: list[Volume]) -> dict[str, float]:
    """Return the share of scans that get a warning after each change of the acquisition."""
    rng = np.random.default_rng(0)
    return {
        name: float(np.mean([bool(detector.detect(scan.with_array(change(scan, rng))).warnings) for scan in scans]))
        for name, change in _shifts().items()
    }


def outlined(detector: AnomalyDetector, masses: list[tuple[Volume, Volume]]) -> list[dict[str, Any]]:
    """Return the true and the outlined volume of each mass at the default operating point, in ml."""
    rows = []
    for volume, truth in masses:
        result, lesion = detector.detect(volume), truth.array > 0
        mask, ml = result.segmentation().array > 0, float(np.prod(volume.spacing)) / 1000
        found = bool((mask & lesion).any())
        true, drawn = float(lesion.sum() * ml), float(mask.sum() * ml)
        rows.append({"name": volume.name, "ml": true, "outlined_ml": drawn, "found": found,
                     "within_factor": bool(found and 1 / FACTOR <= drawn / true <= FACTOR)})  # fmt: skip
    return rows


def plot(results: list[dict[str, Any]], path: Path) -> None:
    """Draw what came true against what was promised."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.ticker import FixedLocator, FormatStrFormatter, NullLocator

    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 4.2), layout="constrained")
    alphas = np.linspace(0.01, 0.25, 49)
    n = max(result["next_scans"] for result in results)
    low, high = binom.interval(0.95, n, alphas)
    left.fill_between(alphas, low / n, high / n, color="0.9", label=f"95 % band of {n} scans")
    right.fill_between([0.4, 5], [0.3, 3.75], [0.5, 6.25], color="0.9", label="±25 %")
    for result in results:
        configuration = result["configuration"]
        name = f"{configuration['method']}, {configuration['encoder'].partition('/')[0]}, {configuration['planes']}"
        name += f", {result['scans']} scans"
        rows = [row for row in result["alpha"] if row["supported"]]
        left.plot([row["promised"] for row in rows], [row["realised"] for row in rows], "o-", label=name)
        rows = result["regions"]
        right.plot([row["promised"] for row in rows], [row["realised"] for row in rows], "o-")
    left.plot([0, 0.25], [0, 0.25], "k:", lw=1)
    right.plot([0.4, 5], [0.4, 5], "k:", lw=1)
    right.set(xscale="log", yscale="log", xlabel="promised false regions per normal scan", ylabel="realised")
    for axis in (right.xaxis, right.yaxis):
        axis.set_major_locator(FixedLocator(RATES))
        axis.set_major_formatter(FormatStrFormatter("%g"))
        axis.set_minor_locator(NullLocator())
    left.set(xlabel="promised false alarm rate (scans)", ylabel="realised", xlim=(0, 0.25), ylim=(0, 0.3))
    left.legend(fontsize=7)
    right.legend(fontsize=7)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> None:
    """Measure from the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.calibration", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    parser.add_argument("--plot", type=Path, help="draw them to this file")
    parser.add_argument("--earlier", type=Path, nargs="+", default=[], help="JSON of earlier runs to show as well")
    parser.add_argument("--scans", type=int, nargs="+", default=[39, 5], help="normal scans to fit (default 39 and 5)")
    parser.add_argument("--next", type=int, default=40, help="other normal scans (default 40)")
    parser.add_argument("--fits", type=int, default=6, help="random draws of the scans to fit (default 6)")
    parser.add_argument("--methods", nargs="+", default=["mediclip", "mvfa"])
    parser.add_argument("--encoders", nargs="+", default=["embedded"], help="also an architecture of open_clip")
    parser.add_argument("--planes", nargs="+", default=["axial", "all"])
    parser.add_argument("--resolution", type=float, default=4.0, help="finest spacing in mm (default 4)")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    results = [result for file in arguments.earlier for result in json.loads(file.read_text("utf-8"))["results"]]
    with tempfile.TemporaryDirectory() as folder, progress_bar() as bar:
        count = max(arguments.scans) + arguments.next
        pool = []
        for done in range(count):
            bar("simulate", done, count, {})
            case = NORMAL[done % len(NORMAL)]
            pool.append(simulated(case, FIRST_SEED + done, arguments.resolution)[0])
        masses = [(volume, truth) for case in MASSES for seed in range(FIRST_SEED, FIRST_SEED + 6)
                  for volume, truth in [simulated(case, seed, arguments.resolution)] if truth is not None]  # fmt: skip
        sick = [pair for case in MASSES for seed in range(400, 403)
                for pair in [simulated(case, seed, arguments.resolution)]]  # fmt: skip
        for name in arguments.encoders:
            encoder = name if name == "embedded" else recipe_file(name, Path(folder) / f"{name}.pt")
            for method in arguments.methods:
                abnormal = {"abnormal": sick} if method == "mvfa" else {}
                for planes in arguments.planes:
                    for scans in arguments.scans:
                        configuration = {"method": method, "encoder": encoder, "planes": planes, **abnormal}
                        result = measure(configuration, pool, scans, arguments.fits, bar)
                        detector = result.pop("detector")
                        result["shifted_warned"] = shifted(detector, pool[-10:])
                        result["masses"] = outlined(detector, masses)
                        result["configuration"]["encoder"] = name
                        results.append(result)
    _print(results)
    if arguments.json:
        content = {
            "machine": machine(),
            "arguments": {**vars(arguments), "json": None, "plot": None, "earlier": len(arguments.earlier)},
            "results": results,
        }
        write_text(arguments.json, json.dumps(content, indent=1) + "\n")
    if arguments.plot:
        plot(results, arguments.plot)


def _print(results: list[dict[str, Any]]) -> None:
    headings = ("method", "encoder", "planes", "scans", *(f"α {alpha:g}" for alpha in ALPHAS),
                *(f"{rate:g} a scan" for rate in RATES), "slices", "voxels", "warned: normal", "warned: shifts",
                "masses")  # fmt: skip
    rows = []
    for result in results:
        configuration, masses = result["configuration"], [row for row in result["masses"] if row["found"]]
        regions = {row["promised"]: f"{row['realised']:.2f}" for row in result["regions"]}
        rows.append((
            configuration["method"], configuration["encoder"], configuration["planes"], str(result["scans"]),
            *(f"{row['realised']:.3f}" if row["supported"] else "not promised" for row in result["alpha"]),
            *(regions.get(rate, "not promised") for rate in RATES),
            f"{100 * result['slices_above_limit']:.1f} %", f"{100 * result['voxels_above_outline']:.2f} %",
            f"{100 * result['normal_warned']:.0f} %", f"{100 * min(result['shifted_warned'].values()):.0f} %",
            f"{sum(row['within_factor'] for row in masses)} of {len(masses)}",
        ))  # fmt: skip
    words = f"outlined within a factor of {FACTOR:g} of the truth, of those found"
    print_table(headings, rows, f"masses: {words}; shifts: the one that is warned of least")


if __name__ == "__main__":
    main()
