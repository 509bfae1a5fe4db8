"""Queries, a class for each domain; `schema` assembles them. Resolvers translate and hand on."""
