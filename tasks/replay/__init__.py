"""Refused rows on their way back: selected, exported, corrected, replayed or discarded."""
