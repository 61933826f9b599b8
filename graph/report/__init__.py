"""The report of a run: `report.html` for people and `report.json` for programs."""
