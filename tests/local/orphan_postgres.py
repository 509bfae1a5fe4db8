"""Leaves a PostgreSQL running, run as a script with a data directory: a server, or a busy backend without its server.

As on systems whose kernel does not tell children of their parent's death. Prints the number of what it leaves.
"""

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from app.local.postgres import EmbeddedPostgres
from app.local.process import Command

BUSY = "SELECT sum(a::numeric * b) FROM generate_series(1, 100000) a, generate_series(1, 100000) b"
WHO_IS_BUSY = "SELECT pid FROM pg_stat_activity WHERE state = 'active' AND pid <> pg_backend_pid()"


class Orphan(EmbeddedPostgres):
    """A server that is not told when its parent dies."""

    def command(self) -> Command:
        return replace(super().command(), death_signal=signal.SIGCONT)


def main() -> None:
    server = Orphan(Path(sys.argv[1]))
    server.start()
    postmaster = int((server.cluster / "postmaster.pid").read_text().split()[0])
    left = postmaster
    if "--busy" in sys.argv:
        psql = [str(server.programs / "psql"), "-qX", "-d", server.dsn]
        alone = "SET max_parallel_workers_per_gather = 0"
        subprocess.Popen([*psql, "-c", alone, "-c", BUSY], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        found: list[str] = []
        while not found:
            found = subprocess.run(
                [*psql, "-Atc", WHO_IS_BUSY], capture_output=True, text=True, check=True
            ).stdout.split()
        left = int(found[0])
        os.kill(postmaster, signal.SIGKILL)
    os.write(1, f"{left}\n".encode())
    os._exit(0)


main()
