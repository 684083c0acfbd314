"""The library's own pipelines of HunyuanVideo over a tiny checkpoint."""

from pathlib import Path

from diffusers import (
    AutoencoderKLHunyuanVideo,
    FlowMatchEulerDiscreteScheduler,
    HunyuanSkyreelsImageToVideoPipeline,
    HunyuanVideoPipeline,
    HunyuanVideoTransformer3DModel,
)
from transformers import AutoTokenizer, CLIPTextModel, CLIPTokenizer, LlamaModel


def library_vae(root: Path) -> AutoencoderKLHunyuanVideo:
    model = AutoencoderKLHunyuanVideo.from_pretrained(root / "vae").eval()
    model.enable_tiling()
    return model


def pipeline(
    kind: type[HunyuanVideoPipeline] | type[HunyuanSkyreelsImageToVideoPipeline], root: Path
) -> HunyuanVideoPipeline | HunyuanSkyreelsImageToVideoPipeline:
    pipe = kind(
        text_encoder=LlamaModel.from_pretrained(root / "text_encoder").eval(),
        tokenizer=AutoTokenizer.from_pretrained(root / "tokenizer"),
        text_encoder_2=CLIPTextModel.from_pretrained(root / "text_encoder_2").eval(),
        tokenizer_2=CLIPTokenizer.from_pretrained(root / "tokenizer_2"),
        transformer=HunyuanVideoTransformer3DModel.from_pretrained(root).eval(),
        vae=library_vae(root),
        scheduler=FlowMatchEulerDiscreteScheduler.from_pretrained(root / "scheduler"),
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe
