"""What descriptions of the difference between two models tell of a fine-tune, on fine-tunes whose topic is known."""
