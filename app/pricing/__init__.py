"""Prices: the model (pure), the engine that makes ticks and candles of trades and readings, and their history."""
