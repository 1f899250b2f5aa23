"""Questions about hidden states whose right answers are known, with controls."""
