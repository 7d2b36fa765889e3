"""Explanation jobs: a unit's examples in splits, given to the tools that explain units, and what they answer."""
