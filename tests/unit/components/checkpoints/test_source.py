import httpx
import pytest
from huggingface_hub.errors import LocalEntryNotFoundError

from components.checkpoints import known_arguments, read_config, resolve, source
from components.errors import CheckpointMismatch


def test_a_directory_is_itself(root, monkeypatch):
    monkeypatch.chdir(root.parent)
    assert resolve(root.name, None) == root
    assert resolve(str(root), "ignored") == root


def test_anything_else_is_a_hub_id_at_its_revision(tmp_path, monkeypatch):
    asked = {}

    def fetch(repo_id, **options):
        asked.update(repo_id=repo_id, **options)
        return str(tmp_path)

    monkeypatch.setattr(source, "snapshot_download", fetch)
    assert resolve("owner/name", "v1", without=("transformer/*",)) == tmp_path
    assert (asked["repo_id"], asked["revision"]) == ("owner/name", "v1")
    assert set(asked["allow_patterns"]) == {"*.json", "*.safetensors", "*.pth", "*.bin", "*.jinja", "*merges.txt"}
    assert asked["ignore_patterns"] == ["transformer/*"]


@pytest.mark.parametrize(
    "error",
    [LocalEntryNotFoundError("no copy\nand no network"), httpx.ConnectError("refused"), OSError("unreachable")],
)
def test_unreachable_is_one_line(monkeypatch, error):
    def fail(*args, **kwargs):
        raise error

    monkeypatch.setattr(source, "snapshot_download", fail)
    with pytest.raises(CheckpointMismatch, match="'owner/name' is no directory and cannot be fetched") as caught:
        resolve("owner/name", None)
    assert "\n" not in str(caught.value)


def test_a_missing_path_is_refused_without_the_network():
    with pytest.raises(CheckpointMismatch, match="no directory"):
        resolve("/no/such/folder/anywhere", None)


@pytest.mark.parametrize("text", [None, "{", "[1]", "\udcff"])
def test_unreadable_configuration_is_refused(tmp_path, text):
    file = tmp_path / "config.json"
    if text is not None:
        file.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(CheckpointMismatch, match=r"config\.json"):
        read_config(file)


def test_known_arguments_leave_bookkeeping_out():
    class Kind:
        def __init__(self, width: int, depth: int = 1) -> None: ...

    assert known_arguments(Kind, {"_class_name": "Other", "width": 3, "old": None}) == {"width": 3}
