import numpy as np
import pyloudnorm
import pytest
import torch
from safetensors.torch import load_file

from components import audio
from components.audio import AudioEncoder, frames_of, normalise_loudness, window
from components.errors import CheckpointMismatch
from components.values import AudioFeatures


def speech(seconds, level=0.1):
    """Noise in syllables."""
    generator = np.random.default_rng(0)
    samples = round(seconds * audio.SAMPLE_RATE)
    envelope = 0.55 + 0.45 * np.sin(np.arange(samples) / audio.SAMPLE_RATE * 25)
    return (level * envelope * generator.standard_normal(samples)).astype(np.float32)


@pytest.fixture(scope="module")
def encoder(avatar_root, cpu):
    return AudioEncoder.load(avatar_root, cpu)


def test_frames_are_those_begun():
    assert [frames_of(samples) for samples in (6400, 6401, 16_000, 21_920, 3_200_000)] == [10, 11, 25, 35, 5000]


@pytest.mark.parametrize("level", [0.003, 0.5])
def test_loudness_becomes_minus_23(level):
    meter = pyloudnorm.Meter(audio.SAMPLE_RATE)
    assert meter.integrated_loudness(normalise_loudness(speech(2, level))) == pytest.approx(-23, abs=0.01)


def test_silence_stays_silence_and_has_features(encoder):
    silence = np.zeros(audio.SAMPLE_RATE, np.float32)
    assert not normalise_loudness(silence).any()
    assert torch.isfinite(encoder.encode([silence]).features_PFNE).all()


def test_how_loud_it_was_does_not_matter(encoder):
    quiet, loud = (encoder.encode([speech(1, level)]).features_PFNE for level in (0.01, 0.3))
    assert torch.allclose(quiet, loud, atol=1e-3)
    assert quiet.shape == (1, 25, 2, 16)


def test_pieces_give_what_the_library_gives_at_once(encoder, monkeypatch):
    wave = torch.from_numpy(speech(1.3))
    whole = encoder._model.feature_extractor(wave[None])
    monkeypatch.setattr(audio, "PIECE_FRAMES", 7)
    assert torch.allclose(encoder._convolved(wave), whole, atol=1e-4)


def test_the_longest_sound_is_cut_into_pieces_as_long_as_any_other_s():
    stride, field = 320, 400
    pieces = list(audio._pieces(torch.zeros(200 * audio.SAMPLE_RATE), stride, field, audio.PIECE_FRAMES))
    assert max(piece.shape[2] for piece in pieces) == (audio.PIECE_FRAMES - 1) * stride + field
    assert sum((piece.shape[2] - field) // stride + 1 for piece in pieces) == 9999


def test_the_process_wide_generator_is_neither_read_nor_moved(encoder):
    before = torch.get_rng_state()
    encoder.encode([speech(0.5)])
    assert torch.equal(torch.get_rng_state(), before)


def test_two_speakers_need_one_length(encoder):
    assert encoder.encode([speech(0.5), speech(0.5, 0.2)]).features_PFNE.shape[0] == 2
    with pytest.raises(ValueError, match="one length"):
        encoder.encode([speech(0.5), speech(0.6)])


def test_a_window_is_picked_by_index():
    features = AudioFeatures(torch.arange(6.0).view(1, 6, 1, 1))
    assert window(features, [(0, 0, 1), (3, 4, 5)]).heard_PFWNE.flatten().tolist() == [0, 0, 1, 3, 4, 5]


def test_a_pretraining_checkpoint_in_pytorch_s_format_loads_too(avatar_root, cpu, tmp_path, encoder):
    folder = tmp_path / audio.FOLDER
    folder.mkdir()
    (folder / "config.json").write_bytes((avatar_root / audio.FOLDER / "config.json").read_bytes())
    state = load_file(avatar_root / audio.FOLDER / "model.safetensors")
    old = {
        "wav2vec2."
        + name.replace("parametrizations.weight.original0", "weight_g").replace(
            "parametrizations.weight.original1", "weight_v"
        ): tensor
        for name, tensor in state.items()
    }
    torch.save({**old, "quantizer.codevectors": torch.zeros(1, 2, 3)}, folder / "pytorch_model.bin")
    wave = speech(0.5)
    loaded = AudioEncoder.load(tmp_path, cpu)
    assert torch.equal(loaded.encode([wave]).features_PFNE, encoder.encode([wave]).features_PFNE)

    torch.save({**old, "stranger": torch.zeros(1)}, folder / "pytorch_model.bin")
    with pytest.raises(CheckpointMismatch, match="unexpected 'stranger'"):
        AudioEncoder.load(tmp_path, cpu)
