"""Reject settings that cannot work, before any rank starts."""
