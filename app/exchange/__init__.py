"""The exchange: the bonding curve, the decision on each order, batched settlement, quotes, positions, reads."""
