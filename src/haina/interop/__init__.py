"""Other systems, spoken to in files and over REST: nothing of theirs is imported, and nothing of ours knows them."""
