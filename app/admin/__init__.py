"""What admins do: assets, accounts, requests, the platform-wide pause. Each action writes the audit log as it acts."""
