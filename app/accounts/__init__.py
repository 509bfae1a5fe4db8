"""Who takes part: sign-up, passwords, sessions, API keys, requests for assets, and test funds in development."""
