"""The demo market: series, catalogue, replay, seeding, and the traders' decisions and manners."""
