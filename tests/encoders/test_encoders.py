"""The encoders' common interface, and checkpoints that are foreign, damaged or hostile."""

from __future__ import annotations

import hashlib
import json
import os
import pickle

import pytest
import torch
from safetensors.torch import save_file
from torch.nn.functional import interpolate

from medclipad.compat import ensure_torchvision
from medclipad.encoders import N_STAGES, ImageEncoder, default_device, load_encoder
from medclipad.encoders.openclip.network import ClipEncoder
from medclipad.errors import DetectorError

ARCHITECTURE = "tiny-encoder-test"
CONFIG = {
    "embed_dim": 12,
    "vision_cfg": {"image_size": 56, "layers": 8, "width": 32, "head_width": 16, "patch_size": 14},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2},
}


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> dict[str, torch.Tensor]:
    """State dict of a CLIP of 8 blocks whose values float16 holds exactly; open_clip knows the architecture."""
    ensure_torchvision()
    import open_clip

    folder = tmp_path_factory.mktemp("configs")
    (folder / f"{ARCHITECTURE}.json").write_text(json.dumps(CONFIG))
    (folder / f"{ARCHITECTURE}-quickgelu.json").write_text(json.dumps({**CONFIG, "quick_gelu": True}))
    open_clip.add_model_config(folder)
    torch.manual_seed(0)
    return {key: value.half().float() for key, value in open_clip.CLIP(**CONFIG).state_dict().items()}


@pytest.fixture
def checkpoint(weights, tmp_path):
    """`checkpoint(state)` saves a state dict and returns the name of the encoder."""

    def save(state=weights, architecture=ARCHITECTURE) -> str:
        torch.save(state, tmp_path / "weights.pt")
        return f"{architecture}/{tmp_path / 'weights.pt'}"

    return save


@pytest.fixture(scope="module")
def clip(weights, tmp_path_factory) -> ImageEncoder:
    file = tmp_path_factory.mktemp("clip") / "weights.pt"
    torch.save(weights, file)
    return load_encoder(f"{ARCHITECTURE}/{file}", None, "cpu")


@pytest.fixture(scope="module")
def embedded() -> ImageEncoder:
    return load_encoder("embedded", 96, "cpu")


@pytest.fixture(params=["clip", "embedded"])
def encoder(request) -> ImageEncoder:
    return request.getfixturevalue(request.param)


def make_images(encoder: ImageEncoder, n: int = 2) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    coarse = torch.rand(n, 3, 8, 8, generator=generator)
    return interpolate(coarse, (encoder.image_size,) * 2, mode="bilinear")


def one_sentence(error: pytest.ExceptionInfo) -> None:
    text = str(error.value)
    assert "\n" not in text and text.endswith(".") and len(text) < 600, text


def test_shapes(encoder):
    tokens = encoder.taps(make_images(encoder))
    assert len(tokens) == len(encoder.widths) == len(encoder.grids) == N_STAGES
    for level, (stage, width, grid) in enumerate(zip(tokens, encoder.widths, encoder.grids, strict=True)):
        assert stage.shape == (2, encoder.n_prefix + grid**2, width)
        assert stage.dtype == torch.float32 and stage.isfinite().all()
        maps = encoder.patch_maps(stage, level)
        assert maps.shape == (2, width, grid, grid)
        assert torch.equal(maps[1, :, 0, -1], stage[1, encoder.n_prefix + grid - 1]), "rows of the image first"
        assert torch.equal(encoder.patch_maps(stage[:, encoder.n_prefix :], level), maps)
    later = encoder.taps(make_images(encoder), first=2)
    assert len(later) == 2 and torch.equal(later[0], tokens[2]) and torch.equal(later[1], tokens[3])


def test_description(encoder):
    assert encoder.name and len(encoder.sha256) == 64
    assert len(encoder.mean) == len(encoder.std) == 3 and encoder.embed_dim > 0
    assert encoder.device == torch.device("cpu")


def test_images_of_a_batch_are_independent(encoder):
    images = make_images(encoder, 3)
    for whole, single in zip(encoder.taps(images), encoder.taps(images[1:2]), strict=True):
        torch.testing.assert_close(whole[1:2], single, atol=1e-4, rtol=1e-4)
        assert not torch.allclose(whole[0], whole[1], atol=1e-3)


