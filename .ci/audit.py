"""Known vulnerabilities of what constraints.txt pins, by pip-audit, where a database of them can be reached.

Where none can, one line says so. Ends with code 1 for a vulnerability, and with 0 where nothing could be asked.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

PINS = Path(__file__).parents[1] / "constraints.txt"
SECONDS = 180  # for all of it
AUDIT = [sys.executable, "-m", "pip_audit", "--disable-pip", "--no-deps", "--progress-spinner=off", "--format=json"]


def audited(answer: str) -> tuple[int, list[str]]:
    """How many packages a database knew, and the vulnerabilities of these."""
    packages = json.loads(answer)["dependencies"]
    known = [package for package in packages if "skip_reason" not in package]
    found = [
        f"{package['name']} {package['version']}: {fault['id']}, mended in {', '.join(fault['fix_versions']) or 'none yet'}"
        for package in known
        for fault in package["vulns"]
    ]
    return len(known), found


def main() -> int:
    """Audit and say what came of it; the exit code."""
    num_pins = sum(1 for line in PINS.read_text().splitlines() if "==" in line)
    try:
        done = subprocess.run([*AUDIT, "-r", str(PINS)], capture_output=True, text=True, timeout=SECONDS)
        known, found = audited(done.stdout)
    except (subprocess.TimeoutExpired, ValueError, KeyError):
        known, found = 0, []
    if not known:
        print(
            f"No database of vulnerabilities can be asked from here: the {num_pins} pins of {PINS.name} were not audited."
        )
        return 0
    print("\n".join(found) or f"No known vulnerability in {known} of {num_pins} pinned packages.")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
