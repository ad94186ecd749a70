from hypothesis import settings

# A deadline measures the machine and its other work, not the code; slow tests are found by --durations.
settings.register_profile("haina", deadline=None)
settings.load_profile("haina")
