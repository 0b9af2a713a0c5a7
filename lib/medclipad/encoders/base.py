"""What a method needs of a frozen image encoder: four tapped stages and, where there is one, the text tower."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from medclipad.errors import DetectorError

N_STAGES = 4


class TextTower(ABC):
    """The text half of a CLIP model."""

    context_length: int
    width: int

    @abstractmethod
    def tokenize(self, texts: list[str]) -> Tensor:
        """Token ids, int64 (n, context_length): start token, words, end token, padded with 0."""

    @abstractmethod
    def token_embedding(self, tokens: Tensor) -> Tensor:
        """Embeddings (n, L, width) of token ids (n, L)."""

    @abstractmethod
    def encode(self, embeddings: Tensor, end: Tensor, causal: bool) -> Tensor:
        """Text features (n, embed_dim), not normalised, of token embeddings (n, L, width).

        `end` (n,) is the position whose output is taken: that of the end token. With `causal=False` every token sees
        every other, padding included, as MediCLIP's reference code has it.
        """


class ImageEncoder(nn.Module, ABC):
    """A frozen image encoder that runs in four stages, each of which can be tapped and changed.

    Its state between two stages is one tensor, batch first.

    A method calls `stem`, then `stage` for level 0 to 3; between two stages it may read the `tokens` of the state and
    put changed ones back with `with_tokens` (MVFA's residual adapters do).

    Attributes
    ----------
    name: as given to `load_encoder`; sha256: of the weights file.
    image_size: side of the square input, pixels.
    widths, grids: token width and side of the token grid of each stage.
    n_prefix: tokens before the patch tokens (1 for a ViT's class token, else 0).
    embed_dim: width of the space shared with the text tower, or of the learned vectors in its place.
    quick_gelu: whether its blocks have CLIP's QuickGELU, x·sigmoid(1.702 x), as activation.
    mean, std: CLIP's normalisation of RGB in [0, 1]; a method applies it or not (MVFA does not).
    text: the text tower, or None.
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
    text: TextTower | None
    quick_gelu: bool = False

    @abstractmethod
    def stem(self, images: Tensor) -> Tensor:
        """State before the first stage, of RGB images (B, 3, image_size, image_size)."""

    @abstractmethod
    def stage(self, state: Tensor, level: int) -> Tensor:
        """State after stage `level` (0 to 3) of the state after the stage before."""

    @abstractmethod
    def tokens(self, state: Tensor) -> Tensor:
        """Tokens (B, n_prefix + grid², width) of a state after a stage."""

    @abstractmethod
    def with_tokens(self, state: Tensor, tokens: Tensor) -> Tensor:
        """The state with its tokens replaced."""

    def project(self, tokens: Tensor) -> Tensor:
        """Tokens (..., width) of the last stage in the space shared with the text tower, (..., embed_dim).

        Only of encoders that have a text tower.
        """
        raise DetectorError(f"Encoder {self.name} has no text tower: choose a CLIP encoder, ViT-L-14-336/openai say.")

    def freeze(self) -> ImageEncoder:
        """Evaluation mode and no gradients for the weights (gradients still flow through to adapters)."""
        return self.eval().requires_grad_(False)

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    @property
    def batch(self) -> int:
        """Images to pass at once: on a processor few, whose activations its cache holds; on a GPU many."""
        return 4 if self.device.type == "cpu" else 32

    @property
    def dtype(self) -> torch.dtype:
        """Of weights, states and tokens: float32 or bfloat16."""
        return next(self.parameters()).dtype

    def taps(self, images: Tensor, first: int = 0) -> list[Tensor]:
        """Tokens after the stages `first` to 3 of RGB images (B, 3, S, S): a plain pass without adapters."""
        state, tokens = self.stem(images), []
        for level in range(N_STAGES):
            state = self.stage(state, level)
            if level >= first:
                tokens.append(self.tokens(state))
        return tokens

    def patch_maps(self, tokens: Tensor, level: int) -> Tensor:
        """Patch values (B, n_prefix + grid² or grid², C) of a level as maps (B, C, grid, grid), prefix dropped."""
        grid = self.grids[level]
        return tokens[:, -grid * grid :].transpose(1, 2).unflatten(2, (grid, grid))
