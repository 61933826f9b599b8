"""The playbook crew: four agents that are rules over the pattern library, on any machine."""
