"""What `make bench` runs. Every figure comes with its peer, measured in the same run on the same server.

All of it takes the production path: authentication, constraints, triggers, rate limits, fsync on. The load generator is
a process of its own; figures are medians.
"""
