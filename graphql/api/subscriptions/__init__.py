"""Streams: which there are, what they may be asked, and how their events are encoded. How they travel is not here."""
