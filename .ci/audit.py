"""Look for known vulnerabilities in the locked requirements, with pip-audit. `./dev audit` runs it.

Exit codes: 0 none is known, 1 at least one is, 75 the audit could not be made, which the last line says.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

TOOL = "pip-audit==2.10.1"
"""In an environment of its own: its dependencies are none of the project's."""

SECONDS = 180
NOT_MADE = 75


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        locked = Path(folder) / "requirements.txt"
        export = ["uv", "export", "--quiet", "--locked", "--no-emit-project", "--all-extras", "--all-groups"]
        subprocess.run([*export, "--output-file", str(locked)], check=True)  # noqa: S603 - our own arguments
        audit = ["uv", "tool", "run", "--quiet", TOOL, "--disable-pip", "--require-hashes", "--timeout", "15"]
        try:
            done = subprocess.run(  # noqa: S603 - our own arguments
                [*audit, "--format", "json", "--progress-spinner", "off", "--requirement", str(locked)],
                capture_output=True,
                text=True,
                timeout=SECONDS,
            )
        except subprocess.TimeoutExpired:
            return not_made(f"pip-audit has no answer after {SECONDS} s")
    try:
        packages: list[dict[str, Any]] = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError, TypeError):
        last = (done.stderr.strip().splitlines() or ["it says nothing"])[-1]
        return not_made(f"pip-audit failed: {last[:300]}")
    # Without an answer about a package pip-audit calls it skipped, and all together no finding.
    skipped = [package for package in packages if "skip_reason" in package]
    if packages and len(skipped) == len(packages):
        return not_made(
            f"the vulnerability service cannot be reached, or knows none of the {len(packages)} packages: {reason(skipped)}"
        )
    found = [package for package in packages if package.get("vulns")]
    for package in found:
        for vulnerability in package["vulns"]:
            fixed = ", ".join(vulnerability.get("fix_versions", [])) or "no release"
            say(f"{package['name']} {package['version']}: {vulnerability['id']}, fixed in {fixed}")
    say(
        f"audit made: {len(packages) - len(skipped)} of {len(packages)} packages, {len(found)} with vulnerabilities"
    )
    if skipped:
        say(f"not audited: {', '.join(package['name'] for package in skipped)}")
    return 1 if found else 0


def reason(skipped: list[dict[str, Any]]) -> str:
    return str(skipped[0]["skip_reason"])


def not_made(why: str) -> int:
    say(f"audit not made: {why}")
    return NOT_MADE


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")


if __name__ == "__main__":
    sys.exit(main())
