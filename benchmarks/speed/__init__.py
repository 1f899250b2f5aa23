"""Speed against straightforward code on the same machine."""
