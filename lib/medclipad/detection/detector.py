"""The detector: an encoder, a trained method and a calibration, behind fit, detect, save and load."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import normalize

from medclipad.detection.acquisition import describe_volume
from medclipad.detection.alignment import NOT_ALIGNED, NotAlikeError, Reference
from medclipad.detection.calibration import Scale
from medclipad.detection.evidence import Evidence
from medclipad.detection.result import AnomalyResult
from medclipad.detection.slice_frames import (
    FramedVolume,
    batches,
    detection_memory,
    seen_in,
    smooth,
    smoothed_scores,
)
from medclipad.detection.storage import DetectorInfo, read_info, read_weights, save_folder
from medclipad.encoders import ImageEncoder, load_encoder
from medclipad.errors import DetectorError
from medclipad.methods import get_method
from medclipad.methods.base import AnomalyModel, as_rgb
from medclipad.volume import Slicing, Volume, require_modality
from medclipad.volume.memory_budget import require_memory
from medclipad.volume.progress import Progress, no_progress

_OTHER_MODALITY = (
    "use a detector for this modality, or insist with force_modality=True (--force-modality, force_modality over HTTP)"
)
NEIGHBOURS = 2.0  # standard deviation that smooths slice scores along the stack, in that of the maps
BATCH = 16  # slices analysed together: more is not faster on a processor, and progress is told per batch


@dataclass(frozen=True)
class RawDetection:
    """What the method says of a volume, before normal scans say what that means.

    Attributes
    ----------
    map
        float32 (I, J, K) in [0, 1], smoothed; 0 outside the body and in skipped slices.
    seen
        bool (I, J, K), the body in analysed slices.
    scores
        The method's own slice scores (n_slices,), nan where skipped; None where they follow from the map.
    framed
        The volume in the plane whose slices are scored.
    """

    map: np.ndarray
    seen: np.ndarray
    scores: np.ndarray | None
    framed: FramedVolume


class AnomalyDetector:
    """Detect anomalies in volumes, slice by slice. Made by `fit` or `load_detector`.

    Attributes
    ----------
    models
        The trained models of the method, by the plane that each learned; all share the frozen encoder.
    info
        All that is known of the detector: the contents of detector.json.
    evidence
        How the method's map is held against what normal scans show at each place; None where too few were learned from.
    reference
        The pose that volumes are brought into before they are cut into slices; None where they are taken as they lie.

    Examples
    --------
    >>> import medclipad as mc
    >>> detector = mc.load_detector("models/mine")  # doctest: +SKIP
    >>> result = detector.detect(mc.read_volume("case.nii.gz"))  # doctest: +SKIP
    >>> result.p_value  # doctest: +SKIP
    0.04
    """

    def __init__(
        self,
        models: Mapping[str, AnomalyModel],
        info: DetectorInfo,
        evidence: Evidence | None = None,
        reference: Reference | None = None,
    ) -> None:
        self.models = dict(models)
        self.info = info
        self.evidence = evidence
        self.reference = reference

    @property
    def model(self) -> AnomalyModel:
        """The model of the plane whose slices are scored."""
        return self.models[self.info.plane]

    @property
    def encoder(self) -> ImageEncoder:
        """The frozen encoder."""
        return self.model.encoder

    def detect(
        self,
        volume: Volume,
        plane: str | None = None,
        progress: Progress = no_progress,
        slices: Sequence[int] | None = None,
        force_modality: bool = False,
    ) -> AnomalyResult:
        """Return the anomaly map and the scores of a volume.

        Parameters
        ----------
        volume
            The volume to analyse.
        plane
            Plane of the slices; by default, or with what `FitConfig.planes` says, those that the detector learned from.
            No verdict is given on another one.
        progress
            Called as progress("detect", done, slices, {}) after each batch.
        slices
            Numbers of the slices to analyse, by default all; the others are skipped like those without body, and no
            verdict is given.
        force_modality
            Whether to analyse a volume of another modality than the detector's intensity preset is for.

        Raises
        ------
        VolumeError
            If the volume is of another modality than the detector's intensity preset is for or, before any work, if its
            map does not fit into memory.
        """
        if not force_modality:
            require_modality(self.info.intensity, volume, _OTHER_MODALITY)
        planes = self._planes(plane)
        require_memory(self.memory_for(volume, plane), volume.name or "the volume", "its anomaly map")
        framed, warnings = self.framed(volume, planes[0]), ()
        if slices is not None:
            frames = [framed.only(slices)]
        else:
            posed, warnings = self._posed(framed)
            frames = self.frames(posed, planes)
        raw = self.detect_raw(frames, progress)
        complete = self._as_learned(volume, plane) and slices is None
        if complete and self.info.acquisition.scans:
            warnings += self.info.acquisition.warnings(describe_volume(self.encoder, framed))
        if self.evidence is not None:  # a volume that is unlike normal scans has other things in the same places
            self.evidence(raw.map, raw.framed, raw.seen, local=not warnings)
        values, scores = self.judged(raw)
        return AnomalyResult(
            anomaly_map=volume.with_array(values),
            slice_scores=scores,
            foreground=framed.foreground,
            slicing=framed.slicing,
            detector=self.info.name,
            calibration=self.info.calibration,
            complete=complete,
            warnings=warnings,
            window=framed.window,
        )

    def _posed(self, framed: FramedVolume) -> tuple[FramedVolume, tuple[str, ...]]:
        """Return a volume as its slices are compared, aligned if the detector aligns, and why it could not be."""
        if self.reference is None:
            return framed, ()
        try:
            return self.reference.align(framed), ()
        except NotAlikeError:
            return framed, (NOT_ALIGNED,)

    def judged(self, raw: RawDetection) -> tuple[np.ndarray, np.ndarray]:
        """Return map float32 (I, J, K) and slice scores (n_slices,) of the volume as it was given, on the fixed scale.

        Parameters
        ----------
        raw
            Its map is evidence by now. If the volume was aligned, it is brought back.
        """
        calibration, framed = self.info.calibration, raw.framed
        values = framed.map_to_given(calibration.scale(raw.map), raw.seen)
        if raw.scores is None:
            return values, self.scores_of(values, framed.given)
        return values, (calibration.score_scale or Scale())(framed.scores_to_given(raw.scores))

    def framed(self, volume: Volume, plane: str) -> FramedVolume:
        """Return a volume's slices along a plane as the encoder sees them."""
        return FramedVolume(volume, plane, self.info.intensity, self.info.image_size)

    def frames(self, framed: FramedVolume, planes: Sequence[str]) -> list[FramedVolume]:
        """Return a framed volume's slices along each plane, of which it lies along the first, thinned for smoothing."""
        every = [framed, *(framed.along(plane) for plane in planes[1:])]
        return [one.thinned(self.info.smoothing) for one in every]

    def detect_raw(self, frames: Sequence[FramedVolume], progress: Progress = no_progress) -> RawDetection:
        """Return what the method says of a volume.

        Parameters
        ----------
        frames
            The volume, framed along each plane; the scores are those of the first.
        progress
            As in `detect`.
        """
        first, several = frames[0], len(frames) > 1
        shape, seen = first.volume.shape, seen_in(frames)
        total = np.zeros(shape, dtype=np.float32)
        weight = np.zeros(shape, dtype=np.float32) if several else first.flags(first.encoded)
        own: np.ndarray | None = None
        done, slices = 0, sum(len(framed.encoded) for framed in frames)
        progress("detect", done, slices, {})
        models = [self._model_of(framed.slicing.plane) for framed in frames]
        for framed, model in zip(frames, models, strict=True):
            share = framed.weight if several else 1.0
            for numbers in batches(framed.encoded, BATCH):
                heights = torch.from_numpy(framed.heights[numbers]) if len(framed.slicing) > 1 else None
                maps, scores = model.anomaly_at(torch.from_numpy(framed.images(numbers)), heights)
                framed.add(maps.float().cpu().numpy(), numbers, total, share)
                if scores is not None and framed is first:
                    own = np.full(len(framed.slicing), np.nan) if own is None else own
                    own[numbers] = scores.double().cpu().numpy()
                done += len(numbers)
                progress("detect", done, slices, {})
            if several:
                weight += np.float32(share) * framed.flags(framed.encoded)
        smooth(total, weight, seen, first.foreground, first.volume.spacing, self.info.smoothing)
        if own is not None and len(first.encoded):
            own[first.analysed] = np.interp(first.analysed, first.encoded, own[first.encoded])
        return RawDetection(total, seen, own, first)

    def leave_out(self, volume: int | None) -> None:
        """Use nothing that is remembered of a training volume; see `AnomalyModel.leave_out`."""
        for model in self.models.values():
            model.leave_out(volume)

    def scores_of(self, anomaly_map: np.ndarray, framed: FramedVolume) -> np.ndarray:
        """Return the slice scores (n_slices,) that follow from a map (I, J, K); nan where skipped.

        A slice is read together with its neighbours, as lesions are seldom one slice thick.
        """
        scores = np.full(len(framed.slicing), np.nan)
        slices = framed.slicing.slices(anomaly_map)
        for numbers in batches(framed.analysed, BATCH):
            scores[numbers] = self.model.scores_of(torch.from_numpy(slices[numbers]), framed.area).numpy()
        return smoothed_scores(scores, framed.volume.spacing[framed.slicing.axis], NEIGHBOURS * self.info.smoothing)

    def memory_for(self, volume: Volume, plane: str | None = None) -> int:
        """Return the bytes that `detect` needs beside volume and encoder; it raises VolumeError without them."""
        planes, smoothing = self._planes(plane), self.info.smoothing
        if self.reference is not None:
            return self.reference.memory(volume, planes, smoothing, BATCH)
        return detection_memory(volume, planes, smoothing, BATCH)

    def save(self, path: str | os.PathLike) -> None:
        """Write the detector to a new folder, atomically. Raises DetectorError if it exists or cannot be written."""
        weights = head_states(self.models) | (self.evidence.tensors() if self.evidence else {})
        weights |= self.reference.tensors() if self.reference else {}
        self.info = save_folder(path, self.info, weights)

    def features(self, volume: Volume, plane: str | None = None, progress: Progress = no_progress) -> np.ndarray:
        """Return the frozen encoder's features of each slice, float32 (n_slices, width), nan where skipped.

        They are the means of a slice's patch tokens after each of the last three stages, each L2-normalised, side by
        side, and do not depend on the method nor on what it learned. `plane` and `progress` are as in `detect`.
        """
        framed = self.framed(volume, plane or self.info.plane)
        features = np.full((len(framed.slicing), sum(self.encoder.widths[1:])), np.nan, dtype=np.float32)
        encoder = self.encoder
        mean, std = (torch.tensor(value, device=encoder.device)[:, None, None] for value in (encoder.mean, encoder.std))
        for done, numbers in enumerate(batches(framed.analysed, BATCH), start=1):
            rgb = as_rgb(framed.images(numbers), encoder.device)
            with torch.inference_mode():
                taps = encoder.taps((rgb - mean) / std, first=1)
            pooled = [normalize(tokens[:, encoder.n_prefix :].float().mean(dim=1), dim=-1) for tokens in taps]
            features[numbers] = torch.cat(pooled, dim=1).cpu().numpy()
            progress("features", min(done * BATCH, len(framed.analysed)), len(framed.analysed), {})
        return features

    def _planes(self, plane: str | None) -> tuple[str, ...]:
        return self.info.config.each_plane if plane is None or plane == self.info.config.planes else (plane,)

    def _as_learned(self, volume: Volume, plane: str | None) -> bool:
        """Whether a plane that was asked for is what the detector learned and was calibrated on."""
        asked, learned = self._planes(plane), self.info.config.each_plane
        return asked == learned or (
            len(learned) == 1 and Slicing(volume, *asked).plane == Slicing(volume, *learned).plane
        )

    def _model_of(self, plane: str) -> AnomalyModel:
        return self.models.get(plane, self.model)


