"""Steelyard: balance several losses with one call, and know whether sharing helped."""
