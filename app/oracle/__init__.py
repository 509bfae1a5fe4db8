"""The oracle: sources, extraction, judgement, evidence. It supplies F; how F moves is the price engine's."""
