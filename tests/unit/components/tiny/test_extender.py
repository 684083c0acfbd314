import subprocess
import sys
from pathlib import Path

from transformers import AutoTokenizer, Qwen2ForCausalLM

from components.tiny import write_extender
from tests.unit.components.tiny.test_r2v import contents


def test_same_bytes_in_another_process(extender_root, tmp_path):
    code = "import sys, pathlib; from components.tiny import write_extender; write_extender(pathlib.Path(sys.argv[1]))"
    repository = Path(__file__).resolve().parents[4]
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "again")], cwd=repository, check=True, timeout=120)
    assert contents(tmp_path / "again") == contents(extender_root)


def test_seeds_differ_in_weights_only(extender_root, tmp_path):
    write_extender(tmp_path / "other", seed=1)
    mine, other = contents(extender_root), contents(tmp_path / "other")
    assert {name for name in mine if mine[name] != other[name]} == {"tiny.json", "model.safetensors"}


def test_the_library_loads_it_whole(extender_root):
    _, found = Qwen2ForCausalLM.from_pretrained(extender_root, output_loading_info=True)
    assert not any(found.values())


def test_the_tokenizer_reads_any_text_and_knows_turns(extender_root):
    tokenizer = AutoTokenizer.from_pretrained(extender_root)
    for text in ("a woman in a red coat", '{"prompt": "', "雪 – ☃ \n"):
        assert tokenizer.decode(tokenizer(text).input_ids) == text
    chat = tokenizer.apply_chat_template(
        [{"role": "user", "content": "hi"}], tokenize=False, add_generation_prompt=True
    )
    assert chat == "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
    assert len(tokenizer(chat).input_ids) < len(chat) / 2  # turns' marks are single tokens
