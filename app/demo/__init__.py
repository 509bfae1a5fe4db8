"""The demo market: assets that follow bundled real series, the replay of those series, and traders of the public API.

Only `replay.current_values` is used by the API itself. Nothing here decides a trade's outcome or moves money.
"""
