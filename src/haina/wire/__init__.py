"""What travels between a coordinator and its nodes: messages, codecs of vectors, and who is who."""
