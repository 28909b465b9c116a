"""Make the pictures: `./dev docs pictures`, or some of them by name."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from docs.pictures.charts import charts
from docs.pictures.diagrams import draw_all
from docs.pictures.monitor import monitor
from docs.pictures.recording import record

FOLDER = Path(__file__).parent

PICTURES: dict[str, Callable[[], str]] = {"resumed": record, "monitor": monitor}


def main(names: list[str]) -> int:
    """Write the pictures with these names, or all of them."""
    known = [*PICTURES, "charts", "diagrams"]
    unknown = sorted(set(names) - set(known))
    if unknown:
        print(f"There is no picture {unknown[0]}; there are {', '.join(known)}.", file=sys.stderr)
        return 2
    for name in names or known:
        print(f"drawing {name}", file=sys.stderr)
        if name == "diagrams":
            draw_all()
        elif name == "charts":
            for file, svg in charts().items():
                (FOLDER / f"{file}.svg").write_text(svg, encoding="utf-8")
        else:
            (FOLDER / f"{name}.svg").write_text(PICTURES[name](), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
