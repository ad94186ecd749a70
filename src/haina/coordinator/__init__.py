"""The coordinator: rounds of real federations, fed by the network and kept through any crash."""
