"""Commands that are ended at random moments: nothing half-written, nobody left running, the old output kept."""
