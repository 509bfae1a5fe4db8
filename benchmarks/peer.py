"""The peer: pgbench, one PL/pgSQL call a trade, same server, same rows, same constraints, one hot asset."""

import re
import subprocess
import tempfile
from pathlib import Path

from benchmarks.market import Servers, Trader

CLIENTS = 16
SQL = Path(__file__).with_name("peer.sql")


def install(servers: Servers) -> None:
    """Create the function that a transaction calls."""
    subprocess.run([servers.postgres.programs / "psql", "-X", "-q", "-d", servers.postgres.dsn, "-f", SQL], check=True)


def settle_down(servers: Servers) -> None:
    """Bring the server to rest: plans made for empty tables would cripple the peer until autovacuum came, and the
    checkpoint that follows a bulk load would be charged to whoever is measured next.
    """
    superuser = servers.postgres.dsn_of("megatron", user="postgres")
    for statement in ("VACUUM ANALYZE", "CHECKPOINT"):
        subprocess.run([servers.postgres.programs / "psql", "-X", "-q", "-d", superuser, "-c", statement], check=True)


def trades_per_second(servers: Servers, traders: list[Trader], *, asset_id: int, seconds: int) -> float:
    """Run pgbench and return its transactions per second."""
    first = traders[0].principal
    script = (
        f"\\set n random(0, {len(traders) - 1})\n\\set k random(1, 1000000000000000)\n"
        f"SELECT peer_buy({first.account_id} + :n, {first.credential.id} + :n, {asset_id}, 'p' || :k, 10000000);\n"
    )
    with tempfile.NamedTemporaryFile("w", suffix=".sql") as file:
        file.write(script)
        file.flush()
        done = subprocess.run(
            [
                servers.postgres.programs / "pgbench", "-M", "prepared", "-n", "-c", str(CLIENTS), "-j", "2",
                "-T", str(seconds), "-f", file.name, "-h", servers.postgres.socket_dir, "-U", "megatron", "megatron",
            ],
            check=True, capture_output=True, text=True,
        )  # fmt: skip
    found = re.search(r"tps = ([0-9.]+)", done.stdout)
    if found is None or "number of failed transactions: 0 " not in done.stdout:
        raise RuntimeError(f"pgbench did not run clean:\n{done.stdout}{done.stderr}")
    return float(found[1])
