"""What happened, for people: words and pictures made from round records."""