def require_detection_memory(volume: Volume, planes: Sequence[str], smoothing: float) -> None:
    """Raise VolumeError unless the memory is free that a detection takes; see `AnomalyDetector.memory_for`."""
    needed = detection_memory(volume, planes, smoothing, BATCH)
    require_memory(needed, volume.name or "the volume", "its anomaly map")


def head_states(models: Mapping[str, AnomalyModel]) -> dict[str, torch.Tensor]:
    """Return the trained tensors of all models; where there are several, their names begin with the plane's."""
    if len(models) == 1:
        return next(iter(models.values())).head_state()
    return {f"{plane}.{key}": value for plane, model in models.items() for key, value in model.head_state().items()}


def load_detector(path: str | os.PathLike, precision: str = "auto") -> AnomalyDetector:
    """Return the detector that is saved in a folder.

    Parameters
    ----------
    path
        Folder with detector.json and weights.safetensors.
    precision
        Of the frozen encoder: "auto", "float32" or "bfloat16", as in `load_encoder`.

    Raises
    ------
    DetectorError
        If the folder is not a detector, is damaged, or was made with other encoder weights.
    """
    if not Path(path).is_dir():
        raise DetectorError(f"There is no detector folder {path}: check the path, or make one with fit.")
    info = read_info(path)
    encoder = load_encoder(info.encoder, info.image_size, precision=precision)
    if encoder.sha256 != info.encoder_sha256:
        raise DetectorError(
            f"{path} was trained on other weights of {info.encoder} than those found here (SHA-256 "
            f"{info.encoder_sha256[:12]}… against {encoder.sha256[:12]}…): install the same weights, or train it again."
        )
    try:
        weights = read_weights(path, info.weights_sha256)
        evidence, reference = Evidence.from_tensors(weights, info.smoothing), Reference.from_tensors(weights)
        planes = info.config.each_plane
        states: dict[str, dict[str, torch.Tensor]] = {plane: {} for plane in planes}
        for key, value in weights.items():
            plane, _, own = key.partition(".") if len(states) > 1 else (info.plane, "", key)
            states[plane][own] = value
        models = {}
        for plane, state in states.items():
            models[plane] = get_method(info.method).build(encoder, info.config.method_options())
            models[plane].load_head_state(state)
    except (KeyError, ValueError) as error:
        reason = error.args[0]
        raise DetectorError(
            f"The weights or options in {path} do not fit the method {info.method} ({reason}): restore a copy, or "
            "train it again, as one of an earlier version must be."
        ) from error
    return AnomalyDetector(models, info, evidence, reference)
