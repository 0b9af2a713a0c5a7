"""Record what MadCLIP's reference code computes on a toy CLIP, as arrays for `test_madclip.py`.

    PYTHONPATH=. python tests/parity/record_madclip.py REFERENCE tests/parity/madclip.npz

REFERENCE is a checkout of mahshid1998/MadCLIP at c54903d (MIT), outside this repository; it needs kornia, ftfy, regex
and setuptools < 70. Its classes and functions run unmodified, on the CPU in float32, except that its adapters, which
have fixed widths of 1024 and 768, are replaced by others of the same class with the toy's. All weights come from
`benchmarks.recipe`, by their names in the reference's state dicts, so that the file holds inputs and results alone.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from madclip_toy import CLASS, CONFIG, LEVELS, SEED, SIZE, STEPS, adapter_weight, context, pictures, toy_state

ARGUMENTS = SimpleNamespace(
    features_list=[6, 12, 18, 24], img_size=SIZE, visionA="MFCFC", learning_rate=1e-3, contrast_mood="yes",
    text_mood="learnable_all", obj=CLASS,
)  # fmt: skip
FEW = 600  # values of a tensor, at most, that are kept of weights and gradients


def main() -> None:
    """Run the reference code from the command line."""
    parser = argparse.ArgumentParser(description="Record what MadCLIP's reference code computes on a toy CLIP.")
    parser.add_argument("reference", type=Path, help="checkout of the reference code")
    parser.add_argument("out", type=Path, help="file for the arrays")
    options = parser.parse_args()
    sys.path.insert(0, str(options.reference))
    torch.manual_seed(SEED)
    arrays = {key: np.asarray(value) for key, value in {**record_model(), **record_augmentation()}.items()}
    np.savez_compressed(options.out, **arrays)
    print(f"{options.out}: {len(arrays)} arrays, {options.out.stat().st_size / 1000:.0f} kB.")


def build() -> tuple[Any, Any, Any]:
    """Return the reference's model, prompts and detection loss, with the weights of the recipe."""
    import CLIP.adapter_shared as shared
    from CLIP.model import CLIP, resize_pos_embed
    from loss import Loss_detection
    from Prompt.promptChooser import PromptChooser

    config = {**CONFIG, "vision_cfg": {**CONFIG["vision_cfg"], "image_size": SIZE}}
    clip = CLIP(**config)
    with tempfile.TemporaryDirectory() as folder:
        state = toy_state(Path(folder))
    resize_pos_embed(state, clip)
    clip.load_state_dict(state)
    clip.eval()
    width, embed_dim = CONFIG["vision_cfg"]["width"], CONFIG["embed_dim"]
    model = shared.CLIP_Inplanted(ARGUMENTS, clip)
    sets = [torch.nn.ModuleList(shared.MFCFC(width, embed_dim) for _ in range(LEVELS)) for _ in range(2)]
    model.normal_det_adapters, model.abnormal_det_adapters = sets
    for group, own in zip(model.all_adapters_optimizer.param_groups, sets, strict=True):
        group["params"] = list(own.parameters())
    model.eval()
    chooser = PromptChooser(clip, ARGUMENTS, "cpu")
    loss = Loss_detection(args=ARGUMENTS, device="cpu")
    with torch.no_grad():
        for key, value in adapters(model).items():
            value.copy_(adapter_weight(key, tuple(value.shape)))
        for key, value in contexts(chooser).items():
            value.copy_(context(key, tuple(value.shape)))
    return model, chooser, loss


def adapters(model: Any) -> dict[str, torch.Tensor]:
    """Return the adapters' weights by their names in the reference's checkpoint."""
    return {
        f"{part}.{name}": value
        for part in ("normal_det_adapters", "abnormal_det_adapters")
        for name, value in getattr(model, part).named_parameters()
    }


def contexts(chooser: Any) -> dict[str, torch.Tensor]:
    """Return the contexts by their names in the reference's checkpoint."""
    return {
        f"prompt_maker_{label}.prompt_learner.{name}": value
        for label in ("normal", "abnormal")
        for name, value in getattr(chooser, f"prompt_maker_{label}").prompt_learner.named_parameters()
    }


def record_model() -> dict[str, Any]:
    """Return what the model computes on the pictures, and what training on them changes."""
    model, chooser, loss = build()
    with torch.no_grad():
        found = record_prompts(chooser) | record_maps(model, chooser, loss)
    return found | record_training(model, chooser, loss)


