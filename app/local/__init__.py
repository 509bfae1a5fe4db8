"""The local market: embedded servers and their supervision for `make dev` and for tests.

Nothing here is used in production, where PostgreSQL and Redis are real servers and a process manager runs the parts.
"""
