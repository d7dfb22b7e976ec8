"""What `report.json` holds, read back strictly: gates are judged and pages made from this alone."""
