"""What is called when: patterns, and the loop that fires them."""
