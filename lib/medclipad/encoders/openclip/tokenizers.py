"""Tokenizers of open_clip's text towers: CLIP's own, and those of the Hugging Face hub (T5, Gemma, BERT)."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from medclipad.encoders.download import fetch
from medclipad.encoders.weight_errors import reason
from medclipad.errors import DetectorError, MedCLIPADError

FILES = ("tokenizer.json", "tokenizer_config.json")
_USUAL_PADDING = ("[PAD]", "<pad>")  # what BERT and T5 pad with where their files do not say it


class Tokenizer(ABC):
    """Makes token ids of texts.

    Attributes
    ----------
    n_start : int
        Tokens before the words.
    end_id : int
        Token after the words.
    """

    n_start: int
    end_id: int

    @abstractmethod
    def __call__(self, texts: Sequence[str]) -> Tensor:
        """Return token ids, int64 (n, context_length)."""

    def ends(self, tokens: Tensor) -> Tensor:
        """Return the position (n,) of the end token in token ids (n, L): the first, where padding has the same id."""
        return (tokens == self.end_id).int().argmax(dim=1)


class ClipTokenizer(Tokenizer):
    """CLIP's byte pairs, which open_clip carries: start token, words, end token, padded with 0."""

    n_start = 1

    def __init__(self, architecture: str) -> None:
        import open_clip

        self._tokenizer: Any = open_clip.get_tokenizer(architecture)
        self.end_id = self._tokenizer.eot_token_id

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """Return token ids, int64 (n, context_length)."""
        return self._tokenizer(list(texts))


class HubTokenizer(Tokenizer):
    """Tokenizer of the Hugging Face hub, as open_clip uses it.

    Parameters
    ----------
    tokenizer, settings
        Its files `tokenizer.json` and `tokenizer_config.json`.
    context_length
        Tokens of a text, padding included.
    clean
        What is done to a text first: "whitespace", "lower" or "canonicalize", as in open_clip.
    strip_sep_token
        Whether the end token is replaced by 0.
    """

    def __init__(
        self,
        tokenizer: Path,
        settings: Path,
        context_length: int,
        clean: str = "whitespace",
        strip_sep_token: bool = False,
    ) -> None:
        from open_clip.tokenizer import get_clean_fn
        from tokenizers import Tokenizer as FastTokenizer

        self._tokenizer: Any = FastTokenizer.from_file(str(tokenizer))
        named = json.loads(settings.read_text(encoding="utf-8")).get("pad_token")
        named = named["content"] if isinstance(named, dict) else named
        ids = map(self._tokenizer.token_to_id, (named,) if named else _USUAL_PADDING)
        pad_id = next((number for number in ids if number is not None), None)
        if pad_id is None:
            raise ValueError("it has no padding token")
        self._tokenizer.enable_truncation(context_length)
        self._tokenizer.enable_padding(length=context_length, pad_id=pad_id)
        frame = self._tokenizer.encode("")  # start tokens, end token, padding
        *start, end = (number for number, special in zip(frame.ids, frame.attention_mask, strict=True) if special)
        self.n_start, self._stripped = len(start), end if strip_sep_token else None
        self.end_id = 0 if strip_sep_token else end
        self._clean = get_clean_fn(clean)

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """Return token ids, int64 (n, context_length)."""
        encoded = self._tokenizer.encode_batch([self._clean(text) for text in texts])
        tokens = torch.tensor([text.ids for text in encoded])
        return tokens if self._stripped is None else tokens.where(tokens != self._stripped, 0)


def load_tokenizer(architecture: str, options: dict[str, Any], folder: Path) -> Tokenizer:
    """Return the tokenizer of an architecture.

    Parameters
    ----------
    architecture
        Name in open_clip.
    options
        The text tower's part of its configuration.
    folder
        Folder of the weights. A tokenizer's files in it come before those on the hub.

    Raises
    ------
    DetectorError
        If the files are not here and cannot be downloaded, or are damaged.
    """
    repository = options.get("hf_tokenizer_name")
    if not repository:
        return ClipTokenizer(architecture)
    tokenizer, settings = (folder / file for file in FILES)
    if not (tokenizer.is_file() and settings.is_file()):
        tokenizer, settings = _downloaded(architecture, repository)
    given = {
        key: value
        for key, value in options.get("tokenizer_kwargs", {}).items()
        if key in ("clean", "strip_sep_token")  # the others are for languages
    }
    try:
        return HubTokenizer(tokenizer, settings, options["context_length"], **given)
    except Exception as error:  # the library has no classes of errors
        raise DetectorError(
            f"The tokenizer of {architecture} cannot be read from {tokenizer} ({reason(error)}): fetch it again."
        ) from error


def _downloaded(architecture: str, repository: str) -> list[Path]:
    """Return a tokenizer's files of the hub, downloaded on first use."""
    try:
        return [fetch({"hf_hub": f"{repository}/{file}"}) for file in FILES]
    except MedCLIPADError:
        raise
    except Exception as error:  # a dozen classes of requests and the hub mean the same to the user
        raise DetectorError(
            f"The tokenizer of {architecture} could not be downloaded ({reason(error)}): connect to the network, or "
            f"put {' and '.join(FILES)} of huggingface.co/{repository} beside the file of the weights."
        ) from error