def test_replaced_tokens_reach_the_later_stages(encoder):
    state = encoder.stage(encoder.stem(make_images(encoder)), 0)
    tokens = encoder.tokens(state)
    same = encoder.with_tokens(state, tokens)
    assert torch.equal(encoder.tokens(same), tokens)
    assert torch.equal(encoder.tokens(encoder.stage(same, 1)), encoder.tokens(encoder.stage(state, 1)))
    changed = encoder.with_tokens(state, tokens * 1.5)
    assert torch.equal(encoder.tokens(changed), tokens * 1.5)
    assert not torch.allclose(encoder.tokens(encoder.stage(changed, 1)), encoder.tokens(encoder.stage(state, 1)))


def test_frozen_but_transparent_to_gradients(encoder):
    assert not encoder.training and not any(parameter.requires_grad for parameter in encoder.parameters())
    state = encoder.stage(encoder.stem(make_images(encoder)), 0)
    scale = torch.ones((), requires_grad=True)
    state = encoder.with_tokens(state, encoder.tokens(state) * scale)
    for level in range(1, N_STAGES):
        state = encoder.stage(state, level)
    encoder.tokens(state)[:, :, 0].sum().backward()
    assert scale.grad is not None and scale.grad != 0
    assert all(parameter.grad is None for parameter in encoder.parameters())


def test_one_copy_a_process_and_size(clip, embedded):
    assert load_encoder(clip.name, None, "cpu") is clip
    assert load_encoder(clip.name, clip.image_size, "cpu") is clip
    own_size = load_encoder("embedded", None, "cpu")
    assert own_size is load_encoder("embedded", own_size.image_size, "cpu")
    assert load_encoder("embedded", 96, "cpu") is embedded is not load_encoder("embedded", 64, "cpu")
    assert default_device().type in ("cpu", "cuda")


# The embedded encoder


