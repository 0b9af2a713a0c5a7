"""MVFA's variant="paper": other adapters, everything else as in the reference."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from discs import slices
from test_mvfa import shots

from medclipad.errors import DetectorError
from medclipad.methods.mvfa.method import MVFA
from medclipad.methods.mvfa.network import MVFANetwork
from medclipad.methods.mvfa.options import MVFAOptions
from medclipad.methods.mvfa.reference import MVFAReference
from medclipad.methods.mvfa.training import Trainer, samples


def test_paper_variant_by_hand(clip):
    """Residual .9/.1 after three stages, a projector a head, and CLIP's own projection of the last stage."""
    model = MVFANetwork(clip, MVFAOptions(variant="paper"))
    images = torch.from_numpy(slices(2, 1)[0])
    rgb = images[:, None].expand(-1, 3, -1, -1)
    with torch.no_grad():
        state, levels = clip.stem(rgb), list(model.levels(model.frozen(images)))
        for number, level in enumerate(levels):
            state = clip.stage(state, number)
            torch.testing.assert_close(level.before, state)
            if number < 3:
                w1, w2 = (fc[0].weight for fc in (model.adapters[number].fc1, model.adapters[number].fc2))
                state = 0.9 * state + 0.1 * F.leaky_relu(F.leaky_relu(state @ w1.T) @ w2.T)
                for head in ("seg", "det"):
                    projected = state @ getattr(model, f"{head}_projectors")[number].weight.T
                    torch.testing.assert_close(getattr(level, head), projected)
            else:
                own = clip.project(state)
                torch.testing.assert_close(level.seg, own)
                torch.testing.assert_close(level.det, own)
            torch.testing.assert_close(level.after, state)
    keys = {key.partition(".")[0] for key in dict(model.named_parameters()) if not key.startswith("encoder.")}
    assert keys == {"adapters", "seg_projectors", "det_projectors"}


def test_paper_variant_options():
    assert (MVFAOptions().variant, MVFAOptions().batch) == ("reference", 8)
    assert MVFAOptions(variant="paper").batch == 16
    given = MVFAOptions(variant="paper", batch=3)
    assert given.batch == 3 and MVFAOptions(**given.model_dump()) == given
    with pytest.raises(ValueError):
        MVFAOptions(variant="book")


@pytest.mark.parametrize("name", ["clip", "embedded"])
def test_paper_variant_learns(request, name):
    encoder = request.getfixturevalue(name)
    options = MVFAOptions(variant="paper", max_samples=320, learning_rate=3e-3)
    model = MVFANetwork(encoder, options)
    assert len(model.adapters) == 3
    assert len(model.seg_projectors) == len(model.det_projectors) == (3 if encoder.text else 4)
    reported = []
    MVFA.fit(model, shots(), 0, lambda phase, done, total, info: reported.append(info.get("loss")))
    losses = [loss for loss in reported if loss is not None]
    assert np.mean(losses[-4:]) < losses[0]
    model.calibrate(slices(4, 3)[0])
    images, masks = slices(4, 7, lesion=True)
    maps, _ = model.anomaly(torch.from_numpy(images))
    assert maps[torch.from_numpy(masks)].mean() > maps[torch.from_numpy(~masks)].mean()
    other = MVFANetwork(encoder, options)
    other.load_head_state({key: value.clone() for key, value in model.head_state().items()})
    assert torch.equal(other.anomaly(torch.from_numpy(images))[0], maps)
    with pytest.raises(DetectorError, match="no place"):
        MVFAReference().state(model)


def test_paper_variant_trains_all_its_parts(clip):
    model = MVFANetwork(clip, MVFAOptions(variant="paper"))
    model.use_class("Brain")
    before = {key: value.clone() for key, value in model.named_parameters() if not key.startswith("encoder.")}
    data = samples(shots(2))
    chosen = torch.arange(0, len(data.images), 7)
    trainer = Trainer(model, 1e-3)
    trainer.step(model.frozen(data.images[chosen]), *(part[chosen] for part in data[1:]))
    after = dict(model.named_parameters())
    assert all(not torch.equal(after[key], value) for key, value in before.items())
    trained = {
        id(p) for optimiser in trainer.optimisers.values() for group in optimiser.param_groups for p in group["params"]
    }
    assert trained == {id(after[key]) for key in before}, "each parameter has an optimiser"
    count = sum(len(group["params"]) for optimiser in trainer.optimisers.values() for group in optimiser.param_groups)
    assert count == len(trained), "and only one"
