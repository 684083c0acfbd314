"""`python -m cluster.monitoring FOLDER` writes every file that is made of the registry; old ones are removed."""

from __future__ import annotations

import sys
from pathlib import Path

from cluster.monitoring.write import files

FOLDERS = ("rules", "runbooks", "dashboards")


def main(folder: Path) -> None:
    """Makes the folders hold exactly what the code says."""
    made = files()
    for name in FOLDERS:
        for path in (folder / name).rglob("*"):
            if path.is_file() and str(path.relative_to(folder)) not in made:
                path.unlink()
    for name, text in made.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
