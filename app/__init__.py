"""What the market is and does. Nothing here knows GraphQL or job queues; it imports `models` and nothing above it."""
