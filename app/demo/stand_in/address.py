"""Where the stand-in is found: its publishers' names, when it is wanted, and the settings that lead an oracle worker to
it. No I/O.
"""

from typing import Final

from app.settings import Settings

MODEL: Final = "megatron-stand-in"
"""The name of its language model."""
HOSTS: Final = (
    "figures.example",
    "gazette.example",
    "bulletin.example",
    "ledger.example",
    "herald.example",
    "courier.example",
    "rigs.example",
)
"""The fictional publishers; the last one writes about something else."""
PROVIDERS: Final = frozenset({"serper_api_key", "serper_api_url", "huggingface_api_key", "huggingface_api_url"})
"""Settings that name a provider: whoever sets one has their own, which may be a stand-in of theirs."""
UNLESS_SET: Final = {
    "huggingface_model": ("HUGGINGFACE_MODEL", MODEL),
    "oracle_max_moves_percent": ("MEGATRON_ORACLE_MAX_MOVES_PERCENT", "1000"),
    "search_requests_per_day": ("MEGATRON_SEARCH_REQUESTS_PER_DAY", "100000"),
    "model_requests_per_day": ("MEGATRON_MODEL_REQUESTS_PER_DAY", "100000"),
    "search_request_cost": ("MEGATRON_SEARCH_REQUEST_COST", "0"),
    "model_token_cost": ("MEGATRON_MODEL_TOKEN_COST", "0"),
}
"""Settings of which somebody's own value stands, with their names in the environment: the stand-in costs nothing, and
its months pass so fast that a day's moves add up to far more than those of the real series."""


def is_wanted(settings: Settings) -> bool:
    """Whether the oracle worker is to use the stand-in: not where any provider is set, or loopback is ruled out."""
    given = settings.model_fields_set
    is_ruled_out = "oracle_allow_private" in given and not settings.oracle_allow_private
    return not (given & PROVIDERS or is_ruled_out)


def environment_for(settings: Settings, *, port: int) -> dict[str, str]:
    """Environment variables for an oracle worker that is to use the stand-in on `port` of loopback.

    What `settings` says already stands: hosts of its own are added to the publishers', and win over them.
    """
    own_hosts = [settings.oracle_hosts] if settings.oracle_hosts else []
    more = {name: value for field, (name, value) in UNLESS_SET.items() if field not in settings.model_fields_set}
    return {
        "SERPER_API_URL": f"http://127.0.0.1:{port}/serper",
        "HUGGINGFACE_API_URL": f"http://127.0.0.1:{port}/v1",
        "MEGATRON_ORACLE_HOSTS": ",".join([*(f"{host}=127.0.0.1:{port}" for host in HOSTS), *own_hosts]),
        "MEGATRON_ORACLE_ALLOW_PRIVATE": "1",
        **more,
    }
