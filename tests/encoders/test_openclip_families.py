"""Families of open_clip with random weights from local files, compared with open_clip's own forward."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

import medclipad as mc
from medclipad.compat import ensure_torchvision
from medclipad.encoders import N_STAGES, ImageEncoder, encoder_family, load_encoder
from medclipad.encoders.openclip.architectures import normalisation
from medclipad.errors import DetectorError
from medclipad.methods import get_method, method_names
from medclipad.methods.mvfa.prompts import encode_prompts, prompts

TEXTS = ["a brain", "a photo of a damaged brain with a flaw.", "MRI"]
CLIP_TEXT = {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2}
SIGLIP_TEXT = {
    "context_length": 64, "vocab_size": 1000, "width": 16, "heads": 2, "layers": 2, "no_causal_mask": True,
    "proj_bias": True, "pool_type": "last", "norm_kwargs": {"eps": 1e-06}, "hf_tokenizer_name": "nobody/tokenizer",
    "tokenizer_kwargs": {"clean": "canonicalize"},
}  # fmt: skip
VIT = {"image_size": 64, "layers": 6, "width": 32, "head_width": 16, "patch_size": 16}
CONFIGS: dict[str, dict[str, Any]] = {  # as in open_clip's own files, but small
    "siglip": {  # timm's own test model with a MAP head and no class token
        "embed_dim": 96, "init_logit_bias": -10, "custom_text": True, "text_cfg": SIGLIP_TEXT,
        "vision_cfg": {"image_size": 160, "timm_model_name": "test_vit3", "timm_pool": "map", "timm_proj": "none"},
    },
    "siglip2": {
        "embed_dim": 96, "init_logit_bias": -10, "custom_text": True,
        "text_cfg": {**SIGLIP_TEXT, "act_kwargs": {"approximate": "tanh"}},
        "vision_cfg": {"image_size": 160, "timm_model_name": "test_vit3", "timm_pool": "map", "timm_proj": "none"},
    },
    "eva02": {
        "embed_dim": 24, "custom_text": True, "text_cfg": CLIP_TEXT,
        "vision_cfg": {"image_size": 224, "timm_model_name": "eva02_tiny_patch14_224", "timm_pool": "token",
                       "timm_proj": None},
    },
    "pe": {
        "embed_dim": 24, "custom_text": True, "text_cfg": {**CLIP_TEXT, "context_length": 32},
        "vision_cfg": {"image_size": 384, "timm_model_name": "vit_pe_core_tiny_patch16_384", "timm_pool": "map",
                       "timm_proj": None},
    },
    "mobileclip2": {  # no mask, but CLIP's end token
        "embed_dim": 24, "custom_text": True, "text_cfg": {**CLIP_TEXT, "no_causal_mask": True},
        "vision_cfg": {"image_size": 160, "timm_model_name": "test_vit", "timm_pool": "token", "timm_proj": "linear"},
    },
    "coca": {
        "embed_dim": 24, "custom_text": True,
        "text_cfg": {**CLIP_TEXT, "context_length": 76, "embed_cls": True, "output_tokens": True},
        "vision_cfg": {**VIT, "attentional_pool": True, "attn_pooler_heads": 4, "attn_pooler_queries": 5,
                       "output_tokens": True},
        "multimodal_cfg": {**CLIP_TEXT, "context_length": 76, "attn_pooler_heads": 4},
    },
    "clipa": {  # CLIP's own class, but BERT's tokens, the last of them pooled, no mask, and the mean of the patches
        "embed_dim": 24,
        "vision_cfg": {**VIT, "no_ln_pre": True, "pool_type": "avg", "final_ln_after_pool": True},
        "text_cfg": {**CLIP_TEXT, "context_length": 32, "vocab_size": 1000, "hf_tokenizer_name": "nobody/tokenizer",
                     "tokenizer_kwargs": {"strip_sep_token": True}, "pool_type": "last", "no_causal_mask": True},
    },
    "worldwide": {
        "embed_dim": 24, "vision_cfg": VIT,
        "text_cfg": {**CLIP_TEXT, "vocab_size": 1000, "hf_tokenizer_name": "nobody/tokenizer", "pool_type": "eos",
                     "eos_id": 2},
    },
}  # fmt: skip
CUSTOM = [name for name, config in CONFIGS.items() if "custom_text" in config]


def save_tokenizer(family: str, folder: Path) -> None:
    """Train a tokenizer on MVFA's prompts and save it with the special tokens of the family's own."""
    texts = [text for half in prompts("Brain") for text in half]
    if family == "siglip":  # T5: pieces of words, padded with the end token
        tokenizer, pad = Tokenizer(models.Unigram()), "</s>"
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
        trainer = trainers.UnigramTrainer(
            vocab_size=200, special_tokens=["<pad>", "</s>", "<unk>"], unk_token="<unk>", show_progress=False
        )
        frame = "$A </s>"
    elif family == "siglip2":  # Gemma
        tokenizer, pad = Tokenizer(models.BPE(unk_token="<unk>")), "<pad>"
        tokenizer.normalizer = normalizers.Replace(" ", "▁")
        tokenizer.decoder = decoders.Replace("▁", " ")
        specials = ["<pad>", "<eos>", "<bos>", "<unk>"]
        trainer = trainers.BpeTrainer(vocab_size=200, special_tokens=specials, show_progress=False)
        frame = "$A <eos>"
    elif family == "clipa":  # BERT, whose settings do not name the padding
        tokenizer, pad = Tokenizer(models.WordPiece(unk_token="[UNK]")), None
        tokenizer.normalizer, tokenizer.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
        specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
        trainer = trainers.WordPieceTrainer(vocab_size=200, special_tokens=specials, show_progress=False)
        frame = "[CLS] $A [SEP]"
    else:  # XLM-V
        tokenizer, pad = Tokenizer(models.Unigram()), {"content": "<pad>", "lstrip": False}
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
        specials = ["<s>", "<pad>", "</s>", "<unk>"]
        trainer = trainers.UnigramTrainer(
            vocab_size=200, special_tokens=specials, unk_token="<unk>", show_progress=False
        )
        frame = "<s> $A </s>"
    tokenizer.train_from_iterator(texts, trainer)
    specials = [(name, tokenizer.token_to_id(name)) for name in frame.split() if name != "$A"]
    tokenizer.add_special_tokens([AddedToken(name, special=True) for name, _ in specials])
    tokenizer.post_processor = processors.TemplateProcessing(single=frame, special_tokens=specials)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"pad_token": pad} if pad else {"do_lower_case": True}))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for each family, with weights and tokenizer; open_clip knows the architectures."""
    ensure_torchvision()
    import open_clip

    folder = tmp_path_factory.mktemp("families")
    for family, config in CONFIGS.items():
        (folder / f"tiny-{family}.json").write_text(json.dumps(config))
    open_clip.add_model_config(folder)
    for family, config in CONFIGS.items():
        torch.manual_seed(0)
        state = open_clip.create_model(f"tiny-{family}", pretrained=None).state_dict()
        generator = torch.Generator().manual_seed(1)
        for value in state.values():  # some start as zeros or ones, which would hide a mistake
            if value.is_floating_point():
                value += 0.05 * torch.randn(value.shape, generator=generator)
        own = folder / family
        own.mkdir()
        save_file({key: value.contiguous() for key, value in state.items()}, own / "weights.safetensors")
        if "hf_tokenizer_name" in config["text_cfg"]:
            save_tokenizer(family, own)
    return folder


