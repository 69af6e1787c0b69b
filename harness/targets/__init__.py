"""Targets: the doors a call goes through. One call in, one outcome out, whatever the door."""
