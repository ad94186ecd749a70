"""Generated protobuf code of version 1 of the wire, and the one conversion to and from the messages."""
