"""The memory method: it remembers normal slices and trains nothing; a detector made with it; saved and loaded."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from discs import SIZE, slices

import medclipad as mc
from medclipad.errors import Cancelled, DetectorError, TrainingError
from medclipad.methods.base import Shots
from medclipad.methods.mediclip.method import MediCLIP
from medclipad.methods.mediclip.network import MediCLIPNetwork
from medclipad.methods.mediclip.options import MediCLIPOptions
from medclipad.methods.memory.method import Memory, MemoryOptions
from medclipad.methods.memory.network import MemoryNetwork

SMALL = MemoryOptions(memory_size=400)


def shots(n: int = 6, **known) -> Shots:
    images = slices(n, 2)[0]
    return Shots(images, images[:0], (), **known)


def fitted(encoder, given=None, seed=0, options=SMALL) -> MemoryNetwork:
    model = MemoryNetwork(encoder, options)
    Memory.fit(model, given or shots(), seed)
    model.calibrate(slices(6, 3)[0])
    return model


@pytest.mark.parametrize("fixture", ["embedded", "clip"])
def test_finds_lesions_of_unseen_slices(request, fixture):
    model = fitted(request.getfixturevalue(fixture), options=MemoryOptions())
    images, masks = slices(6, 4, lesion=True)
    maps, scores = model.anomaly(torch.from_numpy(images))
    healthy, _ = model.anomaly(torch.from_numpy(slices(6, 5)[0]))
    assert scores is None, "a slice's score follows from its map"
    assert maps.shape == (6, SIZE, SIZE) and maps.min() >= 0 and maps.max() < 1
    inside = torch.from_numpy(masks)
    assert maps[inside].mean() > maps[~inside].mean()  # by little where random attention spreads the lesion
    assert model.scores_of(maps).min() > model.scores_of(healthy).max()


def test_the_seed_decides_and_abnormal_slices_do_not(embedded):
    few = MemoryOptions(memory_size=100)  # of 384
    lesions, masks = slices(2, 1, lesion=True)
    given = Shots(shots().normal, lesions, tuple(masks))
    states = [fitted(embedded, one, seed, few).head_state() for one, seed in ((None, 0), (given, 0), (None, 1))]
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    assert not torch.equal(states[0]["memory.tokens"], states[2]["memory.tokens"])


def test_on_encoders_without_text_it_is_what_mediclip_does_by_default(embedded):
    """docs/explanation/methods.md says so."""
    memory, mediclip = fitted(embedded, options=MemoryOptions()), MediCLIPNetwork(embedded, MediCLIPOptions())
    MediCLIP.fit(mediclip, shots(), 0)
    mediclip.calibrate(slices(6, 3)[0])
    images = torch.from_numpy(slices(2, 4, lesion=True)[0])
    torch.testing.assert_close(memory.anomaly(images)[0], mediclip.anomaly(images)[0])
    assert memory.score_share == mediclip.score_share


def test_a_slice_does_not_depend_on_its_neighbours(embedded):
    model, images = fitted(embedded), torch.from_numpy(slices(5, 7, lesion=True)[0])
    alone = torch.cat([model.anomaly(image)[0] for image in images.split(1)])
    torch.testing.assert_close(model.anomaly(images)[0], alone, atol=1e-4, rtol=0)


def test_a_volume_that_is_left_out_looks_new(embedded):
    model = fitted(embedded, shots(4, volumes=np.array([0, 0, 1, 1])), options=MemoryOptions())
    own = torch.from_numpy(shots(4).normal[:2])
    known = model.anomaly(own)[0].mean()
    assert model.can_leave_out
    model.leave_out(0)
    assert model.anomaly(own)[0].mean() > 1.5 * known
    model.leave_out(None)
    assert model.anomaly(own)[0].mean() == known


def test_heights_are_used(embedded):
    model = fitted(embedded, shots(heights=np.linspace(0, 1, 6, dtype=np.float32)))
    images = torch.from_numpy(slices(2, 4)[0])
    at = [model.anomaly_at(images, torch.tensor([height] * 2))[0] for height in (0.0, 1.0)]
    assert not torch.equal(*at) and not torch.equal(at[0], model.anomaly(images)[0])


def test_saved_head_gives_the_same_maps(embedded):
    model, images = fitted(embedded), torch.from_numpy(slices(2, 9, lesion=True)[0])
    other = MemoryNetwork(embedded, SMALL)
    other.load_head_state({key: value.clone() for key, value in model.head_state().items()})
    assert torch.equal(other.anomaly(images)[0], model.anomaly(images)[0])
    state = model.head_state()
    state["memory.tokens"] = state["memory.tokens"][:, :-1]
    with pytest.raises(ValueError, match="shape"):
        MemoryNetwork(embedded, SMALL).load_head_state(state)


def test_bad_input_is_refused_in_a_sentence(embedded):
    empty = MemoryNetwork(embedded, SMALL)
    with pytest.raises(TrainingError, match="give at least one"):
        Memory.fit(empty, shots(0), 0)
    with pytest.raises(DetectorError, match="empty: fit it on normal slices"):
        empty.anomaly(torch.zeros(1, SIZE, SIZE))
    with pytest.raises(TrainingError, match="memory_size: Input should be greater than or equal to 1"):
        mc.fit(method="memory", normal=[volume(0)], memory_size=0)
    with pytest.raises(TrainingError, match=r"epochs belongs to .*, not to memory"):
        mc.fit(method="memory", normal=[volume(0)], epochs=3)


def test_progress_reports_each_batch_and_can_stop(embedded):
    seen = []
    Memory.fit(MemoryNetwork(embedded, SMALL), shots(), 0, lambda *call: seen.append(call[:3]))
    assert seen == [("train", 4, 6), ("train", 6, 6)]

    def stop(*_):
        raise Cancelled

    with pytest.raises(Cancelled):
        Memory.fit(MemoryNetwork(embedded, SMALL), shots(), 0, stop)


def volume(seed: int, lesion: bool = False) -> mc.Volume:
    """Return a stack of discs; with a lesion, a bright one in three of its ten slices."""
    array = slices(10, seed)[0]
    if lesion:
        array[4:7] = slices(3, seed, lesion=True)[0]
    return mc.Volume(np.ascontiguousarray(array.transpose(2, 1, 0)) * 100, np.diag([3, 3, 4, 1.0]), name=f"v{seed}")


@pytest.mark.parametrize("planes", ["axial", "all"])
def test_detector(tmp_path, planes):
    """Fit on volumes, detect, save and load; limits rest on each volume left out."""
    options = {"method": "memory", "planes": planes, "image_size": SIZE, "shots": 8, "intensity": "raw"}
    detector = mc.fit(normal=[volume(seed) for seed in range(3)], memory_size=2000, **options)
    result = detector.detect(volume(9, lesion=True))
    scores = result.slice_scores
    assert scores[4:7].min() > max(scores[:4].max(), scores[7:].max())
    calibration = detector.info.calibration
    assert calibration.basis == "left out" and len(calibration.scans) == 3
    assert detector.info.config.options == {"memory_size": 2000, "score_share": 0.02}
    detector.save(tmp_path / "saved")
    again = mc.load_detector(tmp_path / "saved").detect(volume(9, lesion=True))
    assert np.array_equal(again.anomaly_map.array, result.anomaly_map.array)
