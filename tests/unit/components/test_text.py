import pytest
import torch
from diffusers import WanPipeline
from tokenizers import Tokenizer, models
from transformers import AutoTokenizer, UMT5EncoderModel

from components.checkpoints import load_strict
from components.device import Placement
from components.errors import CheckpointMismatch
from components.text import TEXT_ROWS, TextEncoder, clean

PROMPT = "A woman in a red coat walks — “slowly” — by the sea; 北京"


def test_cleaning_repairs_unescapes_and_collapses():
    assert clean("  a\tcat \n\n &amp;amp; a dog  ") == "a cat & a dog"
    assert clean("cafÃ© &lt;b&gt;") == "café <b>"


def test_rows_beyond_the_prompt_are_zero_and_kept(text):
    context = text.encode("a cat", None)
    lengths = context.prompt_BLD.abs().sum(-1).ne(0)[0]
    used = int(lengths.sum())
    assert context.prompt_BLD.shape[:2] == (1, TEXT_ROWS)
    assert 2 < used < 10
    assert lengths[:used].all()


def test_negative_prompt_is_absent_empty_or_text(text):
    absent = text.encode(PROMPT, None)
    empty = text.encode(PROMPT, "")
    some = text.encode(PROMPT, "smoke")
    assert absent.negative_BLD.shape == (1, 0, absent.prompt_BLD.shape[2])
    assert empty.negative_BLD.abs().sum(-1).ne(0).sum() == 1  # the end token
    assert torch.equal(some.negative_BLD, text.encode("smoke", None).prompt_BLD)
    assert torch.equal(absent.prompt_BLD, some.prompt_BLD)


def test_long_prompts_are_cut(text):
    context = text.encode("walk " * 2000, None)
    assert context.prompt_BLD.shape[1] == TEXT_ROWS
    assert context.prompt_BLD.abs().sum(-1).ne(0).all()


def test_equals_the_librarys_pipeline(root, text):
    pipe = WanPipeline(
        tokenizer=AutoTokenizer.from_pretrained(root / "tokenizer"),
        text_encoder=UMT5EncoderModel.from_pretrained(root / "text_encoder").eval(),
        vae=None,
        scheduler=None,
    )
    with torch.no_grad():
        expected_BLD, _ = pipe.encode_prompt(PROMPT, do_classifier_free_guidance=False, max_sequence_length=TEXT_ROWS)
    assert torch.equal(text.encode(PROMPT, None).prompt_BLD, expected_BLD)


def test_bf16_stays_close_to_fp32(root, text):
    low = TextEncoder.load(root, Placement(torch.device("cpu"), torch.bfloat16)).encode(PROMPT, None).prompt_BLD
    high = text.encode(PROMPT, None).prompt_BLD
    assert low.dtype == torch.bfloat16
    assert float((low.float() - high).norm() / high.norm()) < 0.05


def test_another_tokenizer_is_refused(cpu):
    with pytest.raises(CheckpointMismatch, match="no <pad> token"):
        TextEncoder(torch.nn.Identity(), Tokenizer(models.Unigram([("a", 0.0)], unk_id=0)), cpu)


def test_missing_tokenizer_is_refused(root, cpu, tmp_path):
    (tmp_path / "text_encoder").symlink_to(root / "text_encoder")
    with pytest.raises(CheckpointMismatch, match=r"tokenizer\.json is missing"):
        TextEncoder.load(tmp_path, cpu)


def test_embedding_is_one_tensor_under_both_names(root, cpu):
    with torch.device("meta"):
        model = UMT5EncoderModel(UMT5EncoderModel.config_class.from_pretrained(root / "text_encoder"))
    tied = {"encoder.embed_tokens.weight": "shared.weight"}
    load_strict(model, root / "text_encoder", device=cpu.device, dtype_of=lambda _: torch.float32, tied=tied)
    assert model.encoder.embed_tokens.weight is model.shared.weight
