"""Engines: what turns a prompt into tokens. One file each, all behind `cierzo.engines.base.Engine`."""
