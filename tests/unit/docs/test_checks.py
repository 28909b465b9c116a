"""Pages, checks and site: code, commands, settings, links and the reference agree with the package."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import typer

import agentexec as ax
from agentexec import activity, approvals, errors, queues, testing, web, webhooks
from agentexec.arguments.variables import env_var_name
from agentexec.cli.app import build_app
from agentexec.config import EMBEDDED_DATABASE_URL, Settings
from agentexec.schema.tables import Base
from docs.checks import ROOT, all_pages, check, read
from docs.checks.pages import Page
from docs.site import PARTS, expanded, hook, llms, settings

PACKAGE_ONLY = {
    "__version__",
    "CONF",
    "Base",
    "activity",
    "approvals",
    "queues",
    "testing",
    "web",
    "webhooks",
}
"""Names of the package that the reference describes in its text."""


def problems_of(tmp_path: Path, text: str) -> list[str]:
    """Return the problems that the checks find on a page."""
    page = tmp_path / "page.md"
    page.write_text("# Page\n\n" + text, encoding="utf-8")
    return [f"{problem.line}: {problem.text}" for problem in check([page])]


# ---- the checks find problems, and nothing else --------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("```python\nif:\n```", "4: the Python block does not compile"),
        ("```python\ndef f():\n    await g()\n```", "5: the Python block does not compile"),
        ("```python\nimport agentexec as ax\n\nax.enqeue\n```", "6: agentexec has no ax.enqeue"),
        ("```python\nfrom agentexec import Worker\n```", "4: agentexec has no agentexec.Worker"),
        ("See `ax.activity.lst(db)`.", "3: agentexec has no ax.activity.lst"),
        ("    agentexec wrk app", "3: there is no command agentexec wrk"),
        ("    agentexec worker app --procs 4", "3: agentexec worker app --procs 4: No such option"),
        ("    agentexec worker app -w many", "3: agentexec worker app -w many: Invalid value"),
        ("    agentexec cancel", "3: agentexec cancel: Missing argument 'AGENT_ID'"),
        (
            "```bash\nA=1 agentexec enqueue \\\n  x && agentexec wrk\n```",
            "4: there is no command agentexec wrk",
        ),
        ("| a |\n| --- |\n| `agentexec list [--josn]` |", "5: agentexec list --josn: No such option"),
        ('```yaml\ncommand: ["agentexec", "wrk"]\n```', "4: there is no command agentexec wrk"),
        ("```ini\n[Service]\nExecStart=/opt/bin/agentexec wrk\n```", "5: there is no command agentexec wrk"),
        (
            "    pip install agentexec",
            "3: the name agentexec on the package index belongs to another project",
        ),
        ("    ./dev tests", "3: ./dev has no verb tests"),
        ("```json\n{a: 1}\n```", "4: the json block does not parse"),
        ("```yaml\na: [1\n```", "4: the yaml block does not parse"),
        ("```toml\na = \n```", "4: the toml block does not parse"),
        ("```ini\na = 1\n```", "4: the ini block does not parse"),
        ("Set AGENTEXEC_WORKERS.", "3: there is no variable AGENTEXEC_WORKERS"),
        ("See `agentexec/nothing.py`.", "3: there is no file agentexec/nothing.py"),
        ("See [it](nowhere.md).", "3: the link nowhere.md leads nowhere"),
        ("See [it](#nowhere).", "3: page.md has no heading for the link #nowhere"),
        ("!!! note\n\n    ```python\n    x\n    ```", "5: the block in an indented block"),
    ],
)
def test_a_problem_of_a_page_is_found(tmp_path: Path, text: str, problem: str) -> None:
    (found,) = problems_of(tmp_path, text)
    assert found.startswith(problem)


@pytest.mark.parametrize(
    "text",
    [
        "```python\nx = await f()\n```".replace("f()", "__import__('asyncio').sleep(1)"),
        '    agentexec enqueue research \'{"company": "Acme"}\' --wait     # terminal 2',
        "```\nagentexec approvals [AGENT_ID] [--json]\n```",
        "`agentexec enqueue NAME [JSON or @FILE or -]`, `agentexec --install-completion`",
        "```console\n$ agentexec cancel-pending --yes\nCanceled agentexec wrk.\n```",
        "```bash\ndocker compose run --rm worker agentexec migrate --check | cat\n```",
        "```yaml\nAGENTEXEC_NUM_WORKERS: 4\n---\ncommand: [agentexec, worker]\n```",
        "`AGENTEXEC_ACTIVITY_MESSAGE_*`, `await ax.activity.stream(x).open()`, `tests/unit/docs/test_checks.py::test_x`",
        "```text\nagentexec wrk\n```",
        "[here](#page)",
    ],
)
def test_a_correct_page_passes(tmp_path: Path, text: str) -> None:
    assert problems_of(tmp_path, text) == []


# ---- README.md agrees with the package -----------------------------------------------------------------------


def rows(heading: str) -> list[list[str]]:
    """Return the rows of the table under a heading of README.md."""
    section = (ROOT / "README.md").read_text(encoding="utf-8").partition(f"\n## {heading}\n")[2]
    lines = section.partition("\n## ")[0].splitlines()
    cells = (line.split("|")[1:-1] for line in lines if line.startswith("| `"))
    return [[cell.strip() for cell in row] for row in cells]


def test_the_readme_has_every_setting_with_its_default() -> None:
    table = {names: default for names, default, _ in rows("Settings")}
    wanted = {}
    for name, field in Settings.model_fields.items():
        default = settings.default(field)
        if name == "database_url":
            default = f"`{EMBEDDED_DATABASE_URL}`"
        wanted[", ".join(f"`{variable}`" for variable in settings.variables(name, field))] = default
    assert table == wanted


def test_the_readme_has_every_command() -> None:
    commands: dict[str, Any] = vars(typer.main.get_command(build_app()))["commands"]
    named = {cells[0].strip("`").split()[1].removesuffix("`") for cells in rows("Command line")}
    assert named - {"--install-completion"} == set(commands)


# ---- the reference has everything ----------------------------------------------------------------------------


def test_the_reference_has_every_public_name() -> None:
    page = (ROOT / "docs/reference/api.md").read_text(encoding="utf-8")
    # A function named like its module is documented under a heading of its own.
    named = set(re.findall(r"^(?:::: |      heading: )agentexec\.(.+)$", page, re.MULTILINE))
    missing = {name for name in ax.__all__ if name not in named and not hasattr(errors, name)} - PACKAGE_ONLY
    for module in (activity, approvals, queues, testing, web, webhooks):
        short = module.__name__.rpartition(".")[2]
        missing |= {f"{short}.{name}" for name in module.__all__ if f"{short}.{name}" not in named}
    # Documented under their other name.
    missing -= {"activity.Status", "activity.count_active"}
    missing -= {f"approvals.{name}" for name in ("approve", "approve_sync", "reject", "reject_sync")}
    assert not missing


def test_the_generated_parts_are_complete() -> None:
    commands: dict[str, Any] = vars(typer.main.get_command(build_app()))["commands"]
    cli = PARTS["cli"]()
    for name, command in commands.items():
        section = cli.partition(f"## agentexec {name}\n")[2].partition("\n## ")[0]
        for parameter in command.params:
            argument = parameter.param_type_name == "argument"
            for option in [parameter.metavar or parameter.name.upper()] if argument else parameter.opts:
                assert option.replace("|", "\\|") in section, (name, option)
    for name, field in Settings.model_fields.items():
        assert f"## {env_var_name(name)}\n\n{field.description}\n" in PARTS["settings"]()
    for name, error in vars(errors).items():
        if isinstance(error, type) and issubclass(error, errors.AgentexecError):
            assert f"{error.__name__}` | {error.exit_code} |" in PARTS["errors"](), name
    for table in Base.metadata.sorted_tables:
        for column in table.columns:
            assert f"`{column.name}`" in PARTS["schema"]().partition(f"## {table.name}\n")[2]
    for field in activity.OverviewSchema.model_fields:
        assert f"| `{field}` |" in PARTS["metrics"]()


def test_an_option_is_documented_with_its_default_and_range() -> None:
    assert (
        "| `-i, --interval NUMBER` | `1.0` | Seconds between two refreshes. From 0.2 to 3600. |"
        in PARTS["cli"]()
    )
    assert settings.kind(Settings.model_fields["num_workers"]) == "integer from 1 to 512"
    assert settings.kind(Settings.model_fields["redis_url"]) == "text"
    assert settings.kind(Settings.model_fields["model_prices"]) == "JSON object"


# ---- the site shows what the repository shows ----------------------------------------------------------------


def in_site(uri: str, text: str) -> str:
    page: Any = SimpleNamespace(file=SimpleNamespace(src_uri=uri), meta={})
    return hook.on_page_markdown(text, page)


@pytest.mark.parametrize(
    ("uri", "link", "wanted"),
    [
        ("changelog.md", "docs/guides/approvals.md#answer", "guides/approvals.md#answer"),
        ("index.md", "../README.md", "repository/README.md"),
        ("guides/fan-out.md", "../../examples/fan_out/README.md", "../repository/examples/fan_out/README.md"),
        (
            "guides/fan-out.md",
            "../../examples/fan_out/worker.py",
            "../repository/examples/fan_out/worker.py.md",
        ),
        (
            "repository/examples/fan_out/README.md",
            "../../docs/guides/fan-out.md",
            "../../../guides/fan-out.md",
        ),
        ("contributing.md", "CHANGELOG.md", "changelog.md"),
        ("guides/fan-out.md", "approvals.md", "approvals.md"),
        ("index.md", "https://example.org/x.md", "https://example.org/x.md"),
    ],
)
def test_links_work_in_the_site_too(uri: str, link: str, wanted: str) -> None:
    assert in_site(uri, f"[it]({link})") == f"[it]({wanted})"


def test_hidden_code_and_marks_of_generated_parts_are_replaced() -> None:
    text = in_site("x.md", "<!-- with:\nimport x\n-->\n```python\nx\n```\n\n<!-- generated: errors -->\n")
    assert text.startswith("```python\nx\n```")
    assert "| `ax.AgentexecError` | 1 |" in text
    assert expanded("<!-- other -->") == "<!-- other -->"


def test_a_page_that_looks_different_in_the_site_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    page: Any = SimpleNamespace(file=SimpleNamespace(src_uri="x.md"), meta={"github": "Text\n- one\n"})
    hook.on_page_content("<p>Text\n- one</p>", page)
    hook.on_post_page('<script src="https://cdn.example.org/x.js"></script>', page)
    assert [record.getMessage() for record in caplog.records] == [
        "agentexec: x.md has 0 <li> in the site and 1 on GitHub",
        'agentexec: x.md loads something from outside: <script src="https://cdn.example.org/x.js">',
    ]


def test_short_code_in_text_is_not_broken_and_blocks_keep_their_lines() -> None:
    page: Any = SimpleNamespace(
        file=SimpleNamespace(src_uri="x.md"), meta={"github": "`--json`\n\n    a\n    b\n"}
    )
    html = "<p><code>--json</code></p><pre><span></span><code>a\nb\n</code></pre>"
    assert hook.on_page_content(html, page) == html.replace("<p><code>", '<p><code class="short">')


def test_the_index_for_language_models_has_every_page_of_the_site_with_a_sentence() -> None:
    config = llms.configuration()
    lines = llms.index(config, lambda uri: ROOT / hook._origin(uri)).splitlines()
    assert lines[:3] == ["# agentexec", "", f"> {config['site_description']}"]
    pages = [found for line in lines if (found := re.fullmatch(r"- \[[^]]+\]\(([\w/.-]+)\): .+\.", line))]
    uris = [found[1] for found in pages]
    assert len(uris) == len(set(uris)) and set(hook.AT_TOP.values()) <= set(uris)
    assert {f"docs/{uri}" for uri in uris} >= {
        str(file.relative_to(ROOT)) for file in ROOT.glob("docs/**/*.md") if "node_modules" not in file.parts
    }
    texts = {uri: f"text of {uri}" for uri in uris}
    assert llms.full(config, texts).count("text of ") == len(uris)
    assert [p.text for p in llms.problems(Page(ROOT / "docs/x.md", "# Title\n\n## Other\n"))]


def test_every_page_is_found() -> None:
    assert {
        ROOT / "README.md",
        ROOT / "docs/guides/approvals.md",
        ROOT / "examples/fan_out/README.md",
    } <= set(all_pages())
    assert read(ROOT / "README.md").blocks
