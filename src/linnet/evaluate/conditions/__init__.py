"""Conditions under which codecs are compared: how they are named, what they do, and how a set of them is made."""
