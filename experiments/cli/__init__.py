"""What every command shares: flags, faults, interruption, locks."""
