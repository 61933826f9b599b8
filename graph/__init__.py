"""How work flows: the state machine of a run, the command, and what a person sees."""
