"""What a command says on standard error beside a scan's progress."""

import re

PROGRESS = re.compile(r"\d+ of \d+: |(baseline|noise floor|statistics|localize)(: |$)")


def without_progress(err: str) -> str:
    return "\n".join(line for line in err.splitlines() if not PROGRESS.match(line))
