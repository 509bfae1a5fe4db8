"""The schema's object types, by domain: what is shown of the domain's values, and how. No rule of the market."""
