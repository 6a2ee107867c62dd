"""The domain: usage events, apportionment, prices, unit costs and windows.

Pure: no clock, no network, no vendor. Everything that a rule needs is passed in.
"""
