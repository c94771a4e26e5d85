"""Systems that answer speech with speech: ours, and those it is compared with."""
