"""All tests in one process per core, two at most: `python -m tests`, which is `make test`. Words behind it go to pytest.

Every process collects all tests and runs the files that it claims first (tests/conftest.py), the second from the end, so
that none waits. The first is shown as it goes, the others when they are done, and a last line counts all.
"""
import os
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

MOST = 2                     # more memory and disk than cores would be wanted
COUNTS = re.compile(r"(\d+) (passed|failed|skipped|errors?|xfailed|xpassed|warnings?)\b")


def start(rank, folder, words):
    env = os.environ | {"OMP_NUM_THREADS": "1", "TESTS_CLAIMED": str(folder), "TESTS_RANK": str(rank)}
    return subprocess.Popen([sys.executable, "-m", "pytest", "-q", *(words or ["tests"])], env=env,
                            stdout=open(folder / f"said-{rank}", "wb") if rank else subprocess.PIPE)


def main():
    began, n = time.time(), min(MOST, os.cpu_count() or 1)
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        running, said = [start(rank, folder, sys.argv[1:]) for rank in range(n)], b""
        while part := running[0].stdout.read1():
            said += part
            sys.stdout.buffer.write(part)
            sys.stdout.flush()
        ends, texts = [one.wait() for one in running], [said.decode(errors="replace")]
        for rank in range(1, n):
            texts.append((folder / f"said-{rank}").read_text(errors="replace"))
            print(texts[-1], end="")
    total = Counter()
    for text in texts:
        lines = [line for line in text.splitlines() if re.search(r" in \d+\.\d+s", line)]
        for count, what in COUNTS.findall(lines[-1] if lines else ""):
            total[what.rstrip("s") if what.startswith(("error", "warning")) else what] += int(count)
    print(", ".join(f"{count} {what}" for what, count in total.items()), f"in {time.time() - began:.0f}s, {n} processes")
    ends = [end for end in ends if end != 5] or [5]            # 5: no test for this process
    sys.exit(max(ends, key=abs))


if __name__ == "__main__":
    main()