def encoder_of(folder: Path, family: str, image_size: int | None = None, precision: str = "float32") -> ImageEncoder:
    return load_encoder(f"tiny-{family}/{folder / family / 'weights.safetensors'}", image_size, "cpu", None, precision)


def open_clips(folder: Path, family: str, image_size: int | None = None) -> Any:
    """Return open_clip's own model, which it loads and resizes itself."""
    import open_clip

    trunk = "timm_model_name" in CONFIGS[family]["vision_cfg"]
    file = str(folder / family / "weights.safetensors")
    model: Any = open_clip.create_model(f"tiny-{family}", file, force_image_size=None if trunk else image_size)
    if trunk and image_size is not None:
        model.visual.set_input_size(image_size)
    return model.eval()


def images_of(encoder: ImageEncoder) -> torch.Tensor:
    return torch.rand(2, 3, encoder.image_size, encoder.image_size, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize(("family", "size"), [
    *((family, size) for family in CONFIGS for size in (None, 96)), ("siglip", 100), ("pe", 100), ("coca", 100),
])  # fmt: skip
@torch.no_grad()
def test_stages_are_open_clips(folder: Path, family: str, size: int | None) -> None:
    """Positions are resized as open_clip and timm do; four stages of 6 or 9 blocks; 100 pixels are 6 patches of 16."""
    encoder, model = encoder_of(folder, family, size), open_clips(folder, family, size)
    images = images_of(encoder)
    output = model.visual.forward_intermediates(images, output_fmt="NLC", output_extra_tokens=True)
    blocks, prefix = output["image_intermediates"], output.get("image_intermediates_prefix")
    taps = encoder.taps(images)
    assert len(taps) == N_STAGES and size in (None, encoder.image_size)
    for level, tokens in enumerate(taps):
        number = len(blocks) * (level + 1) // N_STAGES - 1
        whole = blocks[number] if prefix is None else torch.cat([prefix[number], blocks[number]], dim=1)
        torch.testing.assert_close(tokens, whole, atol=1e-5, rtol=1e-5)
        assert tokens.shape == (2, encoder.n_prefix + encoder.grids[level] ** 2, encoder.widths[level])
    assert torch.equal(taps[3], encoder.taps(images)[3])


@pytest.mark.parametrize("family", CONFIGS)
@torch.no_grad()
def test_a_token_is_projected_as_if_it_were_the_whole_image(folder: Path, family: str) -> None:
    encoder, model = encoder_of(folder, family), open_clips(folder, family)
    tokens = encoder.taps(images_of(encoder))[3]
    projected = encoder.project(tokens)
    assert projected.shape == (*tokens.shape[:-1], encoder.embed_dim)
    alone = tokens[:, -1:]
    if hasattr(model.visual, "trunk"):
        trunk = model.visual.trunk
        expected = model.visual.head(trunk.forward_head(trunk.norm(alone)))
    elif model.visual.pool_type == "avg":  # open_clip's mean leaves out the first token
        expected = model.visual._pool(alone.expand(-1, 2, -1))[0] @ model.visual.proj
    else:
        expected = model.visual._pool(alone)[0] @ model.visual.proj
    torch.testing.assert_close(projected[:, -1], expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("family", ["eva02", "mobileclip2", "worldwide"])
@torch.no_grad()
def test_a_class_token_becomes_the_images_feature(folder: Path, family: str) -> None:
    encoder, model = encoder_of(folder, family), open_clips(folder, family)
    images = images_of(encoder)
    projected = encoder.project(encoder.taps(images)[3])[:, 0]
    torch.testing.assert_close(projected, model.encode_image(images, normalize=False), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("family", CONFIGS)
@torch.no_grad()
def test_text_features_are_open_clips(folder: Path, family: str) -> None:
    text, model = encoder_of(folder, family).require_text(), open_clips(folder, family)
    tokens = text.tokenize(TEXTS)
    assert tokens.shape == (3, text.context_length) and tokens.dtype == torch.int64
    expected = model.encode_text(tokens, normalize=False)
    embeddings = text.token_embedding(tokens)
    assert embeddings.shape == (3, text.context_length, text.width)
    ours = text.encode(embeddings, text.ends(tokens), causal=True)
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(encode_prompts(text, TEXTS), expected, atol=1e-5, rtol=1e-5)
    unmasked = text.encode(embeddings, text.ends(tokens), causal=False)
    has_mask = not CONFIGS[family]["text_cfg"].get("no_causal_mask")
    assert torch.allclose(unmasked, ours, atol=1e-5) != has_mask


@pytest.mark.parametrize("family", CONFIGS)
def test_words_stand_between_start_and_end(folder: Path, family: str) -> None:
    text = encoder_of(folder, family).require_text()
    short, long = text.tokenize(["brain", "brain " * 200])
    end = int(text.ends(short[None])[0])
    assert text.n_start == (0 if family.startswith("siglip") else 1) and end > text.n_start
    assert int(text.ends(long[None])[0]) == text.context_length - 1, "cut, with its end token"
    assert long[-1] == short[end] and torch.equal(long[: end - 1], short[: end - 1])
    assert len(set(short[end + 1 :].tolist())) == 1, "padding"


@pytest.mark.parametrize("family", ["siglip", "eva02", "coca"])
@torch.no_grad()
def test_bfloat16_is_close_to_float32(folder: Path, family: str) -> None:
    whole, half = (encoder_of(folder, family, 96, precision) for precision in ("float32", "bfloat16"))
    a, b = (encoder.taps(images_of(whole))[3] for encoder in (whole, half))
    assert b.dtype == torch.bfloat16 and half.project(b).dtype == torch.bfloat16
    assert torch.cosine_similarity(a, b.float(), dim=-1).min() > 0.99
    a, b = (encode_prompts(encoder.require_text(), TEXTS) for encoder in (whole, half))
    assert torch.cosine_similarity(a, b).min() > 0.99


@pytest.mark.parametrize(("family", "method"), [
    *(("siglip", method) for method in method_names()),
    *((family, "mediclip") for family in ("eva02", "coca", "clipa")),
])  # fmt: skip
def test_methods_learn_on_it_and_are_loaded_again(folder, tmp_path, head, lesion, family: str, method: str) -> None:
    given = {"abnormal": [(head(9, True), lesion)]} if "abnormal" in get_method(method).needs else {}
    fields = get_method(method).Options.model_fields
    options = {name: 1 for name in ("epochs", "max_steps") if name in fields}
    detector = mc.fit(
        method=method, normal=[head(1), head(2)], encoder=encoder_of(folder, family).name, image_size=64,
        planes="axial", shots=2, **given, **options,
    )  # fmt: skip
    detector.save(tmp_path / "detector")
    maps = [d.detect(head(3)).anomaly_map.array for d in (detector, mc.load_detector(tmp_path / "detector"))]
    assert maps[0].any() and (maps[0] == maps[1]).all()


@pytest.mark.parametrize("family", ["siglip", "eva02", "coca", "clipa"])
def test_a_file_without_all_of_the_weights_is_refused(folder: Path, tmp_path: Path, family: str) -> None:
    from safetensors.torch import load_file

    state = load_file(folder / family / "weights.safetensors")
    for part in ("visual.", "ln_final."):
        key = next(key for key in state if part in key)
        save_file({name: value for name, value in state.items() if name != key}, tmp_path / "weights.safetensors")
        with pytest.raises(DetectorError, match=f"does not hold weights of this encoder.*lacks {key}"):
            load_encoder(f"tiny-{family}/{tmp_path / 'weights.safetensors'}", None, "cpu")


def test_an_older_file_has_the_text_tower_at_its_top(folder: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    state = load_file(folder / "eva02" / "weights.safetensors")
    save_file({key.removeprefix("text."): value for key, value in state.items()}, tmp_path / "weights.safetensors")
    older = load_encoder(f"tiny-eva02/{tmp_path / 'weights.safetensors'}", None, "cpu").require_text()
    newer = encoder_of(folder, "eva02").require_text()
    assert torch.equal(encode_prompts(older, TEXTS), encode_prompts(newer, TEXTS))


@pytest.mark.parametrize(("architecture", "words"), [
    ("RN50", "The image tower of RN50 is no plain ViT: choose a ViT-"),
    ("convnext_base", "is no plain ViT"),
    ("MobileCLIP-S1", "is no plain ViT"),
    ("swin_base_patch4_window7_224", "is no plain ViT"),
    ("vit_relpos_medium_patch16_cls_224", "is no plain ViT"),
    ("roberta-ViT-B-32", "The text tower of roberta-ViT-B-32 is a model of the library transformers"),
    ("nllb-clip-base-siglip", "of the library transformers"),
    ("hf-hub:microsoft", "is not known, since its configuration is on the network alone"),
])  # fmt: skip
def test_what_cannot_be_tapped_is_said(architecture: str, words: str) -> None:
    family = encoder_family(f"{architecture}/weights.pt")
    assert family.name == "open_clip"
    for attempt in (
        lambda: family.check_image_size(f"{architecture}/weights.pt", 224),
        lambda: load_encoder(f"{architecture}/weights.pt", None, "cpu"),
    ):
        with pytest.raises(DetectorError, match=words):
            attempt()


def test_a_tokenizer_that_is_not_here_is_said_at_once(folder: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    (tmp_path / "weights.safetensors").symlink_to(folder / "siglip" / "weights.safetensors")
    text = load_encoder(f"tiny-siglip/{tmp_path / 'weights.safetensors'}", None, "cpu").require_text()
    start = time.monotonic()
    with pytest.raises(DetectorError, match=r"of tiny-siglip could not be downloaded .*put tokenizer\.json and"):
        text.tokenize(TEXTS)
    assert time.monotonic() - start < 5
    for file in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / file).write_text("{}")
    with pytest.raises(DetectorError, match=r"The tokenizer of tiny-siglip cannot be read from .*fetch it again"):
        text.tokenize(TEXTS)


def test_images_are_normalised_as_the_tag_says() -> None:
    """A file is taken to be of the same kind as the architecture's first tag."""
    half = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    assert normalisation("ViT-B-16-SigLIP2", "webli") == normalisation("ViT-B-16-SigLIP2", "file.pt") == half
    assert normalisation("ViT-L-14", "laion2b_s32b_b82k") == half != normalisation("ViT-L-14", "file.pt")