def record_prompts(chooser: Any) -> dict[str, Any]:
    """Return the prompts and their features."""
    found: dict[str, Any] = {}
    for label in ("normal", "abnormal"):
        maker = getattr(chooser, f"prompt_maker_{label}")
        ids = maker.tokenized_prompts[label]
        found[f"prompt_tokens_{label}"] = ids.numpy().astype(np.int32)
        embeddings = maker.prompt_learner()[label]
        found[f"prompt_embeddings_{label}"] = embeddings[:, :24].numpy()
        found[f"per_prompt_{label}"] = maker.text_encoder(embeddings, ids.repeat(3, 1)).numpy()
    return found | {"text_features": chooser().numpy()}


def record_maps(model: Any, chooser: Any, loss: Any) -> dict[str, Any]:
    """Return tokens, features, similarities, maps and scores of the pictures."""
    found: dict[str, Any] = {}

    def keep(part: str, level: int, module: Any, inputs: Any, output: Any) -> None:
        found[f"tokens_{level}"] = inputs[0].permute(1, 0, 2)[:, 1:].numpy()
        for head, features in zip(("det", "seg"), output, strict=True):
            found[f"{part}_{head}_{level}"] = features.permute(1, 0, 2)[:1, 1:].numpy()

    handles = [
        module.register_forward_hook(partial(keep, part, level))
        for part in ("normal", "abnormal")
        for level, module in enumerate(getattr(model, f"{part}_det_adapters"))
    ]
    _, det, seg = model(rgb_pictures(), chooser())
    for handle in handles:
        handle.remove()
    for level in range(LEVELS):
        found[f"det_similarity_{level}"], found[f"seg_similarity_{level}"] = det[level].numpy(), seg[level].numpy()
    maps = [loss.sync_AS(pair) for pair in seg]
    found["probability_maps"] = torch.stack([pair[:, 1] for pair in maps]).numpy()
    found["map"] = sum(0.5 * (1 - pair[:, 0]) + 0.5 * pair[:, 1] for pair in maps).numpy()
    found["image_score"] = sum(loss.validation(pair) for pair in det).numpy()
    return found


def record_training(model: Any, chooser: Any, loss: Any) -> dict[str, Any]:
    """Return losses, first gradients and weights of a few steps on the pictures."""
    from loss import BinaryDiceLoss, FocalLoss

    found: dict[str, Any] = {}
    _, labels, masks = pictures()
    focal, dice = FocalLoss(), BinaryDiceLoss()
    optimisers = [model.all_adapters_optimizer, chooser.text_optimizer, loss.optimizer]
    for step in range(1, STEPS + 1):
        _, det, seg = model(rgb_pictures(), chooser())
        detection = [loss(pair, labels) for pair in det]
        maps = [loss.sync_AS(pair) for pair in seg]
        focals = [focal(pair, masks[:, None].clone()) for pair in maps]
        dices = [dice(pair[:, 1:], masks[:, None]) for pair in maps]
        for name, values in (("detection", detection), ("focal", focals), ("dice", dices)):
            found[f"loss_{name}_{step}"] = torch.stack(values).detach().numpy()
        for optimiser in optimisers:
            optimiser.zero_grad()
        (sum(focals) + sum(dices) + sum(detection)).backward()
        trained = {**adapters(model), **contexts(chooser)}
        if step == 1:
            found |= {f"grad1.{key}": few(value.grad) for key, value in trained.items()}
        for optimiser in optimisers:
            optimiser.step()
        if step in (1, STEPS):
            found |= {f"step{step}.{key}": few(value) for key, value in trained.items()}
    return found


def rgb_pictures() -> torch.Tensor:
    """Return the pictures as RGB (4, 3, S, S)."""
    return pictures()[0][:, None].repeat(1, 3, 1, 1)


def few(values: torch.Tensor | None) -> np.ndarray:
    """Return the first values of a tensor, flat."""
    assert values is not None
    return values.detach().flatten()[:FEW].numpy().copy()


def record_augmentation() -> dict[str, Any]:
    """Return what the augmentation makes of a picture and a mask, and the factors that it draws."""
    from utils import augment

    images, _, masks = pictures()
    small = F.interpolate(images[:1, None], (25, 25), mode="bilinear").repeat(1, 3, 1, 1)
    mask = F.interpolate(masks[:1, None], (25, 25))
    torch.manual_seed(SEED)
    brightness, contrast = (1.0 + torch.rand(1).item() * 0.2 * 2 - 0.2 for _ in range(2))
    torch.manual_seed(SEED)
    augmented, augmented_mask = augment(small, mask)
    return {
        "augment_image": small[:, 0].numpy(),
        "augment_mask": mask[:, 0].numpy(),
        "augment_factors": [brightness, contrast],
        "augmented_image": augmented[:, 0].numpy(),
        "augmented_mask": augmented_mask[:, 0].numpy(),
    }


if __name__ == "__main__":
    main()
