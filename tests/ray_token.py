"""Ray decides at its import how it authenticates; importing this first decides it: by a token of this process alone."""

from __future__ import annotations

import atexit
import os
import secrets
import shutil
import tempfile
from pathlib import Path

_folder = Path(tempfile.mkdtemp(prefix="skyreels-tests-"))
atexit.register(shutil.rmtree, _folder, ignore_errors=True)
_token = _folder / "ray-token"
_token.touch(mode=0o600)
_token.write_text(secrets.token_hex(32))
os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN_PATH=str(_token))
