"""From files of scans to arrays of slices."""