@pytest.mark.parametrize("size", [64, 224, 256])
def test_embedded_sizes(size):
    encoder = load_encoder("embedded", size)
    assert encoder.image_size == size and encoder.grids == tuple(size // stride for stride in (4, 8, 16, 32))
    assert encoder.text is None and encoder.n_prefix == 0


@pytest.mark.parametrize("size", [1, 32, 100, 225, -64])
def test_embedded_refuses_other_sizes(size):
    with pytest.raises(DetectorError, match="multiples of 32") as caught:
        load_encoder("embedded", size)
    one_sentence(caught)


def test_embedded_weights_are_trained(embedded):
    """With untrained weights, flat and structured images would give features of the same size."""
    flat, structured = torch.full((1, 3, 96, 96), 0.5), make_images(embedded, 1)
    spread = [embedded.taps(image)[3].std(dim=1).mean() for image in (flat, structured)]
    assert spread[1] > 1.2 * spread[0] and embedded.sha256 == load_encoder("embedded", 64).sha256


# CLIP


def test_clip_stages_are_open_clips_blocks(clip, weights):
    import open_clip

    model = open_clip.CLIP(**CONFIG).eval()
    model.load_state_dict(weights)
    seen = []
    for block in model.visual.transformer.resblocks:
        block.register_forward_hook(lambda module, args, output: seen.append(output))
    images = make_images(clip)
    with torch.no_grad():
        features = model.encode_image(images)
        tokens = clip.taps(images)
        for level in range(N_STAGES):
            torch.testing.assert_close(tokens[level], seen[2 * level + 1])
        pooled = model.visual.ln_post(tokens[3][:, 0]) @ model.visual.proj
        torch.testing.assert_close(pooled, features)


def test_clip_text_is_open_clips(clip, weights):
    import open_clip

    model = open_clip.CLIP(**CONFIG).eval()
    model.load_state_dict(weights)
    tokens = clip.text.tokenize(["a brain", "a photo of a damaged brain."])
    assert tokens.shape == (2, 77) == (2, clip.text.context_length) and tokens.dtype == torch.int64
    embeddings = clip.text.token_embedding(tokens)
    assert embeddings.shape == (2, 77, clip.text.width)
    end = tokens.argmax(dim=1)
    with torch.no_grad():
        torch.testing.assert_close(clip.text.encode(embeddings, end, causal=True), model.encode_text(tokens))
        cut = int(end.max()) + 1
        short = clip.text.encode(embeddings[:, :cut], end, causal=True)
        torch.testing.assert_close(short, model.encode_text(tokens))
        assert not torch.allclose(clip.text.encode(embeddings, end, causal=False), short, atol=1e-3)


def test_clip_sha256_is_the_files(clip):
    with open(clip.name.partition("/")[2], "rb") as file:
        assert clip.sha256 == hashlib.sha256(file.read()).hexdigest()


def test_half_precision_is_widened_before_the_grid_is_resized(checkpoint, weights):
    half = {key: value.half() for key, value in weights.items()}
    ours = ClipEncoder(checkpoint(half), 84)
    exact = ClipEncoder(checkpoint(weights), 84)
    assert ours.image_size == 84 and ours.grids == (6,) * 4
    assert all(value.dtype == torch.float32 for value in ours.state_dict().values() if value.is_floating_point())
    for key, value in exact.state_dict().items():
        assert torch.equal(ours.state_dict()[key], value), key
    grid = weights["visual.positional_embedding"][1:].reshape(1, 4, 4, -1).permute(0, 3, 1, 2)
    wide = interpolate(grid, (6, 6), mode="bicubic", antialias=True, align_corners=False)
    positions = next(value for key, value in ours.state_dict().items() if key.endswith("positional_embedding"))
    torch.testing.assert_close(positions[1:], wide[0].flatten(1).T)


def test_safetensors(weights, tmp_path, clip):
    save_file({key: value.half() for key, value in weights.items()}, tmp_path / "weights.safetensors")
    encoder = ClipEncoder(f"{ARCHITECTURE}/{tmp_path / 'weights.safetensors'}")
    assert torch.equal(encoder.taps(make_images(clip))[3], clip.taps(make_images(clip))[3])


def test_weights_that_are_not_finite(checkpoint, weights):
    with pytest.raises(DetectorError, match="not finite") as caught:
        ClipEncoder(checkpoint({**weights, "visual.proj": weights["visual.proj"] * torch.inf}))
    one_sentence(caught)


def test_torchscript_archive_as_openai_has_it(weights, tmp_path, clip):
    class Archive(torch.nn.Module):
        """A tree of modules with the state dict's names, and the three integers of OpenAI's archives."""

        def __init__(self) -> None:
            super().__init__()
            for key, value in weights.items():
                *path, name = key.split(".")
                module = self
                for part in path:
                    if not hasattr(module, part):
                        module.add_module(part, torch.nn.Module())
                    module = getattr(module, part)
                module.register_parameter(name, torch.nn.Parameter(value.half()))
            for name, value in (("input_resolution", 56), ("context_length", 77), ("vocab_size", 49408)):
                self.register_buffer(name, torch.tensor(value))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + self.logit_scale

    torch.jit.script(Archive()).save(tmp_path / "archive.pt")
    archive = ClipEncoder(f"{ARCHITECTURE}/{tmp_path / 'archive.pt'}")
    for ours, theirs in zip(archive.taps(make_images(clip)), clip.taps(make_images(clip)), strict=True):
        assert torch.equal(ours, theirs)


def test_torchscript_archive_runs_nothing(tmp_path):
    """TorchScript can write files, and torch.jit.load runs what an archive asks for."""

    class Hostile(torch.nn.Module):
        def __init__(self, file: str) -> None:
            super().__init__()
            self.file = file
            self.weight = torch.nn.Parameter(torch.zeros(3))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + self.weight

        @torch.jit.export
        def __getstate__(self):
            return self.file, self.weight, self.training

        @torch.jit.export
        def __setstate__(self, state: tuple[str, torch.Tensor, bool]):
            self.file, self.weight, self.training = state
            torch.save(self.weight, self.file)

    target = tmp_path / "executed"
    torch.jit.script(Hostile(str(target))).save(tmp_path / "archive.pt")
    target.unlink(missing_ok=True)
    torch.jit.load(tmp_path / "archive.pt")
    assert target.exists(), "the attack is real"
    target.unlink()
    with pytest.raises(DetectorError, match="does not hold weights") as caught:
        ClipEncoder(f"{ARCHITECTURE}/{tmp_path / 'archive.pt'}")
    one_sentence(caught)
    assert not target.exists()


def test_activation_is_that_of_the_name(checkpoint):
    """open_clip computes with GELU unless the name says -quickgelu, also with OpenAI's weights."""
    plain, quick = ClipEncoder(checkpoint()), ClipEncoder(checkpoint(architecture=f"{ARCHITECTURE}-quickgelu"))
    assert not plain.quick_gelu and quick.quick_gelu
    activations = [
        {type(module).__name__ for module in encoder.modules() if "GELU" in type(module).__name__}
        for encoder in (plain, quick)
    ]
    assert activations == [{"GELU"}, {"QuickGELU"}], "in both towers"
    images = make_images(plain)
    assert (plain.taps(images)[3] - quick.taps(images)[3]).abs().max() > 1e-3
    import open_clip

    for name in ("ViT-L-14", "ViT-L-14-336"):
        configs = [open_clip.get_model_config(f"{name}{suffix}") for suffix in ("", "-quickgelu")]
        assert [bool(config.pop("quick_gelu", False)) for config in configs] == [False, True]
        assert configs[0] == configs[1]
        tags = [open_clip.pretrained.get_pretrained_cfg(f"{name}{suffix}", "openai") for suffix in ("", "-quickgelu")]
        assert tags[0] == tags[1], "the same file under both names"


def test_projection_is_open_clips(clip, weights):
    import open_clip

    model = open_clip.CLIP(**CONFIG).eval()
    model.load_state_dict(weights)
    images = make_images(clip)
    with torch.no_grad():
        torch.testing.assert_close(clip.project(clip.taps(images)[3][:, 0]), model.encode_image(images))


@pytest.mark.parametrize("name", [
    "magic", "", "/", "magic/openai", "hf-hub:some/model", "local-dir:/tmp",
])  # fmt: skip
def test_unknown_architecture(name):
    with pytest.raises(DetectorError, match="not known") as caught:
        load_encoder(name)
    one_sentence(caught)


def test_missing_weights(weights, tmp_path):
    with pytest.raises(DetectorError, match="lacks its weights") as caught:
        load_encoder(ARCHITECTURE)
    one_sentence(caught)
    with pytest.raises(DetectorError, match="neither a file nor a pretrained tag") as caught:
        load_encoder(f"{ARCHITECTURE}/{tmp_path / 'nowhere.pt'}")
    one_sentence(caught)
    with pytest.raises(DetectorError, match="neither a file nor a pretrained tag"):
        load_encoder(f"{ARCHITECTURE}/{tmp_path}")


@pytest.mark.parametrize("keep", [0, 10, 1000, -100])
def test_truncated_checkpoint(checkpoint, keep):
    name = checkpoint()
    file = name.partition("/")[2]
    with open(file, "rb") as stream:
        content = stream.read()
    with open(file, "wb") as stream:
        stream.write(content[:keep])
    with pytest.raises(DetectorError, match="does not hold weights") as caught:
        ClipEncoder(name)
    one_sentence(caught)


@pytest.mark.parametrize("form", ["pickle", "torch", "torch, old format"])
def test_hostile_checkpoint_is_not_executed(checkpoint, weights, tmp_path, form):
    class Hostile:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "executed"),)

    name = checkpoint()
    file, state = name.partition("/")[2], {**weights, "more": Hostile()}
    if form == "pickle":
        with open(file, "wb") as stream:
            pickle.dump(Hostile(), stream)
    else:
        torch.save(state, file, _use_new_zipfile_serialization=form == "torch")
    with pytest.raises(DetectorError, match="does not hold weights") as caught:
        ClipEncoder(name)
    one_sentence(caught)
    assert not (tmp_path / "executed").exists()


def test_checkpoint_of_another_architecture(checkpoint, weights):
    with pytest.raises(DetectorError, match="does not hold weights") as caught:
        ClipEncoder(checkpoint(weights, "ViT-B-32"))
    one_sentence(caught)
    fewer = {key: value for key, value in weights.items() if "resblocks.7" not in key}
    for state in (fewer, {**weights, "more": torch.zeros(1)}, {}, torch.zeros(3), {"state_dict": 3}):
        with pytest.raises(DetectorError, match="does not hold weights") as caught:
            ClipEncoder(checkpoint(state))
        one_sentence(caught)


@pytest.mark.parametrize("size", [-14, 0, 5])
def test_clip_refuses_impossible_sizes(checkpoint, size):
    with pytest.raises(DetectorError, match="image size") as caught:
        ClipEncoder(checkpoint(), size)
    one_sentence(caught)
