"""polyvex: vision-language models that see through several encoders.

Everything here is imported when it is first used, so that ``import polyvex`` alone stays light; the exception is
the registration with transformers' Auto classes, which happens when transformers is already there or once it is
imported by one of these names.
"""
