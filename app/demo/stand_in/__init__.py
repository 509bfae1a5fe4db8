"""A stand-in for the web, its search and a language model, so that a search oracle runs without keys and offline.

One process on loopback speaks Serper's and the OpenAI-compatible wire formats and serves pages of fictional publishers
about one real series. It says in every answer that it is a stand-in. The oracle knows nothing of it: it is reached by
the same settings as anything else (`address`).
"""
