"""Which days are done, which are to do, and with what."""
