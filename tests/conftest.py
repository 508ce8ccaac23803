"""What holds for all tests."""

from hypothesis import settings

# A slow moment of a busy machine is no failure.
settings.register_profile("dfnas", deadline=None)
settings.load_profile("dfnas")
