"""The doors: HTTP and gRPC into one Core. They turn bytes into messages and back, keep the limits, and decide nothing."""
