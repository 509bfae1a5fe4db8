"""Live streams: who reads what, from where on, and how one encoding serves all who read alike.

Knows nothing of GraphQL.
"""
