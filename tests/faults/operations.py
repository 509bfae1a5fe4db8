"""The operations that fault tests send. Selections hold what a repeat must answer alike, and nothing read afresh."""

from typing import Final

SIGN_UP: Final = """
mutation SignUp($input: SignUpInput!) {
  signUp(input: $input) { session { token } viewer { id } userErrors { code message field } }
}
"""
LOG_IN: Final = """
mutation LogIn($input: LogInInput!) {
  logIn(input: $input) { session { token } userErrors { code message field } }
}
"""
ADMIN_LOG_IN: Final = """
mutation AdminLogIn($input: AdminLogInInput!) {
  adminLogIn(input: $input) { session { token } userErrors { code message field } }
}
"""
_ERRORS: Final = """
userErrors {
  __typename code message field
  ... on InsufficientBalanceError { required available }
  ... on SlippageError { bound actual atTradeSeq }
  ... on LimitError { limit remaining resetsAt }
}
"""
ORDER_PLACE: Final = f"""
mutation OrderPlace($input: OrderPlaceInput!) {{
  orderPlace(input: $input) {{
    order {{
      id clientOrderId assetId side type timeInForce status shares amount filledShares averagePrice gross fee reason
      createdAt updatedAt fills {{ id tradeSeq side shares price gross fee at }}
    }}
    {_ERRORS}
  }}
}}
"""
DEV_FUND: Final = f"mutation DevFund($input: DevFundInput!) {{ devFund(input: $input) {{ {_ERRORS} }} }}"
ASSET_CREATE: Final = f"""
mutation AssetCreate($input: AssetCreateInput!) {{ assetCreate(input: $input) {{ asset {{ id symbol }} {_ERRORS} }} }}
"""
ASSET_UPDATE: Final = f"""
mutation AssetUpdate($input: AssetUpdateInput!) {{ assetUpdate(input: $input) {{ asset {{ id }} {_ERRORS} }} }}
"""
ASSET_SET_STATUS: Final = f"""
mutation AssetSetStatus($input: AssetSetStatusInput!) {{
  assetSetStatus(input: $input) {{ asset {{ id status }} {_ERRORS} }}
}}
"""
ASSET_REQUEST_SUBMIT: Final = f"""
mutation AssetRequestSubmit($input: AssetRequestSubmitInput!) {{
  assetRequestSubmit(input: $input) {{ assetRequest {{ id }} {_ERRORS} }}
}}
"""
ACCOUNT_FREEZE: Final = f"""
mutation AccountFreeze($input: AccountFreezeInput!) {{
  accountFreeze(input: $input) {{ account {{ id frozen }} {_ERRORS} }}
}}
"""
TRADING_PAUSE: Final = f"""
mutation TradingPause($input: TradingPauseInput!) {{
  tradingPause(input: $input) {{ platform {{ tradingPaused }} {_ERRORS} }}
}}
"""
API_KEY_CREATE: Final = f"""
mutation ApiKeyCreate($input: ApiKeyCreateInput!) {{
  apiKeyCreate(input: $input) {{ apiKey {{ id }} secret {_ERRORS} }}
}}
"""
API_KEY_REVOKE: Final = f"""
mutation ApiKeyRevoke($id: ID!) {{ apiKeyRevoke(id: $id) {{ apiKey {{ id }} {_ERRORS} }} }}
"""
QUOTE: Final = f"""
query Quote($assetId: ID!, $side: Side!, $shares: Decimal, $amount: Decimal) {{
  quote(assetId: $assetId, side: $side, shares: $shares, amount: $amount) {{
    quote {{ shares gross fee total atTradeSeq }} {_ERRORS}
  }}
}}
"""
PORTFOLIO: Final = """
query Portfolio {
  viewer {
    id frozen
    balances { currency available held total }
    positions(first: 20) { nodes { id shares costBasis realizedPnl liquidationValue asset { id symbol } } }
    orders(first: 5) { nodes { id clientOrderId status } }
  }
}
"""
