"""The platform-wide pause of trading."""

from app.accounts.credentials import require_live_admin
from app.accounts.principals import AdminPrincipal
from app.admin.audit_log import append, checked_reason
from app.admin.platform import PlatformState, platform_state
from app.db import Unit
from app.ledger.locks import wait_for_trades


async def pause_trading(*, unit: Unit, principal: AdminPrincipal, paused: bool, reason: str) -> PlatformState:
    """Pause trading, or let it go on. Once the transaction has committed, no trade under way ends later.

    Doing it again replaces the reason. Raises `Refused` (INVALID_INPUT) for the reason; `Unauthenticated` when the
    session has ended meanwhile.
    """
    checked = checked_reason(reason)
    await wait_for_trades(unit.connection)
    await require_live_admin(unit.connection, principal=principal)
    await unit.connection.execute("SELECT 1 FROM platform FOR NO KEY UPDATE")
    before = await platform_state(connection=unit.connection)
    await unit.connection.execute(
        "UPDATE platform SET trading_paused = $1, reason = $2", paused, checked if paused else None
    )
    after = await platform_state(connection=unit.connection)
    await append(
        unit=unit, actor=principal.name, action="tradingPause", target="Platform:1", reason=checked,
        before=_shown(before), after=_shown(after),
    )  # fmt: skip
    return after


def _shown(state: PlatformState) -> dict[str, object]:
    return {"tradingPaused": state.trading_paused, "reason": state.reason}
