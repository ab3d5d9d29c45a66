"""What people are shown of candidates, rules and signals."""
