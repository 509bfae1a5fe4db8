"""Faults: lost connections, killed processes, repeated requests, hostile input. Short here, in full under `soak`."""
