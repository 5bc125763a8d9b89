"""The cloud engine and what it is made of."""
