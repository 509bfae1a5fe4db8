"""The embedded Valkey alone."""

from pathlib import Path

import redis

from app.local.valkey import EmbeddedValkey, ephemeral_valkey


def test_a_throwaway_server_keeps_nothing_and_listens_on_no_port() -> None:
    with ephemeral_valkey() as server, redis.Redis.from_url(server.url, decode_responses=True) as client:
        assert client.set("key", "value")
        assert client.config_get("port", "appendonly") == {"port": "0", "appendonly": "no"}
        folder = server.data_dir
        assert folder.exists()
    assert not folder.exists()


def test_data_stays_after_a_stop(tmp_path: Path) -> None:
    server = EmbeddedValkey(tmp_path / "data")
    try:
        server.start()
        with redis.Redis.from_url(server.url, decode_responses=True) as client:
            assert client.xadd("trades", {"seq": 1}, id="1-1") == "1-1"
        server.stop()
        server.start()
        with redis.Redis.from_url(server.url, decode_responses=True) as client:
            assert client.xrange("trades") == [("1-1", {"seq": "1"})]
    finally:
        server.stop()
    assert not server.socket_path.exists()
