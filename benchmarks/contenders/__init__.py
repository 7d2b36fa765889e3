"""The contenders of the flatten benchmark, each by itself in a module that only its own trial imports."""
