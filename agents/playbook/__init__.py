"""The playbook crew: four agents that are rules over the pattern library, for no money, on any machine."""
