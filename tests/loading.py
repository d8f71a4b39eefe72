"""What code loads in an interpreter of its own."""

from __future__ import annotations

import subprocess
import sys

MODULES = "{name.partition('.')[0] for name in sys.modules} - sys.stdlib_module_names"


def loaded(code: str, *arguments: object) -> set[str]:
    """Return the top-level modules outside the standard library after running ``code``."""
    script = f"import sys\n{code}\nprint(*{MODULES})"
    command = [sys.executable, "-W", "error", "-c", script, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split())
