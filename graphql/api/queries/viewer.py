"""The caller's own account."""

import strawberry

from api.access import account_of
from api.context import Info
from api.fields import computed
from api.types.accounts import Viewer, load_viewer


@strawberry.type
class ViewerQueries:
    """Where everything of the caller's own hangs."""

    @computed("The caller's own account; null for anonymous callers and for admins.")
    async def viewer(self, info: Info) -> Viewer | None:
        return await load_viewer(info, account_of(info.context.principal).account_id)
