"""An adapter that reads any token, in any wording."""
