"""What a user would take instead, one file per library; none is needed to use this package.

`pip install -e .[bench]` installs them.
"""
