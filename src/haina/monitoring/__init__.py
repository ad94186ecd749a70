"""What happened, for people: words, tables and pictures made from round records.

`explain` and `table` give plain data for a terminal, `summary` gives JSON, `plots` draws, `page` puts everything on one sheet. Only `plots` needs
more than the base installation, so nothing is imported here.
"""
