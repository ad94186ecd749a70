"""The audit: attacks on what was released, and what their success says about the privacy that was promised.

`bounds` counts, `canary` makes clients to be found again, `finding` says whether they were, `membership` asks a model who taught it, and
`inversion` draws the picture that an update was computed from. Nothing here is told more than an attacker sees, except by whoever compares guesses
with the truth.
"""
