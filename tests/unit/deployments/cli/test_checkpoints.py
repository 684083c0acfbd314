from typer.testing import CliRunner

from deployments.cli.main import app


def run(*words):
    return CliRunner().invoke(app, ["checkpoints", *map(str, words)])


def test_a_written_checkpoint_verifies_and_a_broken_one_does_not(tmp_path):
    folder = tmp_path / "x"
    assert run("write-tiny", folder, "--model", "skyreels-v3-extend").exit_code == 0
    good = run("verify", folder)
    assert good.exit_code == 0
    assert "video extension" in good.output
    assert good.output.count("whole") == 5
    (folder / "Wan2.1_VAE.pth").write_bytes(b"")
    bad = run("verify", folder)
    assert bad.exit_code == 1
    assert "Wan2.1_VAE.pth is damaged" in bad.output
