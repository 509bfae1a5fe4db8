"""Mirrors of the market at other services, off unless configured. Nothing in the market rests on them."""
