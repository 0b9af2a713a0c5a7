"""ViTs of timm with random weights from local files: stages, positions, precision, and what cannot be loaded."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import medclipad as mc
from medclipad.compat import ensure_torchvision
from medclipad.encoders import encoder_family, load_encoder
from medclipad.encoders.timm.tapped import TappedViT
from medclipad.errors import DetectorError
from medclipad.methods import get_method, method_names

MODELS = {  # model: its prefix tokens, and whether its positions are rotary
    "vit_tiny_patch16_224": (1, False),
    "vit_small_patch14_reg4_dinov2": (5, False),
    "vit_tiny_patch16_dinov3_qkvb": (5, True),
    "eva02_tiny_patch14_224": (1, True),
}
SIZE = 112


def weights(model: str, folder: Path, size: int | None = None) -> dict[str, torch.Tensor]:
    """Return random weights of a model of timm, by its own names, and save them in `folder`."""
    ensure_torchvision()
    import timm

    torch.manual_seed(0)
    state = timm.create_model(model, num_classes=0, **({"img_size": size} if size else {})).state_dict()
    save_file({key: value.contiguous() for key, value in state.items()}, folder / f"{model}.safetensors")
    return state


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a file of weights for each model."""
    folder = tmp_path_factory.mktemp("timm")
    for model in MODELS:
        weights(model, folder)
    return folder


def name(folder: Path, model: str) -> str:
    return f"timm:{model}/{folder / model}.safetensors"


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("size", [SIZE, 224])
def test_stages_are_timms_own_intermediate_layers(folder: Path, model: str, size: int) -> None:
    """Loaded by timm itself, at the same size: positions are resized alike, class and register tokens included."""
    import timm

    encoder = load_encoder(name(folder, model), size, "cpu")
    overlay = {"file": str(folder / f"{model}.safetensors"), "num_classes": 0, "custom_load": False}
    own = timm.create_model(model, pretrained=True, num_classes=0, img_size=size, pretrained_cfg_overlay=overlay).eval()
    images = torch.rand(2, 3, size, size)
    ends = [len(own.blocks) // 4 * stage - 1 for stage in range(1, 5)]
    with torch.no_grad():
        expected = own.forward_intermediates(
            images, indices=ends, norm=False, output_fmt="NLC", return_prefix_tokens=True, intermediates_only=True
        )
        taps = encoder.taps(images)
    assert (encoder.n_prefix, getattr(own, "rope", None) is not None) == MODELS[model]
    for tokens, (patches, prefix) in zip(taps, expected, strict=True):
        torch.testing.assert_close(tokens, torch.cat([prefix, patches], dim=1), rtol=1e-5, atol=1e-5)
    grid = size // own.patch_embed.patch_size[0]
    assert encoder.grids == (grid,) * 4 and encoder.widths == (own.embed_dim,) * 4
    assert encoder.patch_maps(taps[3], 3).shape == (2, own.embed_dim, grid, grid)


@pytest.mark.parametrize("model", ["vit_tiny_patch16_224", "vit_tiny_patch16_dinov3_qkvb"])
def test_bfloat16_is_close_to_float32(folder: Path, model: str) -> None:
    whole, half = (load_encoder(name(folder, model), SIZE, "cpu", precision=p) for p in ("float32", "bfloat16"))
    images = torch.rand(2, 3, SIZE, SIZE)
    with torch.no_grad():
        a, b = whole.taps(images)[3], half.taps(images)[3]
    assert b.dtype == torch.bfloat16
    assert torch.cosine_similarity(a.flatten(1), b.float().flatten(1)).min() > 0.999


def test_batch_norms_before_a_vit_do_not_learn_while_it_is_loaded() -> None:
    """Rotary positions are taken from an empty image, which must leave no trace."""
    ensure_torchvision()
    import timm

    vit = timm.create_model("vit_base_mci_224", num_classes=0, depth=1, img_size=64)
    before = {key: value.clone() for key, value in vit.named_buffers()}
    TappedViT(vit)
    assert before and all(torch.equal(value, before[key]) for key, value in vit.named_buffers())


@pytest.mark.parametrize("method", method_names())
def test_every_method_learns_on_it_and_is_loaded_again(folder: Path, tmp_path: Path, head, lesion, method: str) -> None:
    """Without text, with register tokens: fit, save, load, and the same map."""
    encoder = name(folder, "vit_tiny_patch16_dinov3_qkvb")
    given = {"abnormal": [(head(9, True), lesion)]} if "abnormal" in get_method(method).needs else {}
    options = {"epochs": 1} if "epochs" in get_method(method).Options.model_fields else {}
    detector = mc.fit(
        method=method, normal=[head(1), head(2)], encoder=encoder, image_size=64, planes="axial", shots=4, **given,
        **options,
    )  # fmt: skip
    detector.save(tmp_path / "detector")
    maps = [d.detect(head(3)).anomaly_map.array for d in (detector, mc.load_detector(tmp_path / "detector"))]
    assert maps[0].any() and (maps[0] == maps[1]).all()


def test_a_file_without_all_of_the_weights_is_refused(tmp_path: Path) -> None:
    """Timm itself would leave them random."""
    state = weights("vit_tiny_patch16_224", tmp_path)
    file = tmp_path / "vit_tiny_patch16_224.safetensors"
    for key in ("blocks.3.attn.qkv.weight", "norm.bias"):
        save_file({k: v.contiguous() for k, v in state.items() if k != key}, file)
        with pytest.raises(DetectorError, match=f"does not hold weights of this encoder.*lacks {key}"):
            load_encoder(name(tmp_path, "vit_tiny_patch16_224"), 64, "cpu")
    file.write_bytes(b"no tensors")
    with pytest.raises(DetectorError, match="does not hold weights of this encoder"):
        load_encoder(name(tmp_path, "vit_tiny_patch16_224"), 64, "cpu")


@pytest.mark.parametrize(("given", "words"), [
    ("timm:vit_small_patch14_dinov3", 'timm has no model "vit_small_patch14_dinov3"; similar ones are vit_small_patch'),
    ("timm:resnet18.a1_in1k", "is no plain ViT: choose"),
    ("timm:vit_tiny_patch16_224/none.safetensors", "There is no weights file none.safetensors"),
    ("timm:vit_tiny_patch16_224", r'lacks its weights.*as in "timm:vit_tiny_patch16_224\.'),
    ("timm:vit_tiny_patch16_224.magic", r'"magic"; timm has: .*augreg_in21k'),
])  # fmt: skip
def test_what_cannot_be_loaded_is_said(given: str, words: str) -> None:
    with pytest.raises(DetectorError, match=words):
        load_encoder(given, 224, "cpu")


def test_sizes_are_multiples_of_the_patch() -> None:
    family = encoder_family("timm:vit_small_patch14_dinov2.lvd142m")
    assert family.check_image_size("timm:vit_small_patch14_dinov2.lvd142m", 224) is None
    with pytest.raises(DetectorError, match=r"image sizes that are multiples of its patch, 14 pixels.*give 322"):
        family.check_image_size("timm:vit_small_patch14_dinov2.lvd142m", 320)
