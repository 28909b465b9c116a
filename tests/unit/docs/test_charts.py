"""The charts of the bench: drawn from its output, and kept as they are drawn."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import docs.pictures
from docs.pictures.charts import LABELS, PANELS, THEMES, charts, conditions, draw

NAMES = (
    "drain of 5,000, 2 processes of 100",
    "drain of 5,000, 2 processes of 100, in all",
    "enqueue_many of 5,000",
    "pick-up after 1.1 s of rest, from enqueue's return, p50",
    "kill -9 of a worker until its successor runs a task",
)
MACHINE = {
    "commit": "abc <&>",
    "python": "3.11",
    "system": "Linux",
    "cpus": 2,
    "load": [0, 0, 0],
    "quick": False,
}


def measured(*targets: str) -> dict[str, Any]:
    figures = [{"name": name, "value": 10.0**at / 100, "unit": ""} for at, name in enumerate(NAMES)]
    return {
        "machine": MACHINE,
        "targets": {target: {"busy_before": 1.0, "figures": figures} for target in targets},
    }


def bars(svg: str) -> list[ElementTree.Element]:
    return [part for part in ElementTree.fromstring(svg).iter() if part.get("class") == "b"]


def test_each_panel_has_a_bar_for_each_target() -> None:
    svg = draw(measured(*LABELS), THEMES["light"])
    assert len(bars(svg)) == len(PANELS) * len(LABELS)
    assert "100,000 ms" in svg, "seconds are shown as milliseconds"


def test_a_target_that_was_not_measured_has_no_bar() -> None:
    assert len(bars(draw(measured("embedded"), THEMES["dark"]))) == len(PANELS)


def test_the_conditions_are_named() -> None:
    assert conditions(measured("embedded")) == (
        "agentexec abc <&>, Python 3.11, Linux, 2 CPUs, up to 1% busy before; medians of three rounds"
    )
    quick = measured("embedded") | {"machine": {**MACHINE, "quick": True}}
    assert conditions(quick).endswith("quick run, one round")


def test_the_kept_charts_are_those_of_the_kept_figures() -> None:
    folder = Path(docs.pictures.__file__).parent
    for name, svg in charts().items():
        assert (folder / f"{name}.svg").read_text() == svg, "run ./dev docs pictures charts"
