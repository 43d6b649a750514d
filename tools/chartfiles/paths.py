"""Where things are."""

from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
CHART: Final = ROOT / "charts" / "peacemaker"
BASE: Final = ROOT / "deploy" / "base"
