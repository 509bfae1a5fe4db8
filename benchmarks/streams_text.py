"""Decimals as text, for the peers: what the market's own code does with integers of base units."""


def price_text(value: int, decimals: int) -> str:
    """`value` of 10^-decimals, without trailing zeros."""
    whole, fraction = divmod(value, 10**decimals)
    digits = f"{fraction:0{decimals}d}".rstrip("0")
    return f"{whole}.{digits}" if digits else str(whole)
