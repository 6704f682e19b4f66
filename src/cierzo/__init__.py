"""Cierzo: a chat for Mistral models that hides nothing."""

__version__ = "0.1.0"
