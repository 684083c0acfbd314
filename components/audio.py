"""Speech to features: wav2vec2, resampled to the video's 25 frames per second.

The convolutions give about 50 features per second. They are resampled linearly, first on first and last on last, to one
per video frame, before the transformer; every layer's output is kept. The sound is brought to −23 LUFS (ITU-R
BS.1770-4) and to zero mean and unit variance before; the soundtrack of the result is not touched by that.

The convolutions run on pieces of PIECE_FRAMES features, whose statistics over time are gathered in a first round, so
memory does not grow with the sound beyond the features themselves.

Shape letters: S samples, P speakers, F video frames, f convolution features, C channels, N layers, E width, W = 5.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Self

import numpy as np
import pyloudnorm
import torch
from numpy.typing import NDArray
from torch.nn.functional import interpolate
from transformers import Wav2Vec2Config, Wav2Vec2Model

from components.checkpoints import fill_strict, read_config, read_folder, read_pth
from components.device import Placement
from components.errors import CheckpointMismatch
from components.values import AudioFeatures, AudioWindow

FOLDER = "chinese-wav2vec2-base"
SAMPLE_RATE = 16_000
FPS = 25
PIECE_FRAMES = 500  # 10 s
_LOUDNESS_LUFS = -23.0
_VARIANCE_FLOOR = 1e-7  # the feature extractor's
_PICKLED = "pytorch_model.bin"
_PRETRAINING = ("quantizer.", "project_hid.", "project_q.")
"""Heads of the pretraining task, which some copies of the checkpoint still hold; known and left out."""
_OLD_NAMES = {".conv.weight_g": ".conv.parametrizations.weight.original0"} | {
    ".conv.weight_v": ".conv.parametrizations.weight.original1"
}


def frames_of(samples: int) -> int:
    """Video frames that so many samples last, the last one begun counted."""
    return -(-samples * FPS // SAMPLE_RATE)


def normalise_loudness(wave_S: NDArray[np.float32]) -> NDArray[np.float32]:
    """Brings 16 kHz mono to −23 LUFS; what is too quiet to have a loudness, as silence, stays as it is.

    Raises:
        ValueError: shorter than 0.4 s, the shortest time that has a loudness.
    """
    loudness = float(pyloudnorm.Meter(SAMPLE_RATE).integrated_loudness(wave_S))
    if abs(loudness) > 100:  # silence is −∞
        return wave_S
    return wave_S * np.float32(10 ** ((_LOUDNESS_LUFS - loudness) / 20))


def window(features: AudioFeatures, index: Sequence[Sequence[int]]) -> AudioWindow:
    """Picks what each frame of a pass hears: `index` has for each the frames of the whole sound. Needs no weights."""
    return AudioWindow(features.features_PFNE[:, torch.tensor(index)])


class AudioEncoder:
    """wav2vec2 in fp32. Stateless between calls."""

    def __init__(self, model: Wav2Vec2Model, placement: Placement) -> None:
        """Adopts a model that is on its device already. CheckpointMismatch for another architecture."""
        config = model.config
        if config.feat_extract_norm != "group" or config.do_stable_layer_norm or config.add_adapter:
            raise CheckpointMismatch("The audio encoder is another architecture than wav2vec2-base.")
        self._model = model
        self._device = placement.device
        self._strides = tuple(config.conv_stride)
        self._kernels = tuple(config.conv_kernel)

    @classmethod
    def load(cls, root: Path, placement: Placement) -> Self:
        """From a release's `chinese-wav2vec2-base/`. CheckpointMismatch."""
        model, tensors = architecture(root)
        fill_strict(model, tensors, root / FOLDER, device=placement.device, dtype_of=lambda _: torch.float32)
        return cls(model, placement)

    def encode(self, waves: Sequence[NDArray[np.float32]]) -> AudioFeatures:
        """Sounds of one length, one per speaker, 16 kHz mono fp32 [S] in [-1, 1], to the features of all layers.

        Raises:
            ValueError: no sound, of different lengths in frames, or shorter than 0.4 s.
        """
        if not waves or len({frames_of(len(wave)) for wave in waves}) != 1:
            raise ValueError("speakers' sounds must be of one length")
        rows = [self.embed(torch.from_numpy(standardised(normalise_loudness(wave)))) for wave in waves]
        return AudioFeatures(torch.stack(rows).cpu())

    @torch.no_grad()
    def embed(self, wave_S: torch.Tensor) -> torch.Tensor:
        """A normalised sound to [F, N, E] fp32, all layers but the input's."""
        features_1Cf = self._convolved(wave_S.to(self._device, torch.float32))
        frames = frames_of(len(wave_S))
        resampled_1CF = interpolate(features_1Cf, size=frames, mode="linear", align_corners=True)
        hidden_1FE, _ = self._model.feature_projection(resampled_1CF.transpose(1, 2))
        # The encoder's own loop draws from the process-wide generator to skip layers, in training only but always.
        encoder = self._model.encoder
        hidden_1FE = encoder.layer_norm(hidden_1FE + encoder.pos_conv_embed(hidden_1FE))
        layers = []
        for layer in encoder.layers:
            hidden_1FE = layer(hidden_1FE)
            layers.append(hidden_1FE[0])
        return torch.stack(layers, dim=1)

    def _convolved(self, wave_S: torch.Tensor) -> torch.Tensor:
        """All features of a sound, [1, C, f]."""
        first, *later = self._model.feature_extractor.conv_layers
        mean_C, variance_C = self._statistics(wave_S)
        norm = first.layer_norm
        scale = norm.weight / (variance_C + norm.eps).sqrt()
        shift = norm.bias - mean_C * scale
        pieces = []
        for piece_11S in _pieces(wave_S, math.prod(self._strides), self._field(len(self._strides)), PIECE_FRAMES):
            hidden_1Cf = first.activation(first.conv(piece_11S) * scale[:, None] + shift[:, None])
            for layer in later:
                hidden_1Cf = layer(hidden_1Cf)
            pieces.append(hidden_1Cf)
        return torch.cat(pieces, dim=2)

    def _statistics(self, wave_S: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and variance over time of each channel of the first convolution, as its group normalisation has them."""
        conv = self._model.feature_extractor.conv_layers[0].conv
        count, total_C, squares_C = 0, 0.0, 0.0
        per_piece = PIECE_FRAMES * math.prod(self._strides[1:])
        for piece_11S in _pieces(wave_S, self._strides[0], self._kernels[0], per_piece):
            values_Cf = conv(piece_11S)[0].double()
            count += values_Cf.shape[1]
            total_C = total_C + values_Cf.sum(dim=1)
            squares_C = squares_C + values_Cf.square().sum(dim=1)
        mean_C = torch.as_tensor(total_C) / count
        return mean_C.float(), (torch.as_tensor(squares_C) / count - mean_C.square()).float()

    def _field(self, layers: int) -> int:
        """Samples that one feature of the last of so many convolutions sees."""
        steps = (math.prod(self._strides[:layer]) * (self._kernels[layer] - 1) for layer in range(layers))
        return 1 + int(sum(steps))


def _pieces(wave_S: torch.Tensor, stride: int, field: int, frames: int) -> Iterator[torch.Tensor]:
    """Parts [1, 1, S] of a sound that give `frames` features each, all of them once."""
    total = (len(wave_S) - field) // stride + 1
    for start in range(0, total, frames):
        stop = min(start + frames, total)
        yield wave_S[None, None, start * stride : (stop - 1) * stride + field]


def standardised(wave_S: NDArray[np.float32]) -> NDArray[np.float32]:
    """Zero mean, unit variance, as wav2vec2's feature extractor makes them."""
    standard: NDArray[np.float32] = ((wave_S - wave_S.mean()) / np.sqrt(wave_S.var() + _VARIANCE_FLOOR)).astype(
        np.float32
    )
    return standard


def architecture(root: Path) -> tuple[Wav2Vec2Model, dict[str, torch.Tensor]]:
    """A release's model on the meta device, and its tensors by the model's names, memory-mapped. CheckpointMismatch."""
    folder = root / FOLDER
    config = Wav2Vec2Config.from_dict(read_config(folder / "config.json"))
    with torch.device("meta"):
        model = Wav2Vec2Model(config)
    pickled = folder / _PICKLED
    return model, _renamed(read_pth(pickled) if pickled.is_file() else read_folder(folder))


def _renamed(stored: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Without the prefix and the heads that a pretraining checkpoint has, weight norms by their present names."""
    renamed = {}
    for name, tensor in stored.items():
        if name.startswith(_PRETRAINING):
            continue
        inner = name.removeprefix("wav2vec2.")
        for old, new in _OLD_NAMES.items():
            inner = inner.replace(old, new)
        renamed[inner] = tensor
    return renamed
