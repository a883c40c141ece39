"""What every command shares, and the command that is installed: importing this imports no JAX."""
