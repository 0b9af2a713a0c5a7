"""The model card of a detector: README.md in its folder, as the Hugging Face hub shows it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from medclipad.detection.storage import DetectorInfo

CARD = "README.md"
LICENCE = (
    "It was learned from images whose owner decides what may be done with it. The encoder has a licence of its own."
)
_PLANES = {"all": "axial, coronal and sagittal slices"}


def model_card(info: DetectorInfo) -> str:
    """Return the card of a detector, as Markdown with the hub's metadata. It names no volume and no patient."""
    from huggingface_hub import ModelCardData  # half a second, which reading a detector need not take

    metadata = ModelCardData(
        library_name="medclipad",
        pipeline_tag="image-segmentation",
        license="other",
        license_name="as-the-data",
        model_name=info.name,
        tags=["medical-imaging", "anomaly-detection", "few-shot", info.method],
    )
    sections = [
        (f"# {info.name}", [info.description or "An anomaly detector for volumes, made with MedCLIPAD.", "",
                            "**Research software: not for diagnosis.**"]),
        ("## What it learned from", _data(info)),
        ("## What it promises", _promise(info)),
        ("## Limits", [
            "- Promises hold for scans like the normal ones: same modality, sequence and kind of scanner. A volume "
            "that is unlike them as a whole gets a warning and no verdict.",
            "- It shows where a scan is unusual, not what it is. What was common in the normal scans is not found.",
        ]),
        ("## Use", ["```python", "import medclipad as mc", 'detector = mc.load_detector("this folder")',
                    'result = detector.detect(mc.read_volume("case.nii.gz"))', "print(result.verdict())", "```",
                    f"The weights of the encoder, {info.encoder}, are not in this folder; their SHA-256 is "
                    f"{info.encoder_sha256}."]),
        ("## Licence", [LICENCE]),
    ]  # fmt: skip
    body = "\n\n".join("\n".join([title, "", *lines]) for title, lines in sections)
    return f"---\n{metadata.to_yaml()}\n---\n\n{body}\n"


def _data(info: DetectorInfo) -> list[str]:
    """Return the lines on data and options."""
    config = info.config
    volumes = sum(1 for part in info.training_slices if part["normal"] or part["abnormal"])
    kind = _PLANES.get(config.planes, f"{info.plane} slices")
    lines = [
        f"- {info.normal_slices} normal and {info.abnormal_slices} abnormal {info.plane} slices of {volumes} volumes",
        f"- {kind}, at {info.image_size} × {info.image_size} pixels, intensity preset {info.intensity}",
        f"- method {info.method} on the encoder {info.encoder}, seed {config.seed}, {info.created:%Y-%m-%d}",
    ]
    return lines + [f"- {name}: {value:.4g}" for name, value in info.metrics.items() if isinstance(value, float)]


def _promise(info: DetectorInfo) -> list[str]:
    """Return the lines on false alarms."""
    calibration = info.calibration
    lines = [calibration.promise()]
    if calibration.n:
        lines += ["", f"The normal scans were {calibration.basis} while the detector looked at them."]
    if rates := calibration.rates():
        lines += ["", "| false regions per normal scan | limit of a region's highest map value |", "|---|---|"]
        lines += [f"| {rate:g} | {limit:.3f} |" for rate, limit in rates.items()]
    return lines
