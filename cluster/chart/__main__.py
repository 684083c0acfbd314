"""`python -m cluster.chart`: writes the generated files of helm/skyreels."""

from __future__ import annotations

import sys
from pathlib import Path

from cluster.chart.files import generated

CHART = Path("helm/skyreels")


def main() -> int:
    """Writes what differs. Run from the root of the repository."""
    for name, text in generated().items():
        path = CHART / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        sys.stdout.write(f"{path}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
