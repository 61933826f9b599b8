"""Who decides: what agents are told, the four roles, and the crew of rules."""
