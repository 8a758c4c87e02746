"""Data only: the built-in models as packages. README.md says what they are; `package/builtin.py` finds them."""
