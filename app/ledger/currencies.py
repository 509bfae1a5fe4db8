"""The stablecoins. Shares are currencies too, named by their asset's symbol, and not listed here."""

from enum import StrEnum


class Currency(StrEnum):
    """A stablecoin. Two different currencies: never added up, never credited as one another."""

    USDC = "USDC"
    USDT = "USDT"
