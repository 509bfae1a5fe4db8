"""`megatron watch`: a live board of the market in a terminal. A client of the public API like any other."""
