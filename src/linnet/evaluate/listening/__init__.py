"""Listening tests on what codecs made of a set: planned, served as pages, and analysed."""
