"""The demo market: assets that follow bundled real series, the replay of those series, and traders of the public API.

The API knows nothing of it: replays speak to the price engine as any oracle does, traders to the API as anybody does.
Nothing here decides a trade's outcome or moves money.
"""
