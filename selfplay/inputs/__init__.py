"""Reading: from files of any common shape to conversations, sites and rows, with a quarantine for bad rows."""
