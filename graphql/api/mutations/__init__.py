"""Mutations with their inputs and payloads, a class for each domain; `schema` assembles them.

A resolver opens the transaction, calls one use case and shows what came of it. Rules are the use cases'.
"""
