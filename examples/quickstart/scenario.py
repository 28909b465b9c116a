"""The demo's companies, and what the scripted model says about each."""

from __future__ import annotations

from mock_openai import Step, call, say

COMPANIES = (
    "Acme",
    "Globex",
    "Initech",
    "Umbrella",
    "Hooli",
    "Stark",
    "Wayne",
    "Tyrell",
    "Cyberdyne",
    "Soylent",
    "Wonka",
    "Monarch",
)


def company_names(number: int) -> list[str]:
    """Return as many names as asked for; after the last company they begin again, with a number."""
    rounds = range(-(-number // len(COMPANIES)))
    return [f"{name} {n + 1}" if n else name for n in rounds for name in COMPANIES][:number]


def script(pause: float) -> list[Step]:
    """Return the answers of the model in one run; `{prompt}` is the name of the company."""
    steps = [
        call("report_status", message="Gathering financials", percentage=10),
        call("look_up_financials", company="{prompt}"),
        call("report_status", message="Looking for competitors", percentage=40),
        call("find_competitors", company="{prompt}"),
        call("report_status", message="Comparing them", percentage=70),
        call("report_status", message="Writing the summary", percentage=90),
        say("{prompt} is growing, and so are two competitors. Its figures are sound."),
    ]
    return [step.after(pause) for step in steps]
