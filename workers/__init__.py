"""Background workers (arq). Thin: load, call `app`, return. They arrive with the price engine and the oracle."""
