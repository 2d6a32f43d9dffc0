"""What failed, how often, whom it hit, why, and what to do."""
