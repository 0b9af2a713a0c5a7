"""Interface of a frozen image encoder: four tapped stages and, where there is one, the text tower."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from medclipad.encoders.registry import encoder_examples
from medclipad.errors import DetectorError

N_STAGES = 4


def quarter(blocks: int, level: int) -> range:
    """Return the indices of a ViT's blocks that make up stage `level`: a quarter of them, or one more.

    Examples
    --------
    >>> [len(quarter(27, level)) for level in range(N_STAGES)]
    [6, 7, 7, 7]
    """
    return range(blocks * level // N_STAGES, blocks * (level + 1) // N_STAGES)


class TextTower(ABC):
    """Text half of a CLIP model.

    Attributes
    ----------
    context_length : int
        Tokens of a text, padding included.
    width : int
        Width of a token's embedding.
    needs_padding : bool
        Whether a text's feature depends on the padding behind it, as in SigLIP: it must then not be cut off.
    """

    context_length: int
    width: int
    needs_padding: bool = False

    @property
    def n_start(self) -> int:
        """Tokens before a text's words: 1 for the start token of CLIP, 0 for a tokenizer without one."""
        return 1

    @abstractmethod
    def tokenize(self, texts: list[str]) -> Tensor:
        """Return token ids, int64 (n, context_length): start tokens, words, end token, padding."""

    @abstractmethod
    def ends(self, tokens: Tensor) -> Tensor:
        """Return the position (n,) of each text's end token in token ids (n, L)."""

    @abstractmethod
    def token_embedding(self, tokens: Tensor) -> Tensor:
        """Return the embeddings (n, L, width) of token ids (n, L)."""

    @abstractmethod
    def encode(self, embeddings: Tensor, end: Tensor, causal: bool) -> Tensor:
        """Return text features (n, embed_dim), not normalised.

        Parameters
        ----------
        embeddings
            Token embeddings (n, L, width).
        end
            Position (n,) of each text's end token, whose output is the text's feature.
        causal
            Whether the tower runs with the mask that it was trained with: CLIP's tokens see only those before them.
            With False every token sees every other, padding included, as in MediCLIP's reference code. A tower that was
            trained without a mask, such as SigLIP's, gives the same for both.
        """


class ImageEncoder(nn.Module, ABC):
    """Frozen image encoder with tapped stages.

    A method calls `stem`, then `stage` for levels 0 to 3. Between two stages it may read the `tokens` of the state and
    replace them by `with_tokens`, as MVFA's residual adapters do. The state between two stages is one tensor, batch
    first.

    Attributes
    ----------
    name : str
        As given to `load_encoder`.
    sha256 : str
        Hash of the weights file, hex.
    image_size : int
        Side of the square input in pixels.
    widths, grids : tuple of int
        Token width, and side of the token grid, after each stage.
    n_prefix : int
        Tokens before the patch tokens: a ViT's class and register tokens; 0 if it has none.
    embed_dim : int
        Width of the space shared with the text tower, or of the learned vectors that take its place.
    mean, std : tuple of float
        Normalisation of RGB in [0, 1]. A method applies it or not: MVFA does not.
    text : TextTower or None
        Text tower, if there is one.
    is_convolutional : bool
        Whether the encoder is a CNN, whose stages differ in grid and width. A ViT's do not.
    quick_gelu : bool
        Whether the blocks' activation is CLIP's QuickGELU, x·sigmoid(1.702 x).
    """

    name: str
    sha256: str
    image_size: int
    widths: tuple[int, ...]
    grids: tuple[int, ...]
    n_prefix: int
    embed_dim: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    text: TextTower | None = None
    is_convolutional: bool = False
    quick_gelu: bool = False

    @abstractmethod
    def stem(self, images: Tensor) -> Tensor:
        """Return the state before the first stage, of RGB images (B, 3, image_size, image_size) in [0, 1]."""

    @abstractmethod
    def stage(self, state: Tensor, level: int) -> Tensor:
        """Return the state after stage `level` (0 to 3), given the state before it."""

    @abstractmethod
    def tokens(self, state: Tensor) -> Tensor:
        """Return the tokens (B, n_prefix + grid², width) of a state after a stage."""

    @abstractmethod
    def with_tokens(self, state: Tensor, tokens: Tensor) -> Tensor:
        """Return the state with its tokens replaced."""

    def project(self, tokens: Tensor) -> Tensor:
        """Map tokens (..., width) of the last stage into the space shared with the text tower, (..., embed_dim).

        Raises
        ------
        DetectorError
            If the encoder has no text tower.
        """
        self.require_text()
        raise NotImplementedError  # an encoder with a text tower projects its tokens in its own way

    def freeze(self) -> ImageEncoder:
        """Switch to evaluation mode without gradients for the weights; they still flow through to adapters."""
        return self.eval().requires_grad_(False)

    @property
    def has_text(self) -> bool:
        """Whether there is a text tower."""
        return self.text is not None

    def require_text(self) -> TextTower:
        """Return the text tower.

        Raises
        ------
        DetectorError
            If the encoder has none.
        """
        if self.text is None:
            example = encoder_examples(has_text=True)[0]
            raise DetectorError(
                f"Encoder {self.name} has no text tower: choose an encoder that has one, such as {example}."
            )
        return self.text

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """Type of weights, states and tokens: float32 or bfloat16."""
        return next(self.parameters()).dtype

    @property
    def batch(self) -> int:
        """Images to pass at once: few on a CPU, so that its cache holds their activations, many on a GPU."""
        return 4 if self.device.type == "cpu" else 32

    def taps(self, images: Tensor, first: int = 0) -> list[Tensor]:
        """Return the tokens after stages `first` to 3 of RGB images (B, 3, S, S), without adapters."""
        state, tokens = self.stem(images), []
        for level in range(N_STAGES):
            state = self.stage(state, level)
            if level >= first:
                tokens.append(self.tokens(state))
        return tokens

    def patch_maps(self, tokens: Tensor, level: int) -> Tensor:
        """Return the patch tokens of a stage as maps.

        Parameters
        ----------
        tokens
            Values (B, n_prefix + grid², C), or (B, grid², C) without the prefix.
        level
            Stage, 0 to 3.

        Returns
        -------
        Tensor
            Maps (B, C, grid, grid).
        """
        grid = self.grids[level]
        return tokens[:, -grid * grid :].transpose(1, 2).unflatten(2, (grid, grid))
